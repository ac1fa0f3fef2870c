//! Facts of tables, and the status of jobs.

use std::fmt::Write as _;

use super::Schema;

#[tokio::test]
async fn a_job_names_its_initiator_worker_and_file_without_foreign_keys() {
    let mut schema = Schema::with_rows().await;
    schema
        .outcomes(&[
            ("UPDATE provisioner_jobs SET initiator_id = u(99), worker_id = u(99), file_id = u(99)", "ok"),
            ("UPDATE workspace_builds SET initiator_id = u(99)", "ok"),
            ("UPDATE template_versions SET job_id = u(99)", "ok"),
            ("UPDATE provisioner_jobs SET organization_id = u(99)", "23503 provisioner_jobs_organization_id_fkey"),
        ])
        .await;
}

#[tokio::test]
async fn a_tagset_is_any_jsonb_and_only_agent_logs_are_unlogged() {
    let mut schema = Schema::new().await;
    let domain = "SELECT typbasetype::regtype, typnotnull, (SELECT count(*) FROM pg_constraint WHERE contypid = t.oid) \
                  FROM pg_type AS t WHERE typname = 'tagset'";
    assert_eq!(schema.row(domain).await, "jsonb false 0");
    let unlogged = "SELECT relname FROM pg_class WHERE relpersistence = 'u' AND relkind = 'r'";
    assert_eq!(schema.row(unlogged).await, "workspace_agent_logs");
}

#[tokio::test]
async fn the_log_columns_of_a_job_say_what_they_are() {
    let mut schema = Schema::new().await;
    let comments = "SELECT col_description(attrelid, attnum) FROM pg_attribute \
                    WHERE attrelid = 'provisioner_jobs'::regclass AND attname LIKE 'logs\\_%' ORDER BY attnum";
    let comments = schema.rows(comments).await;
    assert!(comments[0].starts_with("Total length of the logs"), "{comments:?}");
    assert!(comments[1].starts_with("Whether the logs overflowed"), "{comments:?}");
}

#[tokio::test]
async fn the_status_of_a_job_is_the_decision_list_over_its_four_columns() {
    let mut schema = Schema::with_rows().await;
    schema.run("DELETE FROM provisioner_jobs").await;
    let (mut setup, mut expected) = (String::new(), Vec::new());
    for bits in 0..8 {
        let [completed, canceled, started] = [4, 2, 1].map(|bit| bits & bit != 0);
        for error in ["NULL", "''", "'broken'"] {
            let status = match (completed, canceled, started) {
                _ if error == "'broken'" => "failed",
                (true, true, _) => "canceled",
                (true, false, _) => "succeeded",
                (false, true, _) => "canceling",
                (false, false, false) => "pending",
                (false, false, true) => "running",
            };
            let n = expected.len();
            let time = |set| if set { "at_second(1)" } else { "NULL" };
            write!(
                setup,
                "SELECT add_job({n}); UPDATE provisioner_jobs \
                 SET completed_at = {}, canceled_at = {}, started_at = {}, \
                 error = {error} WHERE id = u({n});",
                time(completed),
                time(canceled),
                time(started),
            )
            .expect("memory");
            expected.push(format!("{completed} {canceled} {started} {error} {status}"));
        }
    }
    assert_eq!(expected.len(), 24, "16 combinations, and those without an error once more with an empty one");
    schema.run(&setup).await;
    let actual = schema
        .rows(
            "SELECT completed_at IS NOT NULL AS c, canceled_at IS NOT NULL AS x, started_at IS NOT NULL AS s, \
             quote_nullable(error) AS e, job_status FROM provisioner_jobs ORDER BY id",
        )
        .await;
    assert_eq!(actual, expected);
    schema
        .outcomes(&[
            ("UPDATE provisioner_jobs SET job_status = 'unknown'", "428C9"),
            ("SELECT 'unknown'::provisioner_job_status", "ok"),
        ])
        .await;
}

#[tokio::test]
async fn a_new_job_is_pending_with_the_default_tags_and_no_logs() {
    let mut schema = Schema::with_rows().await;
    let job = "SELECT job_status, tags::text, logs_length, logs_overflowed, error_code FROM provisioner_jobs";
    assert_eq!(schema.row(job).await, r#"pending {"scope": "organization"} 0 false -"#);
}

#[tokio::test]
async fn a_daemon_takes_a_job_by_containment_except_that_untagged_jobs_need_untagged_daemons() {
    const UNTAGGED: &str = r#"'{"scope": "organization", "owner": ""}'"#;
    const ON_PREM: &str = r#"'{"scope": "organization", "owner": "", "env": "on-prem"}'"#;
    const CHICAGO: &str = r#"'{"scope": "organization", "owner": "", "env": "on-prem", "dc": "chi"}'"#;
    const SCOPE: &str = r#"'{"scope": "organization"}'"#;
    const ALICE: &str = r#"'{"scope": "user", "owner": "aaa"}'"#;
    const BOB: &str = r#"'{"scope": "user", "owner": "bbb"}'"#;
    let mut schema = Schema::new().await;
    let cases = [
        (UNTAGGED, UNTAGGED, "true"),
        (UNTAGGED, r#"'{"owner":"",   "scope":"organization"}'"#, "true"),
        (ON_PREM, UNTAGGED, "false"),
        (ON_PREM, ON_PREM, "true"),
        (CHICAGO, ON_PREM, "true"),
        (ON_PREM, CHICAGO, "false"),
        (UNTAGGED, ON_PREM, "false"),
        (ALICE, ALICE, "true"),
        (ALICE, BOB, "false"),
        (ALICE, UNTAGGED, "false"),
        (UNTAGGED, "'{}'", "true"),
        (CHICAGO, "'{}'", "true"),
        ("'{}'", "'{}'", "true"),
        // The default of provisioner_jobs.tags has no owner, so it is not the special case.
        (UNTAGGED, SCOPE, "true"),
        (CHICAGO, SCOPE, "true"),
        (ALICE, SCOPE, "false"),
        (SCOPE, UNTAGGED, "false"),
        (CHICAGO, r#"'{"scope": "organization", "owner": null}'"#, "false"),
        (CHICAGO, "'null'", "false"),
        ("NULL", ALICE, "-"),
        ("NULL", UNTAGGED, "-"),
        ("NULL", "'{}'", "-"),
        (UNTAGGED, "NULL", "-"),
        ("NULL", "NULL", "-"),
    ];
    for (daemon, job, expected) in cases {
        let actual = schema.row(&format!("SELECT provisioner_tagset_contains({daemon}, {job})")).await;
        assert_eq!(actual, expected, "daemon {daemon}, job {job}");
    }
}
