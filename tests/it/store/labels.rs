//! What this version does not know: labels of enumerated types that a later server added, the columns and labels that one
//! dropped, and bytes that are no UTF-8. Whatever reads, goes on.

use std::{collections::BTreeMap, fs, path::Path};

use coderdb::{
    authz::{
        Actor, BuildWorkspaces, CancelJobs, LoadActors, MaintainPrebuilds, ReadDaemons, ReadJobLogs, ReadQueue,
        ReadUsers, ReadWorkspaces, System,
    },
    model::{
        BuildReason, DaemonFilter, ExpectedStatus, JobFilter, JobId, JobStatus, Label, NewBuild, OrganizationId,
        PageRequest, ProvisionerType, Tags, TemplateVersionId, Transition, UserId, WhyWaiting, WorkspaceAgentId,
        WorkspaceBuildId, WorkspaceId,
    },
    sqlx::{self, AssertSqlSafe, Connection, PgConnection},
    store::{self, Error, jobs::STALE_INTERVAL},
};
use serde_json::{Value, json};

use crate::support::{
    self, fails,
    operations::{self, Operation},
    rows::{NOW, Rows, daemon, id},
    run,
    source::files,
};

/// Every enumerated type has one more label, and every row of every table has it wherever its column takes it.
const UNHEARD_OF: [&str; 2] = [
    "DO $$
DECLARE t regtype;
BEGIN
    FOR t IN SELECT oid FROM pg_type WHERE typtype = 'e' LOOP
        EXECUTE format('ALTER TYPE %s ADD VALUE %L', t, 'unheard');
    END LOOP;
END $$",
    "DO $$
DECLARE c record;
BEGIN
    FOR c IN
        SELECT a.attrelid::regclass AS rel, a.attname, t.typcategory = 'A' AS is_array
        FROM pg_attribute AS a
        INNER JOIN pg_class AS r ON r.oid = a.attrelid AND r.relkind = 'r'
        INNER JOIN pg_type AS t ON t.oid = a.atttypid
        WHERE a.attgenerated = '' AND (t.typtype = 'e' OR (SELECT e.typtype = 'e' FROM pg_type AS e WHERE e.oid = t.typelem))
    LOOP
        EXECUTE format('UPDATE %s SET %I = %L', c.rel, c.attname, CASE WHEN c.is_array THEN '{unheard}' ELSE 'unheard' END);
    END LOOP;
END $$",
];

/// What looks for a label that this version knows, and now finds none: a daemon that runs another provisioner, workspaces that
/// start, agents that are ready.
const FINDS_NOTHING: &[&str] = &[
    "api_keys::list",
    "api_keys::revoke",
    "api_keys::session",
    "jobs::acquire",
    "jobs::acquire_batch",
    "jobs::find_of_dry_run",
    "prebuilds::at_failure_limit",
    "prebuilds::backoff",
    "prebuilds::cancel_stale_pending",
    "prebuilds::count_stale_pending",
    "prebuilds::metrics",
    "prebuilds::running",
];

/// Ends tasks, as the server did in September 2026, and what else it changed by then.
const SEPTEMBER: &str = r"
CREATE TEMP TABLE views AS
SELECT c.oid, c.relname, pg_get_viewdef(c.oid) AS query
FROM pg_class AS c WHERE c.relkind = 'v' AND c.relnamespace = 'public'::regnamespace;
ALTER TABLE template_versions DROP COLUMN has_ai_task CASCADE;
ALTER TABLE workspace_builds DROP COLUMN has_ai_task CASCADE;
ALTER TABLE workspace_builds ALTER COLUMN reason DROP DEFAULT;
ALTER TYPE build_reason RENAME TO old_build_reason;
CREATE TYPE build_reason AS ENUM (
    'initiator', 'autostart', 'autostop', 'dormancy', 'failedstop', 'autodelete', 'dashboard', 'cli', 'ssh_connection',
    'vscode_connection', 'jetbrains_connection'
);
ALTER TABLE workspace_builds ALTER COLUMN reason TYPE build_reason USING reason::text::build_reason;
ALTER TABLE workspace_builds ALTER COLUMN reason SET DEFAULT 'initiator';
DROP TYPE old_build_reason;
DO $$
DECLARE v record;
BEGIN
    FOR v IN SELECT * FROM views ORDER BY oid LOOP
        IF to_regclass(v.relname) IS NULL THEN
            EXECUTE format('CREATE VIEW %I AS %s', v.relname, regexp_replace(v.query, '\s+(\w+\.)?has_ai_task,', '', 'g'));
        END IF;
    END LOOP;
