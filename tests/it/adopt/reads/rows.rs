//! What a random database has beside jobs, builds and daemons.

use std::collections::BTreeSet;

use coderdb::sqlx::{self, AssertSqlSafe, PgConnection};
use fastrand::Rng;
use serde_json::{Value, json};
use time::Duration;
use uuid::Uuid;

use crate::support::{
    adopted::run,
    model::PREBUILDS,
    random_database::{self as rows, NOW, at, insert, often, one, pick, time, uuid, with},
};

pub(super) async fn ids(conn: &mut PgConnection, sql: &str) -> Vec<Uuid> {
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
        .fetch_all(conn)
        .await
        .unwrap_or_else(|error| panic!("{sql}\n{error}"))
}

/// One of these, as SQL has it; null now and then.
fn some_id(rng: &mut Rng, ids: &[Uuid], probability: f64) -> String {
    let id = if often(rng, probability) { pick(rng, ids) } else { None };
    id.map_or_else(|| "NULL".to_owned(), |id| format!("'{id}'"))
}

/// Each of them up to three times.
fn several(rng: &mut Rng, ids: &[Uuid]) -> Vec<Uuid> {
    ids.iter().flat_map(|id| vec![*id; rng.usize(..4)]).collect()
}

fn some_time(rng: &mut Rng) -> Option<String> {
    rng.bool().then(|| at(time(rng)))
}

/// A random database, and more of what is read.
pub(super) async fn fill(conn: &mut PgConnection, rng: &mut Rng) {
    crate::support::random_database::fill(conn, rng).await;
    let users = ids(conn, "SELECT id FROM users ORDER BY id").await;
    templates(conn, rng, &users).await;
    builds(conn, rng).await;
    prebuilds(conn, rng).await;
    let jobs = ids(conn, "SELECT id FROM provisioner_jobs ORDER BY id").await;
    files(conn, rng, &jobs, &users).await;
    agents(conn, rng, &jobs).await;
    logs(conn, rng, &jobs).await;
    site(conn, rng).await;
    chats(conn, rng, &users).await;
    super::keys::fill(conn, rng).await;
}

async fn files(conn: &mut PgConnection, rng: &mut Rng, jobs: &[Uuid], users: &[Uuid]) {
    let files: Vec<Uuid> = (0..rng.usize(1..4)).map(|_| uuid(rng)).collect();
    let rows: Vec<Value> = files
        .iter()
        .enumerate()
        .map(|(n, id)| {
            json!({
                "id": id, "hash": format!("hash-{n}"), "created_at": at(time(rng)), "created_by": pick(rng, users),
                "mimetype": one(rng, &["application/x-tar", "application/zip", ""]), "data": one(rng, &["\\x", "\\x00ff", "\\x616263"]),
            })
        })
        .collect();
    insert(conn, "files", &rows).await;
    for job in jobs {
        let file = some_id(rng, &files, 0.8);
        run(conn, &format!("UPDATE provisioner_jobs SET file_id = coalesce({file}, file_id) WHERE id = '{job}'")).await;
    }
}

