//! What jobs are about, as triggers record it: never less than is true, whoever writes, in whatever order.

use coderdb::{
    model::{JobFilter, OrganizationId, PageRequest, TemplateId, Transition},
    store,
};
use fastrand::Rng;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::task::JoinSet;

use crate::{
    jobs::{Rows, id},
    support,
};

const DIFFERENCES: &str = "SELECT count(*) FROM provisioner_job_subjects_differences()";

/// Versions 11 to 19, of which 15 to 19 have no template, and of each its import.
const VERSIONS: &str = "
SELECT add_template(n) FROM generate_series(2, 4) AS n;
SELECT add_job(n) FROM generate_series(11, 19) AS n;
SELECT add_version(n, n % 4 + 1) FROM generate_series(11, 19) AS n;
UPDATE template_versions SET template_id = NULL WHERE id >= u(15);
UPDATE provisioner_jobs SET input = jsonb_build_object('template_version_id', id) WHERE id BETWEEN u(11) AND u(19);
SELECT add_workspace(n) FROM generate_series(101, 120) AS n;
";

/// One step of a foreign writer, which may fail only as it would without what is recorded.
async fn step(conn: &mut PgConnection, rng: &mut Rng, writer: u32, step: u32) {
    let isolation = rng.choice(["READ COMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]);
    let new = 100_000 + writer * 10_000 + step * 10;
    let mut n = 0;
    let mut change = || {
        n += 1;
        let new = new + n;
        // A writer's own, so that nobody else names it before it is there.
        let any = 100_000 + writer * 10_000 + rng.u32(0..=step) * 10 + rng.u32(1..=3);
        let version = rng.u32(11..=19);
        match rng.u8(..10) {
            0..=2 => format!(
                "SELECT add_job({new}); UPDATE provisioner_jobs
                     SET input = jsonb_build_object('workspace_build_id', u({new})), created_at = at_second({})
                     WHERE id = u({new});
                 INSERT INTO workspace_builds (id, created_at, updated_at, workspace_id, template_version_id, build_number,
                     transition, initiator_id, job_id)
                 VALUES (u({new}), at_second(0), at_second(0), u({}), u({version}), {new}, '{}', u(1), u({new}))",
                rng.u32(..9),
                rng.u32(101..=120),
                rng.choice(["start", "stop", "delete"]).unwrap_or_default(),
            ),
            3 => format!(
                "SELECT add_job({new}); UPDATE provisioner_jobs
                     SET input = jsonb_build_object('template_version_id', u({version}), 'workspace_build_id', u({any}))
                     WHERE id = u({new})"
            ),
            4 => format!("UPDATE workspace_builds SET transition = 'stop', template_version_id = u({version}) WHERE id = u({any})"),
            5 => format!("UPDATE provisioner_jobs SET created_at = at_second({}) WHERE id = u({any})", rng.u32(..9)),
            6 => format!("UPDATE provisioner_jobs SET input = '[]' WHERE id = u({any})"),
            7 => format!("DELETE FROM workspace_builds WHERE id = u({any}); DELETE FROM provisioner_jobs WHERE id = u({any})"),
            // A template is given once.
            8 => format!(
                "UPDATE template_versions SET template_id = u({}) WHERE id = u({version}) AND template_id IS NULL",
                rng.u32(1..=4)
            ),
            _ => format!("DELETE FROM provisioner_jobs WHERE id = u({any}) AND NOT EXISTS (SELECT FROM workspace_builds WHERE job_id = u({any}))"),
        }
    };
    let changes = format!("{}; SAVEPOINT a; {}; ROLLBACK TO a; {}", change(), change(), change());
    let end = if rng.u8(..4) == 0 { "ROLLBACK" } else { "COMMIT" };
    let all = format!("BEGIN ISOLATION LEVEL {}; {changes}; {end}", isolation.unwrap_or_default());
    if let Err(error) = sqlx::raw_sql(AssertSqlSafe(all)).execute(&mut *conn).await {
        let code = error.as_database_error().and_then(|error| error.code().map(String::from)).unwrap_or_default();
        // A conflict under a strict isolation, and two writers with the same versions in another order.
        assert!(["40001", "40P01"].contains(&code.as_str()), "{error}");
        sqlx::raw_sql("ROLLBACK").execute(conn).await.expect("the end");
    }
}

#[tokio::test]
async fn nothing_is_missing_whatever_others_write_and_move_and_roll_back() {
    let mut rows = Rows::new().await;
    rows.run(VERSIONS).await;
    let mut writers = JoinSet::new();
    for writer in 1..=6 {
        let mut conn = rows.database.connect().await;
        writers.spawn(async move {
            let mut rng = Rng::with_seed(writer.into());
            for n in 0..80 {
                step(&mut conn, &mut rng, writer, n).await;
            }
        });
    }
    let mut checks = 0;
    while !writers.is_empty() {
        while let Some(done) = writers.try_join_next() {
            done.expect("a writer that nothing fails");
        }
        assert_eq!(rows.all("SELECT d FROM provisioner_job_subjects_differences() AS d").await, Vec::<String>::new());
        checks += 1;
    }
    assert!(checks > 1);
    let known: u32 = rows.one("SELECT count(*) FROM provisioner_job_subjects_actual").await.parse().expect("a number");
    assert!(known > 100, "{known} jobs");
    for (template, transition) in
        [(Some(1), None), (Some(3), None), (None, Some(Transition::Delete)), (Some(2), Some(Transition::Stop))]
    {
        assert_listed(&mut rows, template, transition).await;
    }
}

/// A listing, page by page, is what plain SQL finds.
async fn assert_listed(rows: &mut Rows, template: Option<u128>, transition: Option<Transition>) {
    let of_template = template.map_or("true".to_owned(), |template| format!("t.id = u({template})"));
    let with_transition = transition.map_or("true".to_owned(), |it| format!("b.transition = '{it}'"));
    let expected = rows
        .all(&format!(
            "SELECT j.id FROM provisioner_jobs AS j
             LEFT JOIN workspace_builds AS b ON b.id = provisioner_job_input_uuid(j.input, 'workspace_build_id')
             LEFT JOIN template_versions AS v ON v.id = CASE
                 WHEN j.input ? 'template_version_id' THEN provisioner_job_input_uuid(j.input, 'template_version_id')
                 ELSE b.template_version_id
             END
             LEFT JOIN templates AS t ON t.id = v.template_id
             WHERE j.organization_id = u(1) AND {of_template} AND {with_transition} ORDER BY j.created_at DESC, j.id DESC"
        ))
        .await;
    let permit = support::read_jobs(OrganizationId(id(1)));
    let filter = JobFilter { template: template.map(|n| TemplateId(id(n))), transition, ..JobFilter::default() };
    let mut listed = Vec::new();
    let mut page = PageRequest::first(3);
    loop {
        let answer = store::jobs::list(&mut rows.conn, &permit, &filter, page).await.expect("a page");
        listed.extend(answer.rows.iter().map(|row| row.job.id.to_string()));
        let Some(next) = answer.next else { break };
        page = PageRequest::after(next, 3);
    }
    assert_eq!(listed, expected, "{template:?} {transition:?}");
    assert!(!expected.is_empty(), "{template:?} {transition:?}");
}

#[tokio::test]
async fn a_version_that_gets_its_template_later_brings_its_jobs() {
    let mut rows = Rows::new().await;
    rows.run(VERSIONS).await;
    // Nobody could see the template of 15 from there, and nobody moves what was recorded.
    rows.run("UPDATE template_versions SET template_id = u(2) WHERE id = u(16)").await;
    rows.run(
        "BEGIN ISOLATION LEVEL SERIALIZABLE; UPDATE template_versions SET template_id = u(2) WHERE id = u(15); COMMIT",
    )
    .await;
    assert_eq!(
        rows.all("SELECT DISTINCT job_id FROM provisioner_job_subjects WHERE template_id = u(2) AND job_id >= u(15)")
            .await,
        [id(16).to_string()]
    );
    assert_eq!(rows.one(DIFFERENCES).await, "0");
    assert_listed(&mut rows, Some(2), None).await;
    // And from one template to another.
    for template in ["u(3)", "NULL", "u(4)"] {
        rows.run(&format!("UPDATE template_versions SET template_id = {template} WHERE id IN (u(15), u(16))")).await;
        assert_eq!(rows.one(DIFFERENCES).await, "0", "{template}");
    }
    assert_listed(&mut rows, Some(4), None).await;
}

#[tokio::test]
async fn who_may_write_jobs_needs_no_right_on_what_is_recorded() {
    let mut rows = Rows::new().await;
    let role = format!("writer_{}", rows.one("SELECT current_database()").await);
    rows.run(&format!(
        "CREATE ROLE {role}; GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON provisioner_jobs, workspace_builds TO {role};
         BEGIN; SET LOCAL ROLE {role}; CREATE TEMP TABLE provisioner_job_subjects (nothing integer);
         SELECT add_build(7, 1, 7);
         UPDATE provisioner_jobs SET input = jsonb_build_object('workspace_build_id', id) WHERE id = u(7); COMMIT;
         DROP TABLE pg_temp.provisioner_job_subjects"
    ))
    .await;
    assert_eq!(rows.one("SELECT count(*) FROM provisioner_job_subjects WHERE job_id = u(7)").await, "1");
    rows.run(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

#[tokio::test]
async fn what_was_written_without_triggers_is_found_and_recorded_anew() {
    let mut rows = Rows::new().await;
    rows.run(
        "BEGIN; SET LOCAL session_replication_role = replica; SELECT add_build(7, 1, 7);
         UPDATE provisioner_jobs SET input = jsonb_build_object('workspace_build_id', id) WHERE id = u(7); COMMIT",
    )
    .await;
    assert_eq!(
        rows.all("SELECT DISTINCT job_id FROM provisioner_job_subjects_differences()").await,
        [id(7).to_string()]
    );
    rows.run("SELECT provisioner_job_subjects_recount()").await;
    assert_eq!(rows.one(DIFFERENCES).await, "0");
    assert_listed(&mut rows, Some(1), None).await;
}

#[tokio::test]
async fn a_version_that_is_renamed_or_moved_to_and_fro_adds_no_row_twice() {
    let mut rows = Rows::new().await;
    rows.run(VERSIONS).await;
    rows.run(
        "INSERT INTO provisioner_jobs (id, created_at, updated_at, organization_id, initiator_id, provisioner, storage_method, type,
             input, file_id)
         SELECT u(n + 20), at_second(0), at_second(0), u(1), u(1), 'echo', 'file', 'template_version_dry_run',
             jsonb_build_object('template_version_id', u(n)), u(0)
         FROM generate_series(11, 12) AS n",
    )
    .await;
    for _ in 0..5 {
        rows.run("UPDATE template_versions SET template_id = template_id, message = message || 'x' WHERE id >= u(11)")
            .await;
        rows.run("UPDATE provisioner_jobs SET input = input, created_at = created_at WHERE id = u(32)").await;
        rows.run("UPDATE workspace_builds SET transition = transition").await;
        for template in ["u(2)", "u(3)"] {
            rows.run(&format!("UPDATE template_versions SET template_id = {template} WHERE id = u(11)")).await;
        }
    }
    let recorded = "SELECT count(*) FROM provisioner_job_subjects WHERE job_id";
    assert_eq!(rows.one(&format!("{recorded} = u(32)")).await, "1");
    assert_eq!(rows.one(&format!("{recorded} = u(31)")).await, "3", "one for each template that it had");
    let twice = "SELECT count(*) - count(DISTINCT s) FROM provisioner_job_subjects AS s";
    assert_eq!(rows.one(twice).await, "0");
    assert_eq!(rows.one(DIFFERENCES).await, "0");
}

#[tokio::test]
async fn a_job_that_changes_while_its_build_is_inserted_is_found() {
    let mut rows = Rows::new().await;
    rows.run("SELECT add_job(7); UPDATE provisioner_jobs SET input = jsonb_build_object('workspace_build_id', id) WHERE id = u(7)").await;
    let mut other = rows.database.connect().await;
    let mut changing = other.begin().await.expect("a transaction");
    let change = "UPDATE provisioner_jobs SET created_at = at_second(5) WHERE id = u(7)";
    sqlx::raw_sql(change).execute(&mut *changing).await.expect("a job");
    rows.run(
        "INSERT INTO workspace_builds (id, created_at, updated_at, workspace_id, template_version_id, build_number, transition,
             initiator_id, job_id)
         VALUES (u(7), at_second(0), at_second(0), u(1), u(1), 7, 'delete', u(1), u(7))",
    )
    .await;
    changing.commit().await.expect("changed");
    assert_eq!(rows.one(DIFFERENCES).await, "0");
    assert_listed(&mut rows, Some(1), Some(Transition::Delete)).await;
}
