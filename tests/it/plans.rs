//! Every statement has an index that can serve it: proven on an empty database, where the planner has no other excuse.

use std::collections::HashMap;

use coderdb::sqlx::{self, AssertSqlSafe};

use crate::{house_rules::files, support};

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
            // One order per tag set: the jobs that wait, not all jobs.
            "Sort Key: (row_number() OVER ",
        ],
    ),
    (
        "jobs/list.sql",
        &[
            // The rows of one page.
            "Sort Key: j.created_at DESC, j.id DESC",
            // The whole index, which is the queue.
            "using provisioner_jobs_queue_idx",
        ],
    ),
    // The agents of one build, and the lines of one batch or one job.
    ("agents/append_logs.sql", &["Sort Key: k.n"]),
    ("agents/in_latest_build.sql", &["Sort Key: a.display_order"]),
    ("agents/logs_after.sql", &["Sort Key: l.id"]),
    ("job_logs/after.sql", &["Sort Key: l.id"]),
    ("job_logs/append.sql", &["Sort Key: k.n"]),
    ("job_timings/list.sql", &["Sort Key: t.started_at, t.ended_at"]),
    // Five lines.
    ("jobs/reap.sql", &["Sort Key: \"*VALUES*\".column1"]),
    // The jobs that are not completed, in random order, so that one that cannot be reaped holds up no other.
    (
        "jobs/reap_candidates.sql",
        &["Sort Key: (random())", "using provisioner_jobs_acquire_idx", "using provisioner_jobs_running_idx"],
    ),
    // A deployment has few templates and presets; the builds of a preset come out of an index, in order.
    ("prebuilds/at_failure_limit.sql", &["using template_version_presets_pkey on template_version_presets p"]),
    ("prebuilds/backoff.sql", &["using template_version_presets_pkey on template_version_presets p"]),
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
    ("prebuilds/metrics.sql", &["Sort Key: t.name, t.id, p.name", "using workspace_builds_prebuild_starts_idx"]),
    // A deployment has few groups, and the view of their members reads them all.
    ("quota/commit.sql", &["using groups_name_organization_id_key on groups g"]),
    ("quota/list.sql", &["using groups_name_organization_id_key on groups g"]),
    ("quota/usage.sql", &["using groups_name_organization_id_key on groups g"]),
    // All of them is the answer, and a deployment has few.
    ("licenses/list.sql", &["using licenses_pkey"]),
    ("licenses/unexpired.sql", &["using licenses_pkey"]),
    // All of them is the answer, and a deployment has few.
    ("organizations/list.sql", &["using idx_organization_name_lower"]),
    // An index with at most one row.
    ("organizations/default.sql", &["using organizations_single_default_org"]),
    // One row per owner who chose the same name; only people at a command line ask without an owner.
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