END $$;
ALTER TABLE organizations ADD COLUMN default_org_member_roles text[] NOT NULL DEFAULT '{}';
ALTER TABLE organizations ALTER COLUMN default_org_member_roles DROP DEFAULT;
DROP INDEX idx_chats_pending;
ALTER TABLE chats ALTER COLUMN status DROP DEFAULT;
ALTER TYPE chat_status RENAME TO old_chat_status;
CREATE TYPE chat_status AS ENUM ('waiting', 'running', 'error', 'requires_action', 'interrupting');
ALTER TABLE chats ALTER COLUMN status TYPE chat_status USING 'interrupting';
ALTER TABLE chats ALTER COLUMN status SET DEFAULT 'waiting';
DROP TYPE old_chat_status;
DROP TYPE provisioner_daemon_status;
";

/// Each text of each row ends in a byte that is no UTF-8, and the values of tags do.
const BYTES: &str = r#"DO $$
DECLARE c record;
BEGIN
    FOR c IN
        SELECT a.attrelid::regclass AS rel, a.attname
        FROM pg_attribute AS a
        INNER JOIN pg_class AS r ON r.oid = a.attrelid AND r.relkind = 'r' AND r.relnamespace = 'public'::regnamespace
        WHERE a.attgenerated = '' AND a.attnum > 0 AND a.atttypid IN ('text'::regtype, 'varchar'::regtype)
            AND r.relname NOT IN ('site_configs', 'refinery_schema_history')
    LOOP
        BEGIN
            EXECUTE format('UPDATE %s SET %I = %I || E''\xff''', c.rel, c.attname, c.attname);
        EXCEPTION WHEN integrity_constraint_violation THEN NULL;
        END;
    END LOOP;
    UPDATE provisioner_jobs SET tags = replace(tags::text, '"}', E'\xff"}')::jsonb;
    UPDATE provisioner_daemons SET tags = replace(tags::text, '"}', E'\xff"}')::jsonb;
END $$"#;

async fn execute(conn: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(conn).await.unwrap_or_else(|e| panic!("{sql}\n{e}"));
}

/// What each operation answers, in a transaction that is taken back.
async fn answers(conn: &mut PgConnection, operations: &[&Operation]) -> BTreeMap<&'static str, String> {
    let mut answers = BTreeMap::new();
    for operation in operations {
        let mut tx = conn.begin().await.expect("a transaction");
        let answer = match operation.call(&mut tx).await {
            Ok(rows) => rows.to_string(),
            Err(Error::NotFound { .. }) => "not found".to_owned(),
            Err(error) => format!("{error:?}"),
        };
        tx.rollback().await.expect("nothing stays");
        answers.insert(operation.name, answer);
    }
    answers
}

/// The operations whose answer is another one once this was done to the database, and both answers.
async fn changed_by(statements: &[&str]) -> BTreeMap<&'static str, (String, String)> {
    let operations = operations::all().await;
    let mut by_world: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in &operations {
        by_world.entry(operation.before).or_default().push(operation);
    }
    let mut changed = BTreeMap::new();
    for operations in by_world.values() {
        let database = operations::world(operations[0]).await.with_sessions();
        let before = answers(&mut database.connect().await, operations).await;
        let mut conn = database.connect().await;
        for statement in statements {
            execute(&mut conn, statement).await;
        }
        let after = answers(&mut database.connect().await, operations).await;
        let pairs = before.into_iter().zip(after.into_values());
        changed.extend(pairs.filter(|((_, one), other)| one != other).map(|((name, one), other)| (name, (one, other))));
    }
    changed
}

