//! Rows to list: inserted by name, or a whole random database from a seed.
//!
//! Random values come from small pools, so that rows meet: tags that fit, equal times, ids of other organizations.

use std::collections::BTreeSet;

use fastrand::Rng;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339, macros::datetime};
use uuid::Uuid;

use crate::support::model::PREBUILDS;

/// The time at which every random database is looked at.
pub const NOW: OffsetDateTime = datetime!(2026-05-07 12:00:00.25 UTC);

/// The stale interval (domain: daemons).
pub const STALE: Duration = Duration::seconds(90);

/// Inserts rows that all have the same keys, which are the names of the columns.
pub async fn insert(conn: &mut PgConnection, table: &str, rows: &[Value]) {
    let Some(Value::Object(first)) = rows.first() else { return };
    let columns: Vec<String> = first.keys().map(|key| format!(r#""{key}""#)).collect();
    let columns = columns.join(", ");
    // A JSON null is a value in these columns, and the server would make it an SQL one.
    let values =
        columns.replace(r#""input""#, "coalesce(input, 'null')").replace(r#""tags""#, "coalesce(tags, 'null')");
    let sql = format!(
        "INSERT INTO {table} ({columns}) SELECT {values} FROM jsonb_populate_recordset(NULL::{table}, $1::jsonb)"
    );
    sqlx::query(AssertSqlSafe(sql))
        .bind(Value::from(rows.to_vec()))
        .execute(conn)
        .await
        .unwrap_or_else(|error| panic!("{table}: {error}: {rows:#?}"));
}

/// The time as the database reads it.
pub fn at(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap()
}

pub fn organization(id: Uuid, name: &str) -> Value {
    json!({
        "id": id, "name": name, "description": "", "created_at": at(NOW), "updated_at": at(NOW), "is_default": false,
        "display_name": name, "icon": "", "deleted": false, "shareable_workspace_owners": "everyone",
    })
}

pub fn user(id: Uuid, username: &str) -> Value {
    json!({
        "id": id, "email": format!("{username}@example.com"), "username": username, "hashed_password": "",
        "created_at": at(NOW), "updated_at": at(NOW), "status": "active", "rbac_roles": [], "login_type": "password",
        "avatar_url": "", "deleted": false, "last_seen_at": "2026-01-01T00:00:00", "quiet_hours_schedule": "",
        "name": "", "is_system": false, "is_service_account": false,
    })
}

pub fn member(organization: Uuid, user: Uuid) -> Value {
    json!({
        "organization_id": organization, "user_id": user, "created_at": at(NOW), "updated_at": at(NOW), "roles": [],
    })
}

pub fn group(id: Uuid, organization: Uuid, name: &str, allowance: i32) -> Value {
    json!({
        "id": id, "name": name, "organization_id": organization, "avatar_url": "", "quota_allowance": allowance,
        "display_name": "", "source": "user",
    })
}

pub fn template(id: Uuid, organization: Uuid, created_by: Uuid, name: &str) -> Value {
    json!({
        "id": id, "created_at": at(NOW), "updated_at": at(NOW), "organization_id": organization, "deleted": false,
        "name": name, "provisioner": "terraform", "active_version_id": Uuid::nil(), "description": "", "default_ttl": 0,
        "created_by": created_by, "icon": "", "user_acl": {}, "group_acl": {}, "display_name": "",
        "allow_user_cancel_workspace_jobs": true, "allow_user_autostart": true, "allow_user_autostop": true,
        "failure_ttl": 0, "time_til_dormant": 0, "time_til_dormant_autodelete": 0,
        "autostop_requirement_days_of_week": 0, "autostop_requirement_weeks": 0, "autostart_block_days_of_week": 0,
        "require_active_version": false, "deprecated": "", "activity_bump": 0, "max_port_sharing_level": "owner",
        "use_classic_parameter_flow": false, "cors_behavior": "simple", "disable_module_cache": false,
    })
}

pub fn version(id: Uuid, organization: Uuid, created_by: Uuid, template: Option<Uuid>, name: &str) -> Value {
    json!({
        "id": id, "template_id": template, "organization_id": organization, "created_at": at(NOW), "updated_at": at(NOW),
        "name": name, "readme": "", "job_id": Uuid::nil(), "created_by": created_by, "external_auth_providers": [],
        "message": "", "archived": false,
    })
}

pub fn workspace(id: Uuid, organization: Uuid, owner: Uuid, template: Uuid, name: &str) -> Value {
    json!({
        "id": id, "created_at": at(NOW), "updated_at": at(NOW), "owner_id": owner, "organization_id": organization,
        "template_id": template, "deleted": false, "name": name, "last_used_at": at(NOW), "automatic_updates": "never",
        "favorite": false, "group_acl": {}, "user_acl": {},
    })
}

pub fn build(id: Uuid, workspace: Uuid, version: Uuid, job: Uuid, number: i32) -> Value {
    json!({
        "id": id, "created_at": at(NOW), "updated_at": at(NOW), "workspace_id": workspace,
        "template_version_id": version, "build_number": number, "transition": "start", "initiator_id": PREBUILDS,
        "job_id": job, "deadline": "0001-01-01T00:00:00Z", "reason": "initiator", "daily_cost": 0,
        "max_deadline": "0001-01-01T00:00:00Z",
    })
}

/// The id of the key is that of the organization.
pub fn key(organization: Uuid) -> Value {
    json!({
        "id": organization, "created_at": at(NOW), "organization_id": organization, "name": "key", "hashed_secret": "",
        "tags": {},
    })
}

pub fn daemon(id: Uuid, organization: Uuid, name: &str, tags: &Value) -> Value {
    json!({
        "id": id, "created_at": at(NOW), "name": name, "provisioners": ["echo", "terraform"], "tags": tags,
        "last_seen_at": at(NOW), "version": "", "api_version": "1.0", "organization_id": organization,
        "key_id": organization,
    })
}

/// A job that waits, with the tags of an untagged one.
pub fn job(id: Uuid, organization: Uuid, initiator: Uuid) -> Value {
    json!({
        "id": id, "created_at": at(NOW), "updated_at": at(NOW), "started_at": null, "canceled_at": null,
        "completed_at": null, "error": null, "organization_id": organization, "initiator_id": initiator,
        "provisioner": "terraform", "storage_method": "file", "type": "workspace_build", "input": {},
        "worker_id": null, "file_id": Uuid::nil(), "tags": {"scope": "organization", "owner": ""},
        "error_code": null, "trace_metadata": null, "logs_length": 0, "logs_overflowed": false,
    })
}

/// The row with some columns changed.
pub fn with(mut row: Value, changes: Value) -> Value {
    let (Value::Object(row_columns), Value::Object(changes)) = (&mut row, changes) else { panic!("not rows") };
    for (column, value) in changes {
        assert!(row_columns.insert(column.clone(), value).is_some(), "{column} is not a column");
    }
    row
}

pub fn uuid(rng: &mut Rng) -> Uuid {
    Uuid::from_u128(rng.u128(..))
}

fn uuids(rng: &mut Rng, count: std::ops::Range<usize>) -> Vec<Uuid> {
    (0..rng.usize(count)).map(|_| uuid(rng)).collect()
}

pub fn often(rng: &mut Rng, probability: f64) -> bool {
    rng.f64() < probability
}

/// One of some values; `None` when there is none.
pub fn pick<T: Clone>(rng: &mut Rng, values: &[T]) -> Option<T> {
    rng.choice(values).cloned()
}

/// Tags that jobs and daemons share, usual ones first.
pub fn tags(rng: &mut Rng) -> Value {
    let usual = [
        json!({"scope": "organization", "owner": ""}),
        json!({"scope": "organization", "owner": "", "env": "on-prem"}),
        json!({"scope": "organization", "owner": "", "env": "on-prem", "dc": "chi"}),
        json!({"scope": "organization"}),
        json!({}),
        json!({"scope": "user", "owner": "aaa"}),
        json!({"scope": "user", "owner": "bbb"}),
    ];
    let odd = [
        json!({"scope": "organization", "owner": null}),
        json!({"scope": "organization", "owner": "", "n": 1}),
        json!({"scope": "organization", "owner": "", "n": 1.0}),
        json!({"n": 1}),
        json!({"n": "1"}),
        json!({"list": ["a", "b", "a"]}),
        json!({"list": ["b", "a"]}),
        json!({"list": "a"}),
        json!({"deep": {"er": [1, {"x": null}]}}),
        json!({"deep": {"er": [{}]}}),
        json!(null),
        json!("scope"),
        json!(["scope"]),
        json!(["scope", ["owner"], 1]),
        json!([["owner"]]),
        json!([]),
        json!(1),
        json!(true),
    ];
    let first = rng.usize(..usual.len()).min(rng.usize(..usual.len()));
    if often(rng, 0.85) { usual[first].clone() } else { one(rng, &odd) }
}

pub fn one<T: Clone>(rng: &mut Rng, values: &[T]) -> T {
    rng.choice(values).cloned().unwrap()
}

fn provisioners(rng: &mut Rng) -> Value {
    one(
        rng,
        &[json!([]), json!(["echo"]), json!(["terraform"]), json!(["terraform", "echo"]), json!(["echo", "terraform"])],
    )
}

/// One of four times, so that several rows share one.
pub fn time(rng: &mut Rng) -> OffsetDateTime {
    let minutes = one(rng, &[0, 1, 1, 60]);
    NOW - Duration::minutes(minutes) - Duration::microseconds(i64::from(rng.bool()))
}

pub fn last_seen(rng: &mut Rng) -> Option<OffsetDateTime> {
    let microsecond = Duration::microseconds(1);
    let times = [
        NOW,
        NOW - Duration::minutes(1),
        NOW - STALE,
        NOW - STALE - microsecond,
        NOW - STALE + microsecond,
        NOW - Duration::days(3),
        NOW + Duration::minutes(1),
    ];
    if often(rng, 0.85) { pick(rng, &times) } else { None }
}

/// The id in one of the spellings that people and programs use, or something that only looks like an id.
fn spelled(rng: &mut Rng, id: Uuid) -> Value {
    match rng.u8(..24) {
        0 => json!(id.braced().to_string()),
        1 => json!(id.simple().to_string()),
        2 => json!(id.to_string().to_uppercase()),
        3 => json!(format!("{{{}}}", id.simple())),
        4 => json!(format!("{}-{}", &id.simple().to_string()[..4], &id.simple().to_string()[4..])),
        5 => json!(id.urn().to_string()),
        6 => json!(format!(" {id}")),
        7 => json!(format!("{id}\n")),
        8 => json!(format!("{{{id}")),
        9 => json!(format!("{}0", id.simple())),
        10 => json!(""),
        11 => json!("not-a-uuid"),
        12 => json!(12),
        13 => json!([id]),
        14 => json!({"id": id}),
        15 => json!(false),
        16 => json!(null),
        _ => json!(id),
    }
}

/// What a job is about, from ids that may be unknown or another organization's.
fn input(rng: &mut Rng, builds: &[Uuid], versions: &[Uuid], own: Option<Uuid>) -> Value {
    let some = |rng: &mut Rng, ids: &[Uuid]| {
        let id = if often(rng, 0.9) { pick(rng, ids) } else { None };
        let id = id.unwrap_or_else(|| uuid(rng));
        spelled(rng, id)
    };
    let build = match own {
        Some(id) if often(rng, 0.7) => json!(id),
        _ => some(rng, builds),
    };
    let version = some(rng, versions);
    match rng.u8(..20) {
        0..9 => json!({"workspace_build_id": build, "dry_run": false}),
        9..13 => json!({"template_version_id": version, "user_variable_values": []}),
        13..15 => json!({"template_version_id": version, "workspace_build_id": build}),
        15 => json!({}),
        16 => json!({"Workspace_Build_ID": build, "nested": {"workspace_build_id": build}}),
        17 => json!(["workspace_build_id", build, "template_version_id"]),
        18 => one(rng, &[json!(null), json!("workspace_build_id"), json!(7), json!(true), json!([])]),
        _ => json!([{"workspace_build_id": build}]),
    }
}

/// The columns that decide on a job's status: often all null, else one of their combinations (domain: job status).
fn state(rng: &mut Rng) -> Value {
    let waits = often(rng, 0.45);
    let null_or_time = |rng: &mut Rng| (!waits && rng.bool()).then(|| at(time(rng)));
    let (started_at, canceled_at, completed_at) = (null_or_time(rng), null_or_time(rng), null_or_time(rng));
    let error = match rng.u8(..6) {
        _ if waits && often(rng, 0.85) => None,
        0 | 1 => Some(""),
        2 => Some("terraform said: insufficient quota"),
        3 => Some(" "),
        _ => None,
    };
    json!({"started_at": started_at, "canceled_at": canceled_at, "completed_at": completed_at, "error": error})
}

fn cost(rng: &mut Rng) -> i32 {
    one(rng, &[0, 0, 1, 10, 40, -3, i32::MAX])
}

/// Fills an empty migrated database.
#[expect(clippy::too_many_lines, reason = "one table after the other")]
pub async fn fill(conn: &mut PgConnection, rng: &mut Rng) {
    let organizations = uuids(rng, 2..5);
    let some_organization = |rng: &mut Rng| organizations[rng.usize(..organizations.len()).min(rng.usize(..4))];
    let deleted = rng.usize(..organizations.len());
    let default = rng.usize(..=organizations.len());
    let rows: Vec<Value> = (0..organizations.len())
        .map(|n| {
            // The name of a deleted organization may have been taken again.
            let name = if n == deleted { "org-0".to_owned() } else { format!("org-{n}") };
            with(organization(organizations[n], &name), json!({"deleted": n == deleted, "is_default": n == default}))
        })
        .collect();
    insert(conn, "organizations", &rows).await;

    let people = uuids(rng, 1..5);
    let rows: Vec<Value> = people
        .iter()
        .enumerate()
        .map(|(n, id)| {
            let status = one(rng, &["active", "suspended", "dormant"]);
            with(user(*id, &format!("user-{n}")), json!({"deleted": often(rng, 0.25), "status": status}))
        })
        .collect();
    insert(conn, "users", &rows).await;
    let mut users = people.clone();
    users.push(PREBUILDS);

    let mut rows = Vec::new();
    for organization in &organizations {
        for user in &users {
            if rng.bool() {
                rows.push(member(*organization, *user));
            }
        }
    }
    insert(conn, "organization_members", &rows).await;

    let mut groups = uuids(rng, 0..5);
    groups.extend(organizations.iter().copied().filter(|_| often(rng, 0.85)));
    let rows: Vec<Value> = groups
        .iter()
        .map(|id| {
            let everyone = organizations.contains(id) && often(rng, 0.95);
            let name = if everyone { "Everyone".to_owned() } else { id.to_string() };
            let organization = if everyone { *id } else { some_organization(rng) };
            group(*id, organization, &name, cost(rng))
        })
        .collect();
    insert(conn, "groups", &rows).await;
    let mut rows = Vec::new();
    for group in &groups {
        for user in &users {
            if often(rng, 0.3) {
                rows.push(json!({"group_id": group, "user_id": user}));
            }
        }
    }
    insert(conn, "group_members", &rows).await;

    let templates: Vec<(Uuid, Uuid)> = uuids(rng, 1..5).into_iter().map(|id| (id, some_organization(rng))).collect();
    let rows: Vec<Value> = templates
        .iter()
        .enumerate()
        .map(|(n, (id, organization))| {
            let row = template(*id, *organization, pick(rng, &users).unwrap(), &format!("template-{n}"));
            let display_name = one(rng, &["", "A Template"]);
            let icon = one(rng, &["", "/icon/k8s.svg"]);
            with(row, json!({"deleted": often(rng, 0.3), "display_name": display_name, "icon": icon}))
        })
        .collect();
    insert(conn, "templates", &rows).await;

    let versions = uuids(rng, 1..6);
    let rows: Vec<Value> = versions
        .iter()
        .enumerate()
        .map(|(n, id)| {
            let (template, home) = pick(rng, &templates).unwrap();
            let organization = if often(rng, 0.75) { home } else { some_organization(rng) };
            let template = often(rng, 0.75).then_some(template);
            version(*id, organization, pick(rng, &users).unwrap(), template, &format!("v{n}"))
        })
        .collect();
    insert(conn, "template_versions", &rows).await;

    let workspaces: Vec<(Uuid, Uuid)> = uuids(rng, 0..5).into_iter().map(|id| (id, some_organization(rng))).collect();
    let rows: Vec<Value> = workspaces
        .iter()
        .enumerate()
        .map(|(n, (id, organization))| {
            let (owner, template) = (pick(rng, &users).unwrap(), pick(rng, &templates).unwrap().0);
            with(
                workspace(*id, *organization, owner, template, &format!("workspace-{n}")),
                json!({"deleted": often(rng, 0.3)}),
            )
        })
        .collect();
    insert(conn, "workspaces", &rows).await;

    let rows: Vec<Value> = organizations.iter().map(|id| key(*id)).collect();
    insert(conn, "provisioner_keys", &rows).await;
    let daemons = uuids(rng, 0..6);
    let rows: Vec<Value> = daemons
        .iter()
        .enumerate()
        .map(|(n, id)| {
            with(
                daemon(*id, some_organization(rng), &format!("daemon-{n}"), &tags(rng)),
                json!({
                    "provisioners": provisioners(rng), "created_at": at(time(rng)), "last_seen_at": last_seen(rng).map(at),
                }),
            )
        })
        .collect();
    insert(conn, "provisioner_daemons", &rows).await;

    let jobs: Vec<(Uuid, Uuid)> = uuids(rng, 0..15).into_iter().map(|id| (id, some_organization(rng))).collect();
    let mut jobs_with_build = jobs.clone();
    rng.shuffle(&mut jobs_with_build);
    jobs_with_build.truncate(if workspaces.is_empty() { 0 } else { rng.usize(..8) });
    // Most builds are of the organization of their job.
    let builds: Vec<(Uuid, Uuid, Uuid)> = jobs_with_build
        .iter()
        .map(|(job, organization)| {
            let here: Vec<_> = workspaces.iter().filter(|(_, home)| home == organization).copied().collect();
            let workspace = if often(rng, 0.7) { pick(rng, &here) } else { None };
            (uuid(rng), *job, workspace.or_else(|| pick(rng, &workspaces)).unwrap().0)
        })
        .collect();

    let build_ids: Vec<Uuid> = builds.iter().map(|build| build.0).collect();
    let rows: Vec<Value> = jobs
        .iter()
        .map(|(id, organization)| {
            let initiator = match rng.u8(..10) {
                0..4 => PREBUILDS,
                4..8 => pick(rng, &people).unwrap(),
                8 => uuid(rng),
                _ => Uuid::nil(),
            };
            let own = builds.iter().find(|build| build.1 == *id).map(|build| build.0);
            let input = input(rng, &build_ids, &versions, own);
            let state = state(rng);
            let worker = match rng.u8(..10) {
                _ if state["started_at"].is_null() && often(rng, 0.95) => None,
                0..7 => pick(rng, &daemons),
                7 | 8 => Some(uuid(rng)),
                _ => None,
            };
            let code = one(
                rng,
                &[
                    None,
                    Some("MISSING_TEMPLATE_PARAMETER"),
                    Some("REQUIRED_TEMPLATE_VARIABLES"),
                    Some("INSUFFICIENT_QUOTA"),
                ],
            );
            let row = with(job(*id, *organization, initiator), state);
            with(
                row,
                json!({
                    "created_at": at(time(rng)), "updated_at": at(time(rng)),
                    "provisioner": one(rng, &["echo", "terraform", "terraform"]),
                    "type": one(rng, &["template_version_import", "workspace_build", "template_version_dry_run"]),
                    "input": input, "worker_id": worker, "file_id": uuid(rng), "tags": tags(rng), "error_code": code,
                    "trace_metadata": one(rng, &[json!(null), json!({"traceparent": "00-1"}), json!([1.5])]),
                    "logs_length": one(rng, &[0, 1, 1_048_576]), "logs_overflowed": rng.bool(),
                }),
            )
        })
        .collect();
    insert(conn, "provisioner_jobs", &rows).await;

    let mut numbers = BTreeSet::new();
    let rows: Vec<Value> = builds
        .iter()
        .map(|(id, job, workspace)| {
            let number = loop {
                let any = rng.i32(1..1000);
                let number = one(rng, &[1, 2, 3, 10, 100, 0, -7, i32::MAX, any]);
                if numbers.insert((*workspace, number)) {
                    break number;
                }
            };
            with(
                build(*id, *workspace, pick(rng, &versions).unwrap(), *job, number),
                json!({
                    "transition": one(rng, &["start", "stop", "delete"]), "daily_cost": cost(rng),
                    "initiator_id": pick(rng, &users).unwrap(),
                }),
            )
        })
        .collect();
    insert(conn, "workspace_builds", &rows).await;
}
