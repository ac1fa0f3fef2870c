//! Upgrades of Coder's own server, before and after a database is adopted: each passes there exactly when it passes on the plain
//! one, and afterwards `check` is right about it.

use std::collections::{BTreeMap, BTreeSet};

use coderdb::{
    migrate,
    sqlx::{self, AssertSqlSafe, Column, Connection as _, Executor as _, PgConnection, SqlSafeStr as _, TypeInfo},
};
use fastrand::Rng;

use super::{adopt, coder, fill, machine, needs::prepare_all, text};
use crate::support::Database;

/// Taken for the rest of the transaction, as the server takes it for the rest of its session.
const BEGIN: &str = "BEGIN; SELECT pg_advisory_xact_lock(1037453835920848937);";

/// What the scripts use: all views away and back, an enumerated type made anew with these labels, a generated column made anew.
const TOOLS: &str = r"
    CREATE TEMP TABLE kept ON COMMIT DROP AS SELECT oid, relname, pg_get_viewdef(oid) AS body FROM pg_class
        WHERE relkind = 'v' AND relnamespace = 'public'::regnamespace;
    CREATE FUNCTION pg_temp.drop_views() RETURNS void LANGUAGE plpgsql AS $f$ DECLARE v record; BEGIN
        FOR v IN SELECT * FROM kept ORDER BY oid DESC LOOP EXECUTE format('DROP VIEW %I', v.relname); END LOOP; END $f$;
    CREATE FUNCTION pg_temp.create_views() RETURNS void LANGUAGE plpgsql AS $f$ DECLARE v record; BEGIN
        FOR v IN SELECT * FROM kept ORDER BY oid LOOP EXECUTE format('CREATE VIEW %I AS %s', v.relname, v.body); END LOOP; END $f$;
    CREATE FUNCTION pg_temp.recreate(name text, labels text[] DEFAULT NULL) RETURNS void LANGUAGE plpgsql AS $f$
    DECLARE c record; BEGIN
        labels := coalesce(labels, (SELECT array_agg(enumlabel::text ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = name::regtype));
        EXECUTE format('ALTER TYPE %I RENAME TO old_type', name);
        EXECUTE format('CREATE TYPE %I AS ENUM (%s)', name, (SELECT string_agg(quote_literal(l), ', ') FROM unnest(labels) AS l));
        FOR c IN SELECT a.attrelid::regclass AS relation, a.attname, a.atttypid <> to_regtype('old_type') AS is_array,
                pg_get_expr(d.adbin, d.adrelid) AS value
            FROM pg_attribute AS a INNER JOIN pg_class AS r ON r.oid = a.attrelid AND r.relkind = 'r'
            LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
            WHERE a.atttypid IN (to_regtype('old_type'), to_regtype('old_type[]')) AND NOT a.attisdropped
        LOOP
            EXECUTE format('ALTER TABLE %s ALTER %I DROP DEFAULT', c.relation, c.attname);
            EXECUTE format(
                'ALTER TABLE %1$s ALTER %2$I TYPE %3$I%4$s USING %2$I::text%4$s::%3$I%4$s',
                c.relation, c.attname, name, CASE WHEN c.is_array THEN '[]' ELSE '' END
            );
            IF c.value IS NOT NULL THEN
                EXECUTE format('ALTER TABLE %s ALTER %I SET DEFAULT %s', c.relation, c.attname, replace(c.value, 'old_type', name));
            END IF;
        END LOOP;
        DROP TYPE old_type;
    END $f$;
    CREATE TEMP TABLE status ON COMMIT DROP AS SELECT pg_get_expr(adbin, adrelid) AS body FROM pg_attrdef
        INNER JOIN pg_attribute ON attrelid = adrelid AND attnum = adnum
        WHERE attrelid = 'provisioner_jobs'::regclass AND attname = 'job_status';
    CREATE FUNCTION pg_temp.job_status() RETURNS void LANGUAGE plpgsql AS $f$ BEGIN
        EXECUTE format('ALTER TABLE provisioner_jobs ADD COLUMN job_status provisioner_job_status
            GENERATED ALWAYS AS (%s) STORED NOT NULL', (SELECT body FROM status));
        CREATE INDEX idx_provisioner_jobs_status ON provisioner_jobs (job_status); END $f$;";

pub(super) struct Upgrade {
    pub(super) name: &'static str,
    pub(super) sql: &'static str,
    /// What `check` names afterwards; nothing where all statements go on.
    pub(super) differences: &'static [&'static str],
}

const fn upgrade(name: &'static str, sql: &'static str, differences: &'static [&'static str]) -> Upgrade {
    Upgrade { name, sql, differences }
}

