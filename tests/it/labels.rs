//! What this version does not know: labels of enumerated types that a later server added, the columns and labels that one
//! dropped, and bytes that are no UTF-8. Whatever reads, goes on.

use std::{collections::BTreeMap, fs, path::Path};

use coderdb::{
    authz::{Actor, CancelJobs, MaintainPrebuilds, ReadDaemons, ReadJobLogs, ReadQueue, ReadUsers, ReadWorkspaces, System},
    model::{
        DaemonFilter, ExpectedStatus, JobFilter, JobId, JobStatus, Label, OrganizationId, PageRequest, ProvisionerType,
        UserId, WhyWaiting, WorkspaceAgentId, WorkspaceBuildId, WorkspaceId,
    },
    sqlx::{self, AssertSqlSafe, Connection, PgConnection},
    store::{self, Error, jobs::STALE_INTERVAL},
};
use serde_json::{Value, json};

use crate::{
    jobs::{NOW, Rows, daemon, id},
    operations::{self, Operation},
    support::{self, fails, run},
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

/// Where a label that is not known decides: what starts, claims, cancels or finds by it finds nothing.
const FEWER: &[&str] = &[];

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
            AND r.relname NOT IN ('site_configs', 'refinery_schema_history', 'licenses')
            AND a.attname <> 'error_code'
    LOOP
        EXECUTE format('UPDATE %s SET %I = %I || E''\xff''', c.rel, c.attname, c.attname);
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
async fn changed_by(changes: &[&str]) -> BTreeMap<&'static str, (String, String)> {
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
        for change in changes {
            execute(&mut conn, change).await;
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
    let unexpected: Vec<_> = changed.iter().filter(|(name, _)| !FEWER.contains(name)).collect();
    assert!(unexpected.is_empty(), "{unexpected:#?}");
}

#[tokio::test]
async fn every_operation_works_without_the_tasks_and_labels_that_a_later_server_dropped() {
    let changed = changed_by(&[SEPTEMBER]).await;
    assert!(changed.is_empty(), "{changed:#?}");
}
