//! Every statement has an index that can serve it: proven on an empty database, where the planner has no other excuse.

mod at_scale;

use std::collections::HashMap;

use coderdb::{
    model::{Cursor, JobFilter, JobId, JobStatus, PageRequest, TemplateId, Transition, UserId, WorkspaceId},
    sqlx::{self, AssertSqlSafe, Connection},
    store,
};
use serde_json::json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::support::{self, random_database as rows, source::files};

/// Scans and sorts that stay, and why. Each is bounded by something small.
const ALLOWED: &[(&str, &[&str])] = &[
    // The fleet has few daemons, and this runs seldom.
    ("daemons/delete_old.sql", &["Seq Scan on provisioner_daemons"]),
    // The rows of the answer.
    ("daemons/eligible.sql", &["Sort Key: j.id, d.created_at, d.id"]),
    // The daemons of one organization, and the few jobs that one daemon has at a time.
    (
        "daemons/list.sql",
        &["Sort Key: d.created_at DESC, d.id DESC", "Sort Key: j.started_at DESC NULLS LAST, j.id DESC"],
    ),
    (
        "jobs/by_ids_with_queue_position.sql",
        &[
            // The fleet has few daemons, and their freshness changes too often for an index.
            "Seq Scan on provisioner_daemons",
            // The pairs of a few tag sets.
            "Sort Key: fleets.fleet",
            "Sort Key: (hashtextextended((parts.tags)",
            "Sort Key: shares.fleet, counts.step",
            // The requested jobs.
            "Sort Key: pending_2.is_prebuild",
            // What waits, counted in an index alone, a range per tag set.
            "Index Only Scan using provisioner_jobs_waiting_",
            // The rows of the answer.
            "Sort Key: j.created_at, j.id",
        ],
    ),
    (
        "jobs/list.sql",
        &[
            // The rows of one page.
            "Sort Key: j.created_at DESC, j.id DESC",
            "Sort Key: ((page.initiator_id",
            // What waits, counted in an index alone.
            "Index Only Scan using provisioner_jobs_waiting_",
        ],
    ),
    // The agents of one build, and the lines of one batch or one job.
    ("agents/append_logs.sql", &["Sort Key: k.n"]),
    ("agents/in_latest_build.sql", &["Sort Key: a.display_order"]),
    ("agents/logs_after.sql", &["Sort Key: l.id"]),
    ("job_logs/after.sql", &["Sort Key: l.id"]),
    ("job_logs/append.sql", &["Sort Key: k.n"]),
    ("job_timings/list.sql", &["Sort Key: t.started_at, t.ended_at"]),
    // The candidates of one claim.
    ("jobs/acquire_batch.sql", &["Sort Key: ((p.initiator_id"]),
    // Five lines.
    // The jobs of one batch; versions name their jobs without an index, and are hashed once per batch.
    ("jobs/prune.sql", &["Sort Key: page.created_at, page.id", "Seq Scan on template_versions v"]),
    ("jobs/reap.sql", &["Sort Key: \"*VALUES*\".column1"]),
    // The jobs that are not completed, in random order, so that one that cannot be reaped holds up no other.
    (
        "jobs/reap_candidates.sql",
        &["Sort Key: (random())", "using provisioner_jobs_acquire_idx", "using provisioner_jobs_running_idx"],
    ),
    // A deployment has few templates and presets; the builds of a preset come out of an index, in order.
    ("prebuilds/at_failure_limit.sql", &["using template_version_presets_pkey on template_version_presets p"]),
    ("prebuilds/backoff.sql", &["using template_version_presets_pkey on template_version_presets p"]),
    (
        "prebuilds/status.sql",
        &[
            "Sort Key: t.name, t.id, p.name, p.id",
            "using templates_pkey on templates t",
            "using idx_unique_preset_name",
        ],
    ),
    ("prebuilds/count_in_progress.sql", &["using templates_pkey on templates t"]),
    (
        "prebuilds/organizations.sql",
        &[
            "Sort Key: o.name, o.id",
            "using idx_organization_name_lower on organizations o",
            "using templates_pkey on templates t",
            "using template_versions_template_id_name_key on template_versions v",
            "using idx_unique_preset_name on template_version_presets p",
        ],
    ),
    (
        "prebuilds/presets.sql",
        &[
            "Sort Key: t.name, t.id, v.created_at",
            "using templates_pkey on templates t",
            "using idx_unique_preset_name on template_version_presets p",
        ],
    ),
    // The prebuilds of one preset that wait, and those that nobody has claimed.
    (
        "prebuilds/cancel_stale_pending.sql",
        &["Sort Key: numbered.n", "Sort Key: j.created_at, j.id", "Sort Key: stale.created_at, stale.id"],
    ),
    ("prebuilds/running.sql", &["Sort Key: w.created_at, w.id"]),
    // Every prebuild that there ever was, which is what the numbers are about.
    ("prebuilds/metrics.sql", &["Sort Key: t.name, t.id, p.name", "using workspace_builds_prebuilds_idx"]),
    // All that waits and runs, and the fleet, is what the snapshot is about. Without rows, any index is as good for what one
    // daemon works on.
    (
        "queue/snapshot.sql",
        &[
            "using provisioner_jobs_acquire_idx on provisioner_jobs",
            "using provisioner_jobs_running_idx on provisioner_jobs j",
            "on provisioner_daemons",
        ],
    ),
    // What runs in all organizations, what waits in one, and the rows of the answer.
    (
        "queue/history.sql",
        &["using provisioner_jobs_running_idx on provisioner_jobs", "Sort Key: ((provisioner_jobs_2.initiator_id"],
    ),
    ("queue/shares.sql", &["using provisioner_jobs_running_idx on provisioner_jobs", "Sort Key: (CASE $2 WHEN"]),
    // A deployment has few groups, and the view of their members reads them all.
    // Sums over all workspaces and members of the organization. A deployment has few groups and templates.
    (
        "quota/by_group.sql",
        &[
            "Sort Key: (COALESCE(sum(consumed.credits)",
            "using groups_name_organization_id_key on groups g",
            "on group_members",
        ],
    ),
    ("quota/by_template.sql", &["Sort Key: (COALESCE(sum(b.daily_cost)"]),
    ("quota/check.sql", &["using groups_name_organization_id_key on groups g"]),
    ("quota/commit.sql", &["using groups_name_organization_id_key on groups g"]),
    // Two lists of names, of those who are there and of the deleted, become one. A deployment has few groups,
    // and their members are looked up once.
    (
        "quota/list.sql",
        &[
            // The deleted: no index has them.
            "Seq Scan on users",
            "Sort Key: (lower(",
            "using groups_name_organization_id_key on groups g",
            "using group_members_user_id_group_id_key on group_members m",
        ],
    ),
    ("quota/explain.sql", &["using groups_name_organization_id_key on groups g"]),
    ("quota/usage.sql", &["using groups_name_organization_id_key on groups g"]),
    // All of them is the answer, and a deployment has few.
    // The tokens of one user; of all, they are the answer. A deployment has few.
    ("api_keys/list.sql", &["Sort Key: (lower(", "on api_keys k", "on users u"]),
    ("licenses/list.sql", &["using licenses_pkey"]),
    ("licenses/unexpired.sql", &["using licenses_pkey"]),
    // All of them is the answer, and a deployment has few.
    ("organizations/list.sql", &["using idx_organization_name_lower"]),
    // An index with at most one row.
    ("organizations/default.sql", &["using organizations_single_default_org"]),
    // One row per owner who chose the same name. Without rows, its index by organization and name costs as much as this.
    ("workspaces/by_name.sql", &["Sort Key: u.username", "using workspaces_owner_id_lower_idx on workspaces w"]),
];