/// The first five are real, in other words.
pub(super) const UPGRADES: &[Upgrade] = &[
    upgrade(
        "unique keys on builds and presets, and a table that refers to them",
        "ALTER TABLE workspace_builds ADD CONSTRAINT builds_id_workspace_key UNIQUE (id, workspace_id);
         ALTER TABLE template_version_presets ADD CONSTRAINT presets_id_version_key UNIQUE (id, template_version_id);
         CREATE TABLE orchestrations (id uuid PRIMARY KEY, workspace_id uuid NOT NULL, build_id uuid NOT NULL, preset_id uuid,
            template_version_id uuid, FOREIGN KEY (build_id, workspace_id) REFERENCES workspace_builds (id, workspace_id) ON DELETE CASCADE,
            FOREIGN KEY (preset_id, template_version_id) REFERENCES template_version_presets (id, template_version_id));
         INSERT INTO orchestrations (id, workspace_id, build_id) SELECT gen_random_uuid(), workspace_id, id FROM workspace_builds",
        &[],
    ),
    upgrade(
        "a column on templates and builds, with the views over them",
        "SELECT pg_temp.drop_views(); ALTER TABLE templates ADD COLUMN shared boolean NOT NULL DEFAULT false;
         ALTER TABLE workspace_builds ADD COLUMN orchestrated boolean NOT NULL DEFAULT false; SELECT pg_temp.create_views()",
        &[],
    ),
    upgrade(
        "tasks are removed",
        r"SELECT pg_temp.drop_views(); UPDATE kept SET body = regexp_replace(body, '\w+\.has_ai_task,', '');
         ALTER TABLE template_versions DROP COLUMN has_ai_task; ALTER TABLE workspace_builds DROP COLUMN has_ai_task;
         UPDATE workspace_builds SET reason = 'initiator' WHERE reason::text LIKE 'task%';
         SELECT pg_temp.recreate('build_reason', ARRAY['initiator', 'autostart', 'autostop', 'dormancy', 'failedstop', 'autodelete',
            'dashboard', 'cli', 'ssh_connection', 'vscode_connection', 'jetbrains_connection']); SELECT pg_temp.create_views()",
        &[],
    ),
    upgrade(
        "the roles that members of an organization have by default",
        "ALTER TABLE organizations ADD COLUMN default_org_member_roles text[];
         UPDATE organizations SET default_org_member_roles = '{}';
         ALTER TABLE organizations ALTER default_org_member_roles SET NOT NULL",
        &[],
    ),
    upgrade(
        "the states of a chat",
        "DROP INDEX idx_chats_pending; UPDATE chats SET status = 'waiting' WHERE status IN ('pending', 'paused', 'completed');
         SELECT pg_temp.recreate('chat_status', ARRAY['waiting', 'running', 'error', 'requires_action', 'interrupting'])",
        &[],
    ),
    upgrade(
        "the types of jobs, provisioners and transitions made anew",
        "SELECT pg_temp.drop_views(); SELECT pg_temp.recreate('provisioner_job_type');
         SELECT pg_temp.recreate('provisioner_type', ARRAY['echo', 'terraform', 'pulumi']);
         SELECT pg_temp.recreate('workspace_transition'); SELECT pg_temp.create_views()",
        &[],
    ),
    upgrade(
        "the states of a job made anew",
        "SELECT pg_temp.drop_views(); ALTER TABLE provisioner_jobs DROP COLUMN job_status;
         SELECT pg_temp.recreate('provisioner_job_status'); SELECT pg_temp.job_status(); SELECT pg_temp.create_views()",
        &[],
    ),
    upgrade("tags of the domain", "ALTER TABLE provisioner_jobs ALTER tags TYPE tagset", &[]),
    upgrade(
        "a wider cost",
        "SELECT pg_temp.drop_views(); ALTER TABLE workspace_builds ALTER daily_cost TYPE bigint; SELECT pg_temp.create_views()",
        &["column workspace_builds.daily_cost is bigint NOT NULL, expected integer NOT NULL"],
    ),
    upgrade(
        "an input that is not binary",
        "SELECT pg_temp.drop_views(); ALTER TABLE provisioner_jobs ALTER input TYPE json; SELECT pg_temp.create_views()",
        &["column provisioner_jobs.input is json NOT NULL, expected jsonb NOT NULL"],
    ),
    upgrade(
        "the status of a job dropped and added again",
        "SELECT pg_temp.drop_views(); ALTER TABLE provisioner_jobs DROP COLUMN job_status; SELECT pg_temp.job_status();
         SELECT pg_temp.create_views()",
        &[],
    ),
    upgrade(
        "a priority with an index",
        "ALTER TABLE provisioner_jobs ADD COLUMN priority integer NOT NULL DEFAULT 0;
         CREATE INDEX provisioner_jobs_priority ON provisioner_jobs (priority DESC, created_at)",
        &[],
    ),
    upgrade(
        "columns with other names",
        "ALTER TABLE provisioner_jobs RENAME file_id TO archive_id; ALTER TABLE workspace_builds RENAME deadline TO ends_at;
         ALTER TABLE provisioner_jobs RENAME created_at TO queued_at",
        &[
            "column provisioner_jobs.archive_id must be given a value, and this version knows none",
            "column provisioner_jobs.created_at is gone",
            "column provisioner_jobs.file_id is gone",
            "column provisioner_jobs.queued_at must be given a value, and this version knows none",
            "column workspace_builds.deadline is gone",
        ],
    ),
    upgrade(
        "many rows, and then their table",
        "UPDATE provisioner_jobs SET updated_at = updated_at + interval '1 second';
         ALTER TABLE provisioner_jobs ADD COLUMN zone text; UPDATE provisioner_jobs SET zone = 'a';
         ALTER TABLE provisioner_jobs ALTER zone SET NOT NULL",
        &["column provisioner_jobs.zone must be given a value, and this version knows none"],
    ),
    upgrade(
        "a column that is needed twice over, too short by now, and a table that is gone",
        "ALTER TABLE provisioner_job_timings RENAME TO timings; ALTER TABLE workspaces ALTER owner_id DROP NOT NULL",
        &["table provisioner_job_timings is gone", "column workspaces.owner_id is uuid, expected uuid NOT NULL"],
    ),
];