async fn templates(conn: &mut PgConnection, rng: &mut Rng, users: &[Uuid]) {
    let jobs = ids(conn, "SELECT id FROM provisioner_jobs ORDER BY id").await;
    let versions = ids(conn, "SELECT id FROM template_versions ORDER BY id").await;
    let organizations = ids(conn, "SELECT id FROM organizations ORDER BY id").await;
    let groups = ids(conn, "SELECT id FROM groups ORDER BY id").await;
    let actions =
        |rng: &mut Rng| one(rng, &[json!(["read"]), json!(["read", "use"]), json!(["*"]), json!([]), json!(["use"])]);
    for id in ids(conn, "SELECT id FROM templates ORDER BY id").await {
        let (mut people, mut lists) = (json!({}), json!({}));
        for user in users.iter().filter(|_| rng.u8(..4) == 0) {
            people[user.to_string()] = actions(&mut Rng::with_seed(user.as_u64_pair().0));
        }
        for group in organizations.iter().chain(&groups).filter(|_| rng.u8(..4) == 0) {
            lists[group.to_string()] = actions(&mut Rng::with_seed(group.as_u64_pair().0));
        }
        let (deprecated, ttl) = (one(rng, &["", "", "use another one"]), one(rng, &[0_i64, -1, 1, 3_600_000_000_000]));
        let (autostop, required) = (rng.bool(), rng.bool());
        let sql = format!(
            "UPDATE templates SET user_acl = '{people}', group_acl = '{lists}', deprecated = '{deprecated}', default_ttl = {ttl},
             allow_user_autostop = {autostop}, require_active_version = {required}, active_version_id = coalesce(
                (SELECT id FROM template_versions WHERE template_id = templates.id ORDER BY id LIMIT 1), active_version_id) WHERE id = '{id}'"
        );
        run(conn, &sql).await;
    }
    for id in &versions {
        let (job, archived) = (some_id(rng, &jobs, 0.8), rng.bool());
        let external = one(rng, &["NULL", "true", "false"]);
        run(
            conn,
            &format!(
                "UPDATE template_versions SET job_id = coalesce({job}, job_id), archived = {archived}, has_external_agent = {external} \
                 WHERE id = '{id}'"
            ),
        )
        .await;
    }
    let active = "SELECT DISTINCT active_version_id FROM templates WHERE active_version_id IN (SELECT id FROM template_versions) ORDER BY 1";
    let active = ids(conn, active).await;
    let mut small = BTreeSet::new();
    let presets: Vec<Value> = (0..rng.usize(..6))
        .map(|n| {
            let some = if often(rng, 0.6) { pick(rng, &active) } else { None };
            let version = some.or_else(|| pick(rng, &versions)).expect("a version");
            let name = if small.insert(version) { "small".to_owned() } else { format!("preset-{n}") };
            json!({
                "id": uuid(rng), "template_version_id": version, "name": name, "created_at": at(time(rng)),
                "desired_instances": one(rng, &[None, Some(0), Some(1), Some(3)]),
                "prebuild_status": one(rng, &["healthy", "hard_limited", "validation_failed"]),
            })
        })
        .collect();
    insert(conn, "template_version_presets", &presets).await;
    for organization in organizations {
        if rng.u8(..4) > 0 {
            continue;
        }
        let id = uuid(rng);
        run(conn, &format!("INSERT INTO groups (id, name, organization_id) VALUES ('{id}', 'coderprebuiltworkspaces', '{organization}')"))
            .await;
        if rng.bool() {
            run(conn, &format!("INSERT INTO group_members (user_id, group_id) VALUES ('{PREBUILDS}', '{id}')")).await;
        }
    }
}

/// Most of them are prebuilds, so that something is counted.
async fn builds(conn: &mut PgConnection, rng: &mut Rng) {
    let presets = ids(conn, "SELECT id FROM template_version_presets ORDER BY id").await;
    for id in ids(conn, "SELECT id FROM workspace_builds ORDER BY id").await {
        let preset = some_id(rng, &presets, 0.7);
        let reason = one(rng, &["initiator", "autostart", "dashboard"]);
        let (deadline, bound) = match rng.u8(..3) {
            0 => ("0001-01-01T00:00:00Z".to_owned(), "0001-01-01T00:00:00Z".to_owned()),
            1 => (at(NOW + Duration::hours(1)), "0001-01-01T00:00:00Z".to_owned()),
            _ => (at(NOW + Duration::hours(1)), at(NOW + Duration::hours(2))),
        };
        let (state, external) = (one(rng, &["NULL", "'\\x'", "'\\x00ff'"]), one(rng, &["NULL", "true", "false"]));
        let first = if often(rng, 0.6) {
            format!(", initiator_id = '{PREBUILDS}', transition = 'start'")
        } else {
            String::new()
        };
        let created = at(time(rng));
        run(
            conn,
            &format!(
                "UPDATE workspace_builds SET template_version_preset_id = {preset}, reason = '{reason}', deadline = '{deadline}',
                 max_deadline = '{bound}', provisioner_state = {state}, has_external_agent = {external}, created_at = '{created}',
                 template_version_id = coalesce((SELECT template_version_id FROM template_version_presets WHERE id = {preset}),
                    template_version_id){first} WHERE id = '{id}'"
            ),
        )
        .await;
    }
    for id in ids(conn, "SELECT id FROM workspaces ORDER BY id").await {
        if often(rng, 0.5) {
            run(conn, &format!("UPDATE workspaces SET owner_id = '{PREBUILDS}', name = 'prebuild-{id}', created_at = '{}' WHERE id = '{id}'", at(time(rng))))
                .await;
        }
        // The first build of most of them is one that counts.
        if often(rng, 0.7) {
            run(
                conn,
                &format!(
                    "UPDATE workspace_builds SET build_number = 1 WHERE id = (SELECT id FROM workspace_builds WHERE workspace_id = '{id}'
                     ORDER BY id LIMIT 1) AND NOT EXISTS (SELECT FROM workspace_builds WHERE workspace_id = '{id}' AND build_number = 1)"
                ),
            )
            .await;
        }
    }
}