#[tokio::test]
async fn every_operation_goes_on_where_each_enumerated_type_has_a_label_more() {
    let changed = changed_by(&UNHEARD_OF).await;
    assert!(changed.values().all(|(_, after)| after == "0" || after == "not found"), "{changed:#?}");
    assert!(changed.keys().eq(FINDS_NOTHING), "{changed:#?}");
}

#[tokio::test]
async fn every_operation_works_without_the_tasks_and_labels_that_a_later_server_dropped() {
    let changed = changed_by(&[SEPTEMBER]).await;
    assert!(changed.is_empty(), "{changed:#?}");
}

#[tokio::test]
async fn create_with_a_reason_that_the_database_has_no_more_says_so() {
    let mut rows = Rows::new().await;
    let member = rows.user(1, "{owner}", "{}").await;
    rows.run(SEPTEMBER).await;
    let permit = BuildWorkspaces::check(&member, ORGANIZATION).expect("a member");
    let build = |reason| NewBuild {
        id: WorkspaceBuildId(id(2)),
        job_id: JobId(id(2)),
        workspace_id: WorkspaceId(id(1)),
        template_version_id: TemplateVersionId(id(1)),
        preset_id: None,
        transition: Transition::Start,
        reason,
        provisioner_state: None,
        deadline: None,
        max_deadline: None,
        tags: Tags::default(),
        options: serde_json::Map::new(),
        trace_metadata: None,
    };
    let refused = store::builds::create(&mut rows.conn, &permit, &build(BuildReason::TaskResume), NOW).await;
    let Err(error @ Error::Invalid { field: "label", .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(error.to_string(), "invalid label: expected one that the enumerated type has in this database");
    let created = store::builds::create(&mut rows.conn, &permit, &build(BuildReason::Cli), NOW).await;
    assert_eq!(created.expect("a build"), 2);
}

/// What is not asked in the test above, such as a statement that a filter makes.
#[test]
fn no_statement_names_what_a_later_server_dropped() {
    for folder in ["queries", "src/store", "src/search", "src/tools", "src/watch", "src/cancel", "src/replica"] {
        for (file, text) in files(folder) {
            for dropped in ["has_ai_task", "'task_", "provisioner_daemon_status"] {
                assert!(!text.contains(dropped), "{folder}/{file} names {dropped}");
            }
        }
    }
}

/// As in `golden/rows.sql`, with a running daemon and something of each kind; every label that can be is `unheard`.
async fn unheard() -> Rows {
    let mut rows = Rows::new().await;
    rows.run(
        "INSERT INTO provisioner_keys (id, created_at, organization_id, name, hashed_secret, tags)
         VALUES (u(5), at_second(0), u(1), 'key', '', '{}');
         INSERT INTO provisioner_daemons (id, created_at, name, provisioners, tags, last_seen_at, organization_id, key_id)
         VALUES (u(7), at_second(0), 'daemon', '{echo}', '{}', at_second(0), u(1), u(5));
         UPDATE provisioner_jobs SET tags = '{}', input = jsonb_build_object('workspace_build_id', u(1));
         UPDATE template_version_presets SET desired_instances = 1;
         INSERT INTO provisioner_job_logs (job_id, created_at, source, level, stage, output)
         VALUES (u(1), at_second(0), 'provisioner', 'info', 'stage', 'output');
         INSERT INTO provisioner_job_timings (job_id, started_at, ended_at, stage, source, action, resource)
         VALUES (u(1), at_second(0), at_second(0), 'plan', '', '', '');
         INSERT INTO workspace_agent_logs (agent_id, created_at, output, level)
         VALUES (u(1), at_second(0), 'output', 'info')",
    )
    .await;
    for change in UNHEARD_OF {
        rows.run(change).await;
    }
    // One that is known, beside it.
    rows.run("SELECT add_job(2); UPDATE provisioner_jobs SET tags = '{}'").await;
    rows
}

const ORGANIZATION: OrganizationId = OrganizationId(uuid::Uuid::from_u128(1));

#[tokio::test]
async fn what_reads_jobs_gives_labels_as_they_are_stored_beside_those_that_are_known() {
    let mut rows = unheard().await;
    let permit = support::read_jobs(id(1));
    let (odd, plain) = (JobId(id(1)), JobId(id(2)));
    let conn = &mut rows.conn;
    let listed = store::jobs::list(conn, &permit, &JobFilter::default(), PageRequest::first(10)).await.expect("a page");
    let [known, unheard] = &listed.rows[..] else { panic!("{listed:?}") };
    assert_eq!(
        (known.job.id, known.job.provisioner.as_str(), known.job.job_type.as_str()),
        (plain, "echo", "workspace_build")
    );
    assert_eq!(unheard.job.job_type, Label::Unknown("unheard".to_owned()));
    assert_eq!(unheard.workspace_build_transition, Some(Label::Unknown("unheard".to_owned())));
    assert_eq!(unheard.available_workers, [id(7).into()], "its daemon runs that");
    let json = serde_json::to_value(unheard).expect("JSON");
    assert_eq!(
        (&json["type"], &json["metadata"]["workspace_build_transition"]),
        (&json!("unheard"), &json!("unheard"))
    );
    let mut jobs = vec![unheard.job.clone(), store::jobs::get(conn, &permit, odd).await.expect("the job").job];
    jobs.extend(store::jobs::by_ids(conn, &permit, &[odd]).await.expect("the job"));
    let queued = store::jobs::by_ids_with_queue_position(conn, &permit, &[odd], NOW, STALE_INTERVAL).await;
    jobs.extend(queued.expect("the job").into_iter().map(|row| row.job));
    let since = store::jobs::created_after(conn, &permit, NOW - time::Duration::DAY).await.expect("the jobs");
    jobs.extend(since.into_iter().filter(|job| job.id == odd));
    assert_eq!(jobs.len(), 5);
    for job in jobs {
        let labels = [job.provisioner.as_str(), job.storage_method.as_str(), job.job_type.as_str()];
        assert_eq!(labels, ["unheard"; 3]);
    }
    let counts = store::jobs::count_by_tags(conn, &permit, &JobFilter::default()).await.expect("the counts");
    let mut provisioners: Vec<_> = counts.iter().map(|count| count.provisioner.as_str()).collect();
    provisioners.sort_unstable();
    assert_eq!(provisioners, ["echo", "unheard"]);
}

#[tokio::test]
async fn what_reads_builds_logs_agents_daemons_and_people_gives_labels_as_they_are_stored() {
    let mut rows = unheard().await;
    let conn = &mut rows.conn;
    let operator = support::operator();
    let (job, workspace, agent) = (JobId(id(1)), WorkspaceId(id(1)), WorkspaceAgentId(id(1)));
    let reads = ReadWorkspaces::check(&operator, ORGANIZATION).expect("an operator");
    let mut builds = vec![
        store::builds::get(conn, &reads, WorkspaceBuildId(id(1))).await.expect("the build"),
        store::builds::by_job(conn, &reads, job).await.expect("the build"),
        store::builds::by_number(conn, &reads, workspace, 1).await.expect("the build"),
    ];
    builds.extend(store::builds::latest(conn, &reads, workspace).await.expect("an answer"));
    assert_eq!(builds.len(), 4);
    assert!(builds.iter().all(|build| (build.transition.as_str(), build.reason.as_str()) == ("unheard", "unheard")));
    let agents = store::agents::in_latest_build(conn, &reads, workspace).await.expect("the agents");
    assert_eq!(agents.iter().map(|agent| agent.lifecycle_state.as_str()).collect::<Vec<_>>(), ["unheard"]);
    let state = store::agents::lifecycle(conn, &reads, agent).await.expect("the agent");
    assert_eq!(state.state, Label::Unknown("unheard".to_owned()));
    let lines = store::agents::logs_after(conn, &reads, agent, 0).await.expect("the agent");
    assert_eq!(lines.iter().map(|log| log.line.level.as_str()).collect::<Vec<_>>(), ["unheard"]);

    let logs = ReadJobLogs::check(&operator, ORGANIZATION).expect("an operator");
    let lines = store::job_logs::after(conn, &logs, job, 0).await.expect("the job");
    let line = serde_json::to_value(&lines).expect("JSON");
    assert_eq!((&line[0]["log_level"], &line[0]["log_source"]), (&json!("unheard"), &json!("unheard")));
    let timings = store::job_timings::list(conn, &logs, job).await.expect("the job");
    assert_eq!(timings.iter().map(|timing| timing.stage.as_str()).collect::<Vec<_>>(), ["unheard"]);

    let permit = ReadDaemons::check(&operator, ORGANIZATION).expect("an operator");
    let daemons = store::daemons::list(conn, &permit, &DaemonFilter::default(), NOW, STALE_INTERVAL).await;
    let eligible = store::daemons::eligible(conn, &permit, &[job, JobId(id(2))]).await.expect("an answer");
    assert_eq!(eligible.iter().map(|row| row.job_id).collect::<Vec<_>>(), [job], "not of the one that it does not run");
    let stored = daemons.expect("the daemons").into_iter().map(|row| row.daemon);
    for daemon in stored.chain(eligible.into_iter().map(|row| row.daemon)) {
        assert_eq!(daemon.provisioners, [Label::Unknown("unheard".to_owned())]);
    }
    let user = store::users::get(conn, &ReadUsers::check(&operator).expect("an operator"), UserId(id(1))).await;
    assert_eq!(user.expect("the user").status, Label::Unknown("unheard".to_owned()));
    let prebuilds = MaintainPrebuilds::check(&operator, ORGANIZATION).expect("an operator");
    let presets = store::prebuilds::presets(conn, &prebuilds, None).await.expect("the presets");
    assert_eq!(presets.iter().map(|preset| preset.status.as_str()).collect::<Vec<_>>(), ["unheard"]);
}

#[tokio::test]
async fn the_queue_pairs_jobs_and_daemons_by_provisioners_that_are_not_known() {
    let mut rows = unheard().await;
    let permit = ReadQueue::check(&Actor::system(System::Watcher)).expect("the watcher");
    let why = async |conn: &mut PgConnection, job: u128| {
        let queue = store::queue::snapshot(conn, &permit, NOW, STALE_INTERVAL).await.expect("a snapshot");
        queue.everywhere().why(JobId(id(job))).expect("it waits")
    };
    assert!(matches!(why(&mut rows.conn, 1).await, WhyWaiting::Ranked(_)));
    let running = vec![Label::Unknown("unheard".to_owned())];
    let provisioner = Label::from(ProvisionerType::Echo);
    let other = WhyWaiting::OtherProvisioners { provisioner, running };
    assert_eq!(why(&mut rows.conn, 2).await, other);
    assert_eq!(other.to_string(), "the daemons with these tags do not run echo but unheard");
    let queue = store::queue::snapshot(&mut rows.conn, &permit, NOW, STALE_INTERVAL).await.expect("a snapshot");
    let queues = queue.everywhere().by_tags();
    assert_eq!(queues.iter().map(|queue| queue.provisioner.as_str()).collect::<Vec<_>>(), ["echo", "unheard"]);

    // A daemon that also runs something that is not known claims what is known.
    rows.run("UPDATE provisioner_daemons SET provisioners = '{unheard,echo}'").await;
    let permit = ReadDaemons::check(&support::operator(), ORGANIZATION).expect("an operator");
    let daemons = store::daemons::list(&mut rows.conn, &permit, &DaemonFilter::default(), NOW, STALE_INTERVAL).await;
    let stored = daemons.expect("the daemons").remove(0).daemon;
    let known: Vec<_> = stored.provisioners.iter().filter_map(Label::known).collect();
    let offer = coderdb::model::Capabilities { provisioners: &known, tags: &stored.tags };
    let taken = store::jobs::acquire_batch(&mut rows.conn, &daemon(1, 7), offer, NOW, 10).await.expect("an answer");
    assert_eq!(taken.iter().map(|job| job.id).collect::<Vec<_>>(), [JobId(id(2))]);
}

/// Whoever may cancel only what is of the own dry runs and builds may not cancel what nobody knows.
#[tokio::test]
async fn cancel_of_a_job_of_a_type_that_is_not_known_is_for_those_who_may_cancel_everything() {
    let mut rows = unheard().await;
    let member = rows.user(1, "{}", "{}").await;
    let own = CancelJobs::check(&member, ORGANIZATION).expect("a member");
    let pending = Some(ExpectedStatus::Pending);
    let refused = store::jobs::cancel(&mut rows.conn, &own, JobId(id(1)), pending, NOW).await;
    assert!(matches!(refused, Err(Error::NotFound { .. })), "{refused:?}");
    let done =
        run(rows.database.coderdb().args(["provisioner", "jobs", "cancel", &id(1).to_string(), "--org", "org1"]));
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(done.stdout.starts_with(&format!("Canceling unheard job {}", id(1))), "{}", done.stdout);
}

#[tokio::test]
async fn a_status_that_is_not_known_is_read_and_found_as_unknown() {
    let mut rows = Rows::new().await;
    rows.run("SELECT add_job(2); ALTER TYPE provisioner_job_status ADD VALUE 'unheard'").await;
    rows.run(
        "ALTER TABLE provisioner_jobs ALTER COLUMN job_status DROP EXPRESSION;
         UPDATE provisioner_jobs SET job_status = 'unheard' WHERE id = u(1)",
    )
    .await;
    let permit = support::read_jobs(id(1));
    let mut found = async |filter: JobFilter| {
        let page = store::jobs::list(&mut rows.conn, &permit, &filter, PageRequest::first(10)).await.expect("a page");
        page.rows.into_iter().map(|row| (row.job.id, row.job.status)).collect::<Vec<_>>()
    };
    let (odd, plain) = ((JobId(id(1)), JobStatus::Unknown), (JobId(id(2)), JobStatus::Pending));
    assert_eq!(found(JobFilter::default()).await, [plain, odd]);
    let status = vec![JobStatus::Unknown];
    assert_eq!(found(JobFilter { status: status.clone(), ..JobFilter::default() }).await, [odd]);
    let both = vec![JobStatus::Unknown, JobStatus::Pending];
    assert_eq!(found(JobFilter { status: both, ..JobFilter::default() }).await, [plain, odd]);
    let exclude = coderdb::model::Exclude { status, ..coderdb::model::Exclude::default() };
    assert_eq!(found(JobFilter { exclude, ..JobFilter::default() }).await, [plain]);
    let exclude = coderdb::model::Exclude { status: vec![JobStatus::Pending], ..coderdb::model::Exclude::default() };
    assert_eq!(found(JobFilter { exclude, ..JobFilter::default() }).await, [odd]);
}

#[tokio::test]
async fn show_and_list_print_labels_as_they_are_stored() {
    let rows = unheard().await;
    let command = |args: &[&str]| {
        let done = run(rows.database.coderdb().args(args).args(["--org", "org1"]));
        assert_eq!(done.code, 0, "{args:?}: {}", done.stderr);
        done.stdout
    };
    let one = id(1).to_string();
    let json = |args: &[&str]| serde_json::from_str::<Value>(&command(args)).expect("JSON");
    let listed = json(&["provisioner", "jobs", "list", "-o", "json"]);
    let labels: Vec<_> =
        listed.as_array().expect("jobs").iter().map(|job| (&job["type"], &job["provisioner"])).collect();
    assert!(labels.contains(&(&json!("unheard"), &json!("unheard"))), "{listed}");
    let table = command(&["provisioner", "jobs", "list", "--column", "id,type,provisioner,workspace build transition"]);
    assert_eq!(table.matches("unheard").count(), 3, "{table}");
    assert!(command(&["provisioner", "jobs", "get", &one]).contains("unheard"));
    assert!(command(&["provisioner", "jobs", "logs", &one]).contains("output"));
    assert!(command(&["provisioner", "daemons", "list"]).contains("unheard"));
    // A filter is a question about what is known.
    for filter in [&["--transition", "unheard"][..], &["type:unheard"], &["transition:unheard"]] {
        fails(rows.database.coderdb().args(["provisioner", "jobs", "list"]).args(filter), 2, &["unheard"]);
    }
}

#[test]
fn a_label_is_its_plain_text_in_json_and_parses_only_when_it_is_known() {
    for text in ["terraform", "unheard"] {
        let label: Label<ProvisionerType> = serde_json::from_value(json!(text)).expect("a label");
        assert_eq!((label.to_string(), serde_json::to_value(&label).expect("JSON")), (text.to_owned(), json!(text)));
    }
    let error = "unheard".parse::<ProvisionerType>().expect_err("not known");
    assert_eq!(error.to_string(), "\"unheard\" is not a provisioner; expected one of echo, terraform");
}

// Bytes that are no UTF-8 ----------------------------------------------------------------------------------------------

/// A database that does not care what its texts are, with what the operations need.
async fn world_of_bytes(before: &str) -> support::Database {
    let database = support::empty_database_in("SQL_ASCII").await.with_sessions();
    let mut conn = database.connect().await;
    coderdb::migrate::up(&mut conn, &coderdb::migrate::MigrateOptions::default(), |_| {})
        .await
        .expect("the migrations");
    execute(&mut conn, &operations::what_is_there_after(before)).await;
    database
}

/// What is asked for by a name or tags that are now others.
const BY_TEXT: &[&str] = &[
    "api_keys::revoke",
    "api_keys::session",
    "daemons::upsert",
    "jobs::acquire",
    "jobs::acquire_batch",
    "organizations::by_name",
    "templates::by_name",
    "users::by_username",
    "workspaces::by_name",
];

#[tokio::test]
async fn every_operation_goes_on_where_texts_are_no_utf_8() {
    let operations = operations::all().await;
    let mut by_world: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in &operations {
        by_world.entry(operation.before).or_default().push(operation);
    }
    let mut changed = BTreeMap::new();
    for (before, operations) in by_world {
        let database = world_of_bytes(before).await;
        let mut conn = database.connect().await;
        let plain = answers(&mut conn, &operations).await;
        execute(&mut conn, BYTES).await;
        let odd = answers(&mut conn, &operations).await;
        changed.extend(plain.into_iter().zip(odd.into_values()).filter(|((_, one), other)| one != other));
    }
    assert!(changed.keys().map(|(name, _)| *name).eq(BY_TEXT.iter().copied()), "{changed:#?}");
    assert!(changed.values().all(|answer| answer == "0" || answer == "not found"), "{changed:#?}");
}

#[tokio::test]
async fn texts_that_are_no_utf_8_are_shown_with_a_visible_substitute() {
    let database = world_of_bytes("").await;
    let mut conn = database.connect().await;
    execute(&mut conn, "UPDATE provisioner_jobs SET error = 'boom'").await;
    execute(&mut conn, BYTES).await;
    let more = r"UPDATE provisioner_jobs SET input = jsonb_build_object('workspace_build_id', u(108), 'x', E'\xff');
                  UPDATE users SET rbac_roles = ARRAY['owner', E'\xff'] WHERE id = u(1)";
    execute(&mut conn, more).await;
    let organization = OrganizationId(operations_id(1));
    let permit = support::read_jobs(organization);
    let page =
        store::jobs::list(&mut conn, &permit, &JobFilter::default(), PageRequest::first(10)).await.expect("a page");
    let row = page.rows.iter().find(|row| row.job.id == JobId(operations_id(101))).expect("the job");
    assert_eq!(row.job.error.as_deref(), Some("boom\u{fffd}"));
    assert_eq!(row.job.tags.to_string(), "a=b\u{fffd}");
    assert_eq!((row.job.input.workspace_build_id, &row.job.input.error), (Some(operations_id(108).into()), &None));
    let load = LoadActors::check(&Actor::system(System::Authenticator)).expect("an authenticator loads actors");
    let actor = store::actors::load(&mut conn, &load, UserId(operations_id(1))).await.expect("the user");
    assert!(coderdb::authz::ListQuota::check(&actor, organization).is_ok(), "the other role counts");
    let operator = support::operator();
    let logs = ReadJobLogs::check(&operator, organization).expect("an operator");
    let lines = store::job_logs::after(&mut conn, &logs, row.job.id, 0).await.expect("the job");
    assert_eq!(lines.iter().map(|line| line.output.as_str()).collect::<Vec<_>>(), ["\u{fffd}"]);
    let reads = ReadWorkspaces::check(&operator, organization).expect("an operator");
    let lines = store::agents::logs_after(&mut conn, &reads, WorkspaceAgentId(operations_id(110)), 0).await;
    assert_eq!(lines.expect("the agent")[0].line.output, "\u{fffd}");
    let commands: [&[&str]; 5] = [
        &["provisioner", "jobs", "list"],
        &["provisioner", "jobs", "list", "-o", "json"],
        &["provisioner", "jobs", "get", &row.job.id.to_string()],
        &["provisioner", "daemons", "list"],
        &["quota", "list"],
    ];
    for command in commands {
        let done = run(database.coderdb().args(command));
        assert_eq!(done.code, 0, "{command:?}: {}", done.stderr);
        assert!(done.stdout.contains('\u{fffd}'), "{command:?}: {}", done.stdout);
    }
}

#[tokio::test]
async fn list_of_quota_goes_on_behind_names_that_are_no_utf_8() {
    let database = world_of_bytes("").await;
    let mut conn = database.connect().await;
    execute(&mut conn, "SELECT add_user(n, '{}') FROM generate_series(61, 63) AS n").await;
    execute(&mut conn, "SELECT add_member(1, n, '{}') FROM generate_series(61, 63) AS n").await;
    execute(&mut conn, BYTES).await;
    let organization = OrganizationId(operations_id(1));
    let permit = coderdb::authz::ListQuota::check(&support::operator(), organization).expect("an operator");
    let all = store::quota::list(&mut conn, &permit, PageRequest::first(10)).await.expect("a page").rows;
    assert_eq!(all.len(), 4);
    let (mut paged, mut page) = (Vec::new(), PageRequest::first(1));
    loop {
        let read = store::quota::list(&mut conn, &permit, page).await.expect("a page");
        paged.extend(read.rows);
        assert!(paged.len() <= all.len(), "{paged:?}");
        let Some(next) = read.next else { break };
        page = PageRequest::after(next, 1);
    }
    assert_eq!(paged, all);
}

/// A column that is read as a `String` would fail its page where the database does not look what its texts are.
#[test]
fn every_text_that_a_statement_reads_may_hold_any_bytes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let overrides = fs::read_to_string(root.join("sqlx.toml")).expect("sqlx.toml");
    let of_table = |table: &str| {
        let section = overrides.split(&format!("[macros.table-overrides.'{table}']")).nth(1).unwrap_or_default();
        section.split("\n[").next().unwrap_or_default().to_owned()
    };
    // Written by the statement itself, or a setting, which is right or wrong as a whole.
    let exempt = ["outcome!", "digest!", "value!", "status!: DaemonStatus"];
    let mut read = 0;
    for file in fs::read_dir(root.join(".sqlx")).expect("the described statements") {
        let text = fs::read_to_string(file.expect("a file").path()).expect("a text");
        let described: Value = serde_json::from_str(&text).expect("JSON");
        for column in described["describe"]["columns"].as_array().expect("columns") {
            if !["Text", "Varchar", "TextArray", "VarcharArray"].iter().any(|text| column["type_info"] == *text) {
                continue;
            }
            let name = column["name"].as_str().expect("a name");
            let origin = &column["origin"]["Table"];
            let is_text = match (origin["table"].as_str(), origin["name"].as_str()) {
                (Some(table), Some(column)) => of_table(table)
                    .lines()
                    .any(|line| line.starts_with(&format!("'{column}' = ")) && line.contains("crate::store::Text")),
                _ => name.ends_with(": Text") || name.ends_with(": Vec<Text>") || exempt.contains(&name),
            };
            read += 1;
            assert!(is_text, "{name} is not read as Text in {}", described["query"]);
        }
    }
    assert!(read > 50, "{read}");
}

fn operations_id(n: u32) -> uuid::Uuid {
    crate::support::policy::u(n)
}