/// What the driver is told of each statement: its parameters and columns, or that it is refused.
async fn described(
    conn: &mut PgConnection,
    statements: &[(String, Vec<String>, String)],
) -> BTreeMap<String, Vec<String>> {
    let mut described = BTreeMap::<_, Vec<String>>::new();
    for (name, _, text) in statements {
        let said = match (&mut *conn).describe(AssertSqlSafe(text.clone()).into_sql_str()).await {
            Ok(said) => {
                let columns = said.columns.iter().map(Column::type_info);
                let parameters = said.parameters.as_ref().and_then(|parameters| parameters.as_ref().left());
                let types = parameters.into_iter().flatten().chain(columns);
                types.map(TypeInfo::name).collect::<Vec<_>>().join(" ")
            }
            Err(error) => error.to_string(),
        };
        described.entry(name.clone()).or_default().push(said);
    }
    described
}

pub(super) async fn upgraded(database: &Database, sql: &str) -> Result<(), String> {
    let mut conn = database.connect().await;
    let script = format!("{BEGIN} {TOOLS} {sql}; UPDATE schema_migrations SET version = version + 1; COMMIT");
    let ran = sqlx::raw_sql(AssertSqlSafe(script)).execute(&mut conn).await;
    conn.close().await.expect("a clean end");
    ran.map(drop).map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_upgrade_passes_where_it_passes_without_us_and_check_is_right_about_it() {
    let (plain, mut conn) = coder().await;
    fill(&mut conn, &mut Rng::with_seed(17)).await;
    conn.close().await.expect("a clean end");
    let adopted = plain.copy().await.directly();
    adopt(&adopted).await;
    let mut conn = adopted.connect().await;
    let statements = prepare_all(&mut conn).await;
    let before = described(&mut conn, &statements).await;
    conn.close().await.expect("a clean end");
    for Upgrade { name, sql, differences } in UPGRADES {
        let (plain, ours) = (plain.copy().await.directly(), adopted.copy().await.directly());
        assert_eq!(upgraded(&plain, sql).await, Ok(()), "{name}");
        assert_eq!(upgraded(&ours, sql).await, Ok(()), "{name}, adopted");

        // The server itself says what does not work any more.
        let mut conn = ours.connect().await;
        let after = described(&mut conn, &statements).await;
        let broken: BTreeSet<_> =
            before.iter().filter(|(statement, said)| after[*statement] != **said).map(|(s, _)| s).collect();
        let status = migrate::status(&mut conn).await.expect("a status");
        let found = migrate::differences(&mut conn, &status).await.expect("a comparison");
        let breaks: BTreeSet<_> = found.iter().flat_map(|difference| &difference.breaks).collect();
        let said: Vec<_> =
            found.iter().map(|found| found.to_string().split("; breaks").next().unwrap().to_owned()).collect();
        assert_eq!(said, differences.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>(), "{name}");
        assert!(broken.is_subset(&breaks), "{name}: {:?}", broken.difference(&breaks).collect::<Vec<_>>());

        let (code, fit) = if differences.is_empty() { (0, "current") } else { (12, "diverged") };
        let checked = machine(&ours, &["check"], code);
        assert_eq!((&checked["fit"], &checked["adopted"]["now"]), (&fit.into(), &441.into()), "{name}");
        let verified = machine(&ours, &["verify"], code);
        // An index has the names of its columns in it.
        let (drifts, is_renamed) = (verified["drifts"].as_array().unwrap().len(), sql.contains("RENAME created_at"));
        assert!(drifts == differences.len() || is_renamed && drifts > differences.len(), "{name}: {verified}");
        for difference in *differences {
            let checked = text(&ours, &["check"], 12);
            assert!(
                checked.contains("now 441: run `coderdb migrate adopt` again: ") && checked.contains(difference),
                "{checked}"
            );
        }

        // Once that is accepted, it fits.
        if !differences.is_empty() {
            text(&ours, &["adopt"], 15);
        }
        text(&ours, &["adopt", "--yes"], 0);
        assert!(text(&ours, &["check"], 0).starts_with("adopted from Coder's version 441: fits"), "{name}");
        assert_eq!(machine(&ours, &["verify"], 0)["clean"], true, "{name}");
        drop(conn);
        text(&ours, &["unadopt", "--yes"], 0);
        assert_eq!(super::dump(&ours), super::dump(&plain), "{name}");
    }
}