/// Workspaces that the reconciler has asked for, most of the version that is the active one.
async fn prebuilds(conn: &mut PgConnection, rng: &mut Rng) {
    let sql = "SELECT DISTINCT ON (p.id) p.id, p.template_version_id, t.id, t.organization_id FROM template_version_presets AS p
        INNER JOIN template_versions AS v ON v.id = p.template_version_id
        INNER JOIN templates AS t ON t.active_version_id = v.id OR t.id = v.template_id ORDER BY p.id, t.id";
    let presets: Vec<(Uuid, Uuid, Uuid, Uuid)> = sqlx::query_as(sql).fetch_all(&mut *conn).await.expect("presets");
    let users = ids(conn, "SELECT id FROM users ORDER BY id").await;
    let versions = ids(conn, "SELECT id FROM template_versions ORDER BY id").await;
    for _ in 0..rng.usize(..16) {
        let Some((preset, version, template, organization)) = pick(rng, &presets) else { return };
        let version = if often(rng, 0.3) { pick(rng, &versions).expect("a version") } else { version };
        let [job, build, workspace] = [(); 3].map(|()| uuid(rng));
        let (started, ended) = (at(time(rng)), at(time(rng)));
        let state = one(
            rng,
            &[
                json!({}),
                json!({}),
                json!({}),
                json!({ "started_at": started }),
                json!({ "started_at": started, "completed_at": ended }),
                json!({ "started_at": started, "completed_at": ended }),
                json!({ "started_at": started, "completed_at": ended, "error": "no room" }),
                json!({ "started_at": started, "completed_at": ended, "error": "no room" }),
                json!({ "canceled_at": started, "completed_at": ended }),
            ],
        );
        let daemons =
            format!("SELECT id FROM provisioner_daemons WHERE organization_id = '{organization}' ORDER BY id");
        let worker = pick(rng, &ids(conn, &daemons).await).filter(|_| state.get("started_at").is_some());
        let row = with(rows::job(job, organization, PREBUILDS), state);
        let row = with(row, json!({ "worker_id": worker }));
        let row = with(row, json!({ "input": { "workspace_build_id": build }, "updated_at": at(time(rng)) }));
        insert(conn, "provisioner_jobs", &[row]).await;
        let owner = if often(rng, 0.8) { PREBUILDS } else { pick(rng, &users).expect("a user") };
        let row = rows::workspace(workspace, organization, owner, template, &format!("prebuild-{workspace}"));
        insert(conn, "workspaces", &[with(row, json!({ "created_at": at(time(rng)), "deleted": often(rng, 0.1) }))])
            .await;
        let row = with(rows::build(build, workspace, version, job, 1), json!({ "created_at": at(time(rng)) }));
        insert(conn, "workspace_builds", &[row]).await;
        run(conn, &format!("UPDATE workspace_builds SET template_version_preset_id = '{preset}' WHERE id = '{build}'"))
            .await;
    }
}

async fn agents(conn: &mut PgConnection, rng: &mut Rng, jobs: &[Uuid]) {
    let mut agents = Vec::<Uuid>::new();
    for job in jobs {
        for _ in 0..rng.usize(..3) {
            let resource = uuid(rng);
            let row = json!({
                "id": resource, "created_at": at(time(rng)), "job_id": job, "transition": "start", "type": "docker", "name": "dev",
            });
            insert(conn, "workspace_resources", &[row]).await;
            for n in 0..rng.usize(..3) {
                let id = uuid(rng);
                let row = json!({
                    "id": id, "created_at": at(time(rng)), "updated_at": at(time(rng)),
                    "name": format!("{}{n}-{resource}", one(rng, &["main", "Main", "side"])),
                    "first_connected_at": some_time(rng), "last_connected_at": some_time(rng), "disconnected_at": some_time(rng),
                    "resource_id": resource, "auth_token": uuid(rng), "architecture": "amd64", "operating_system": "linux",
                    "connection_timeout_seconds": one(rng, &[0, 120]),
                    "lifecycle_state": one(rng, &["ready", "ready", "starting", "created", "off"]),
                    "expanded_directory": one(rng, &["", "/home/coder"]), "started_at": some_time(rng), "ready_at": some_time(rng),
                    "display_order": one(rng, &[0, 0, 1]), "deleted": often(rng, 0.2), "logs_length": one(rng, &[0, 5]),
                    "logs_overflowed": rng.bool(), "parent_id": if often(rng, 0.2) { pick(rng, &agents) } else { None },
                });
                insert(conn, "workspace_agents", &[row]).await;
                agents.push(id);
            }
        }
    }
    let lines: Vec<Value> = several(rng, &agents)
        .into_iter()
        .map(|agent| {
            json!({
                "agent_id": agent, "created_at": at(time(rng)), "output": one(rng, &["", "a line", "ä\tline"]),
                "level": one(rng, &["trace", "debug", "info", "warn", "error"]), "log_source_id": uuid(rng),
            })
        })
        .collect();
    insert(conn, "workspace_agent_logs", &lines).await;
}