/// Scans of a whole table, be it through an index that nothing narrows from its first column on, and sorts.
fn suspicious<'a>(plan: &'a [String], first_columns: &HashMap<String, String>) -> impl Iterator<Item = &'a String> {
    plan.iter().enumerate().filter_map(|(n, line)| {
        let mut details = plan[n + 1..].iter().take_while(|line| !line.trim_start().starts_with("->"));
        let index = line.split_once(" using ").and_then(|(_, index)| index.split(' ').next());
        let narrows = |line: &String| line.contains("Index Cond") && line.contains(&first_columns[index.unwrap_or("")]);
        let whole_index = index.is_some() && !details.any(narrows);
        // An incremental sort reads an index in order, and sorts only rows that are equal there.
        let sort = line.contains("Sort Key") && !plan[n - 1].contains("Incremental Sort");
        (line.contains("Seq Scan") || sort || whole_index).then_some(line)
    })
}

#[tokio::test]
async fn no_statement_scans_or_sorts_a_table_that_grows() {
    let database = support::database().await;
    // SET and PREPARE are for the session.
    let mut conn = database.connect_with_session().await;
    // What still shows up has no index that could serve it: without bitmap scans, none hides behind an unfit one.
    let settings = "SET enable_seqscan = off; SET enable_sort = off; SET enable_bitmapscan = off;
                    SET plan_cache_mode = force_generic_plan;
                    -- What one aggregate puts in order, newer servers may sort in a node of its own.
                    SELECT set_config(name, 'off', false) FROM pg_settings WHERE name = 'enable_presorted_aggregate'";
    sqlx::raw_sql(settings).execute(&mut conn).await.unwrap();
    let first_columns =
        "SELECT indexrelid::regclass::text, trim('()' FROM pg_get_indexdef(indexrelid, 1, true)) FROM pg_index";
    let first_columns: Vec<(String, String)> = sqlx::query_as(first_columns).fetch_all(&mut conn).await.unwrap();
    let first_columns = first_columns.into_iter().collect();
    let mut problems = Vec::new();
    for (file, sql) in files("queries") {
        let parameters = (1..=99).take_while(|n| sql.contains(&format!("${n}"))).map(|_| "NULL").collect::<Vec<_>>();
        let arguments = if parameters.is_empty() { String::new() } else { format!("({})", parameters.join(", ")) };
        let prepare = format!("PREPARE statement AS\n{sql}");
        sqlx::raw_sql(AssertSqlSafe(prepare)).execute(&mut conn).await.unwrap();
        let explain = format!("EXPLAIN (COSTS OFF) EXECUTE statement{arguments}");
        let plan: Vec<String> =
            sqlx::query_scalar(AssertSqlSafe(explain)).persistent(false).fetch_all(&mut conn).await.unwrap();
        sqlx::raw_sql("DEALLOCATE statement").execute(&mut conn).await.unwrap();
        let allowed = ALLOWED.iter().find(|(name, _)| *name == file).map_or(&[][..], |(_, lines)| lines);
        for line in suspicious(&plan, &first_columns) {
            if !allowed.iter().any(|fine| line.contains(fine)) {
                problems.push(format!("{file}: {}\n{}", line.trim(), plan.join("\n")));
            }
        }
        for fine in allowed {
            assert!(plan.iter().any(|line| line.contains(fine)), "{file} does no longer need {fine:?} to be allowed");
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n\n"));
}

/// The statement of a listing is built, and in no file: which index found the jobs is what the server counted.
#[tokio::test]
async fn list_finds_its_jobs_in_the_index_of_its_access_path() {
    let database = support::database().await;
    let mut conn = database.connect().await;
    let id = Uuid::from_u128(1);
    for (table, row) in [
        ("organizations", rows::organization(id, "here")),
        ("users", rows::user(id, "somebody")),
        ("templates", rows::template(id, id, id, "template")),
        ("template_versions", rows::version(id, id, id, Some(id), "v1")),
        ("workspaces", rows::workspace(id, id, id, id, "workspace")),
        ("provisioner_jobs", rows::with(rows::job(id, id, id), json!({"input": {"workspace_build_id": id}}))),
        ("workspace_builds", rows::build(id, id, id, id, 1)),
    ] {
        rows::insert(&mut conn, table, &[row]).await;
    }
    // Among so many, an index that only half fits costs more.
    let jobs = "INSERT INTO provisioner_jobs (
                    id, created_at, updated_at, organization_id, initiator_id, provisioner, storage_method, file_id, type,
                    input, tags, started_at, completed_at, error
                )
                SELECT
                    md5('job ' || n)::uuid, j.created_at - n * interval '1 minute', j.updated_at, j.organization_id,
                    CASE WHEN n % 50 = 0 THEN j.initiator_id ELSE md5('user ' || n % 50)::uuid END, j.provisioner,
                    j.storage_method, j.file_id, j.type, jsonb_build_object('workspace_build_id', md5('build ' || n)::uuid),
                    CASE WHEN n % 30 = 1 THEN j.tags ELSE jsonb_build_object('scope', 'none', 'n', n % 30) END,
                    j.created_at, CASE WHEN n % 7 > 0 THEN j.created_at END, CASE WHEN n % 7 = 1 THEN 'failed' END
                FROM provisioner_jobs AS j, generate_series(1, 5000) AS n;
                ANALYZE";
    sqlx::raw_sql(jobs).execute(&mut conn).await.unwrap();
    let none = JobFilter::default;
    let tags = || Some([("scope", "organization")].into_iter().collect());
    let status = || vec![JobStatus::Failed, JobStatus::Canceled];
    let initiator = || Some(UserId(id));
    let of_template = || JobFilter { template: Some(TemplateId(id)), transition: Some(Transition::Start), ..none() };
    let by_id = ["provisioner_jobs_pkey"].as_slice();
    let by_initiator = &["provisioner_jobs_organization_id_initiator_id_idx"];
    let by_status = &["idx_provisioner_jobs_status"];
    let by_time = &["provisioner_jobs_organization_id_created_at_id_idx"];
    let unfinished = || vec![JobStatus::Pending, JobStatus::Running];
    let cases = [
        (none(), by_time.as_slice()),
        (JobFilter { created_after: Some(OffsetDateTime::UNIX_EPOCH), ..none() }, by_time),
        (of_template(), by_time),
        (JobFilter { transition: Some(Transition::Delete), ..none() }, by_time),
        (JobFilter { status: status(), ..none() }, by_time),
        (JobFilter { status: unfinished(), ..none() }, by_status),
        (JobFilter { status: unfinished(), initiator: initiator(), ..of_template() }, by_status),
        (JobFilter { status: status(), ..of_template() }, by_time),
        (JobFilter { tags: tags(), ..none() }, by_time),
        (JobFilter { tags: tags(), status: status(), ..none() }, by_time),
        (JobFilter { initiator: initiator(), ..none() }, by_initiator),
        (JobFilter { initiator: initiator(), status: status(), ..none() }, by_initiator),
        (JobFilter { initiator: initiator(), tags: tags(), ..none() }, by_initiator),
        (
            JobFilter { workspace: Some(WorkspaceId(id)), status: status(), initiator: initiator(), ..of_template() },
            by_id,
        ),
        (JobFilter { ids: vec![JobId(id)], workspace: Some(WorkspaceId(id)), status: status(), ..none() }, by_id),
    ];
    // What every listing reads besides: the jobs of the page, by their ids, and the queue.
    let others =
        ["provisioner_jobs_pkey", "provisioner_jobs_waiting_people_idx", "provisioner_jobs_waiting_prebuilds_idx"];
    for (filter, expected) in cases {
        for after in [None, Some(Cursor { created_at: OffsetDateTime::UNIX_EPOCH, id: JobId(id) })] {
            let mut transaction = conn.begin().await.unwrap();
            let settings =
                "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off;
                            SET LOCAL plan_cache_mode = force_generic_plan";
            sqlx::raw_sql(settings).execute(&mut *transaction).await.unwrap();
            let page = PageRequest { limit: Some(50), after };
            let before = scans(&mut transaction).await;
            store::jobs::list(&mut transaction, &support::read_jobs(id), &filter, page).await.unwrap();
            let used = scans(&mut transaction).await;
            transaction.rollback().await.unwrap();
            let led = used.iter().filter(|scans| !before.contains(scans)).map(|(name, _)| name.as_str());
            let led: Vec<&str> = led.filter(|name| !others.contains(name)).collect();
            let expected: Vec<&str> = expected.iter().copied().filter(|name| !others.contains(name)).collect();
            assert_eq!(led, expected, "{filter:#?} {page:?}");
        }
    }
}

/// How often this session has read each index of the jobs.
async fn scans(conn: &mut sqlx::PgConnection) -> Vec<(String, i64)> {
    let scans = "SELECT indexrelid::regclass::text, pg_stat_get_xact_numscans(indexrelid) FROM pg_index
                 WHERE indrelid = 'provisioner_jobs'::regclass ORDER BY 1";
    sqlx::query_as(scans).fetch_all(conn).await.unwrap()
}