async fn logs(conn: &mut PgConnection, rng: &mut Rng, jobs: &[Uuid]) {
    let lines: Vec<Value> = several(rng, jobs)
        .into_iter()
        .map(|job| {
            json!({
                "job_id": job, "created_at": at(time(rng)), "source": one(rng, &["provisioner", "provisioner_daemon"]),
                "level": one(rng, &["trace", "debug", "info", "warn", "error"]), "stage": one(rng, &["", "Planning"]),
                "output": one(rng, &["", "a line", "ä\tline"]),
            })
        })
        .collect();
    insert(conn, "provisioner_job_logs", &lines).await;
    let timings: Vec<Value> = several(rng, jobs)
        .into_iter()
        .map(|job| {
            json!({
                "job_id": job, "started_at": at(time(rng)), "ended_at": at(time(rng)), "stage": one(rng, &["init", "plan", "graph", "apply"]),
                "source": one(rng, &["terraform", "docker"]), "action": one(rng, &["create", "read"]), "resource": uuid(rng),
            })
        })
        .collect();
    insert(conn, "provisioner_job_timings", &timings).await;
}

async fn site(conn: &mut PgConnection, rng: &mut Rng) {
    let licenses: Vec<Value> = (0..rng.usize(..4))
        .map(|n| {
            let expires = NOW + Duration::seconds(one(rng, &[-1, 0, 1]));
            json!({ "uploaded_at": at(time(rng)), "jwt": format!("license-{n}"), "exp": at(expires), "uuid": uuid(rng) })
        })
        .collect();
    insert(conn, "licenses", &licenses).await;
    let prebuilds = one(
        rng,
        &[
            None,
            Some("{}"),
            Some(r#"{"reconciliation_paused": true}"#),
            Some(r#"{"reconciliation_paused": false, "later": 1}"#),
        ],
    );
    let ttl = one(rng, &[None, Some("72h"), Some("")]);
    let deployment = one(rng, &[None, Some("5aa0e2bd"), Some("")]);
    for (key, value) in
        [("prebuilds_settings", prebuilds), ("agents_workspace_ttl", ttl), ("deployment_id", deployment)]
    {
        let rows: Vec<_> = value.into_iter().map(|value| json!({ "key": key, "value": value })).collect();
        insert(conn, "site_configs", &rows).await;
    }
}

async fn chats(conn: &mut PgConnection, rng: &mut Rng, users: &[Uuid]) {
    run(
        conn,
        "INSERT INTO chat_providers (provider) VALUES ('openai');
         INSERT INTO chat_model_configs (provider, model, context_limit, compression_threshold) VALUES ('openai', 'model', 200000, 80)",
    )
    .await;
    let model = ids(conn, "SELECT id FROM chat_model_configs").await;
    let organizations = ids(conn, "SELECT id FROM organizations ORDER BY id").await;
    let workspaces = ids(conn, "SELECT id FROM workspaces ORDER BY id").await;
    let builds = ids(conn, "SELECT id FROM workspace_builds ORDER BY id").await;
    let agents = ids(conn, "SELECT id FROM workspace_agents ORDER BY id").await;
    let maybe = |rng: &mut Rng, ids: &[Uuid]| if rng.bool() { pick(rng, ids) } else { None };
    let rows: Vec<Value> = (0..rng.usize(..5))
        .map(|_| {
            json!({
                "id": uuid(rng), "owner_id": pick(rng, users), "organization_id": pick(rng, &organizations),
                "workspace_id": maybe(rng, &workspaces), "build_id": maybe(rng, &builds), "agent_id": maybe(rng, &agents),
                "last_model_config_id": model[0], "updated_at": at(time(rng)),
                "status": one(rng, &["waiting", "running", "error"]),
            })
        })
        .collect();
    insert(conn, "chats", &rows).await;
}
