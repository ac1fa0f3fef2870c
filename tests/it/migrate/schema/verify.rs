//! `migrate verify`.

use std::{fs, path::Path};

use coderdb::{
    migrate,
    sqlx::{self, Connection, PgConnection, Row},
};

use super::{found, run};
use crate::support::{self, Database, streaming::Streaming};

async fn migrated() -> (Database, PgConnection) {
    // Directly: a pooler in front of the server passes no settings of the session on.
    let database = support::database().await.directly();
    let conn = database.connect().await;
    (database, conn)
}

#[tokio::test]
async fn the_expected_schema_is_the_one_that_the_migrations_make() {
    let (_database, mut conn) = migrated().await;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/migrate/schema.jsonl");
    run(&mut conn, "BEGIN").await;
    let rows = sqlx::raw_sql(include_str!("../../../../src/migrate/catalog.sql")).fetch_all(&mut conn).await.unwrap();
    let made: String = rows.iter().map(|row| row.get_unchecked::<String, _>(0) + "\n").collect();
    if std::env::var_os("CODERDB_UPDATE").is_some() {
        fs::write(&file, &made).unwrap();
    }
    let expected = fs::read_to_string(&file).unwrap();
    let missing = |of: &str, from: &str| {
        of.lines()
            .filter(|line| !from.lines().any(|other| other == *line))
            .map(|line| line.to_owned() + "\n")
            .collect::<String>()
    };
    assert!(
        made == expected,
        "src/migrate/schema.jsonl is out of date: scripts/prepare writes it anew\nonly there:\n{}only made:\n{}",
        missing(&expected, &made),
        missing(&made, &expected),
    );
}

#[tokio::test]
async fn a_fresh_install_has_no_difference_whatever_the_session_is_set_to() {
    let (database, mut conn) = migrated().await;
    assert_eq!(found(&mut conn).await, [""; 0]);
    for set in [
        "SET datestyle = 'German, DMY'; SET timezone = 'Asia/Tokyo'; SET intervalstyle = 'iso_8601'",
        "SET quote_all_identifiers = on; SET bytea_output = 'escape'; SET extra_float_digits = 0",
        "SET search_path = pg_catalog, public",
        "SET default_transaction_read_only = on",
    ] {
        let mut conn = database.connect().await;
        run(&mut conn, set).await;
        assert_eq!(found(&mut conn).await, [""; 0], "{set}");
    }
    run(&mut conn, "ALTER SCHEMA public RENAME TO \"Their own\"; SET search_path = \"Their own\"").await;
    assert_eq!(found(&mut conn).await, [""; 0]);
}

#[tokio::test]
async fn the_callers_settings_and_transaction_are_as_they_were() {
    let (_database, mut conn) = migrated().await;
    let mut transaction = conn.begin().await.unwrap();
    run(&mut transaction, "SET LOCAL datestyle = 'German, DMY'; CREATE TABLE mine (id int)").await;
    assert_eq!(found(&mut transaction).await, ["extra table mine"]);
    let style: String = sqlx::query_scalar("SHOW datestyle").fetch_one(&mut *transaction).await.unwrap();
    assert_eq!(style, "German, DMY");
    transaction.commit().await.unwrap();
    run(&mut conn, "SELECT FROM mine").await;
}

/// What somebody does by hand, and every difference that it makes.
const BY_HAND: &[(&str, &[&str])] = &[
    // Columns.
    (
        "ALTER TABLE user_links DROP COLUMN oauth_access_token",
        &["column user_links.oauth_access_token is missing: text DEFAULT ''::text NOT NULL | nothing"],
    ),
    (
        "ALTER TABLE user_links RENAME oauth_access_token TO mine",
        &[
            "column user_links.oauth_access_token is missing: text DEFAULT ''::text NOT NULL | nothing",
            "extra column user_links.mine",
        ],
    ),
    (
        "ALTER TABLE user_links ALTER oauth_access_token TYPE varchar(10)",
        &[
            "column user_links.oauth_access_token is changed: text DEFAULT ''::text NOT NULL | character varying(10) DEFAULT ''::text NOT NULL",
        ],
    ),
    (
        "ALTER TABLE user_links ALTER oauth_access_token DROP NOT NULL",
        &["column user_links.oauth_access_token is changed: text DEFAULT ''::text NOT NULL | text DEFAULT ''::text"],
    ),
    (
        "ALTER TABLE user_links ADD mine int; ALTER TABLE groups ALTER chat_spend_limit_micros SET NOT NULL",
        &["column groups.chat_spend_limit_micros is changed: bigint | bigint NOT NULL", "extra column user_links.mine"],
    ),
    (
        "ALTER TABLE user_links ALTER oauth_access_token SET DEFAULT 'x'",
        &[
            "column user_links.oauth_access_token is changed: text DEFAULT ''::text NOT NULL | text DEFAULT 'x'::text NOT NULL",
        ],
    ),
    (
        "ALTER TABLE user_links ALTER oauth_access_token DROP DEFAULT",
        &["column user_links.oauth_access_token is changed: text DEFAULT ''::text NOT NULL | text NOT NULL"],
    ),
    (
        "ALTER TABLE user_links ALTER oauth_access_token TYPE text COLLATE \"C\"",
        &[
            "column user_links.oauth_access_token is changed: text DEFAULT ''::text NOT NULL | text COLLATE \"C\" DEFAULT ''::text NOT NULL",
        ],
    ),
    (
        "ALTER TABLE workspace_agent_logs ALTER id DROP DEFAULT, ALTER id ADD GENERATED ALWAYS AS IDENTITY",
        &[
            "column workspace_agent_logs.id is changed: bigint DEFAULT nextval('workspace_agent_startup_logs_id_seq'::regclass) NOT NULL | bigint GENERATED ALWAYS AS IDENTITY NOT NULL",
            "extra sequence workspace_agent_logs_id_seq",
        ],
    ),
    ("ALTER TABLE users ADD mine text", &["extra column users.mine"]),
    ("ALTER TABLE users ADD mine text NOT NULL DEFAULT ''", &["extra column users.mine"]),
    (
        "DELETE FROM notification_templates; ALTER TABLE notification_templates ADD mine text NOT NULL",
        &["column notification_templates.mine is unexpected: nothing | text NOT NULL"],
    ),
    (
        "ALTER TABLE user_links ADD mine int GENERATED ALWAYS AS (1 / length(oauth_access_token)) STORED",
        &[
            "column user_links.mine is unexpected: nothing | integer GENERATED ALWAYS AS ((1 / length(oauth_access_token))) STORED",
        ],
    ),
    // Tables.
    ("DROP TABLE user_links", &["table user_links is missing: TABLE | nothing"]),
    ("ALTER TABLE user_links SET UNLOGGED", &["table user_links is changed: TABLE | UNLOGGED TABLE"]),
    ("ALTER TABLE workspace_agent_logs SET LOGGED", &["table workspace_agent_logs is changed: UNLOGGED TABLE | TABLE"]),
    (
        "ALTER TABLE user_links ENABLE ROW LEVEL SECURITY",
        &["table user_links is changed: TABLE | TABLE ENABLE ROW LEVEL SECURITY"],
    ),
    ("CREATE TABLE mine (id uuid PRIMARY KEY REFERENCES groups, a int NOT NULL UNIQUE)", &["extra table mine"]),
    ("ALTER TABLE user_links SET (fillfactor = 70)", &[]),
    // Constraints.
    (
        "ALTER TABLE users DROP CONSTRAINT users_username_min_length",
        &["constraint users.users_username_min_length is missing: CHECK (length(username) >= 1) | nothing"],
    ),
    (
        "ALTER TABLE users DROP CONSTRAINT users_username_min_length, ADD CONSTRAINT users_username_min_length CHECK (length(username) >= 2)",
        &[
            "constraint users.users_username_min_length is changed: CHECK (length(username) >= 1) | CHECK (length(username) >= 2)",
        ],
    ),
    (
        "ALTER TABLE users DROP CONSTRAINT users_username_min_length, ADD CONSTRAINT users_username_min_length CHECK (length(username) >= 1) NOT VALID",
        &[
            "constraint users.users_username_min_length is changed: CHECK (length(username) >= 1) | CHECK (length(username) >= 1) NOT VALID",
        ],
    ),
    (
        "ALTER TABLE users ADD CONSTRAINT mine CHECK (username <> 'x')",
        &["constraint users.mine is unexpected: nothing | CHECK (username <> 'x'::text)"],
    ),
    (
        "ALTER TABLE api_keys DROP CONSTRAINT api_keys_user_id_uuid_fkey, ADD CONSTRAINT api_keys_user_id_uuid_fkey FOREIGN KEY (user_id) REFERENCES users",
        &[
            "constraint api_keys.api_keys_user_id_uuid_fkey is changed: FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE | FOREIGN KEY (user_id) REFERENCES users(id)",
        ],
    ),
    (
        "ALTER TABLE user_deleted DISABLE TRIGGER ALL",
        &[
            "constraint user_deleted.user_deleted_user_id_fkey is changed: FOREIGN KEY (user_id) REFERENCES users(id) | FOREIGN KEY (user_id) REFERENCES users(id) with its triggers DISABLED",
        ],
    ),
    (
        "ALTER TABLE user_links DROP CONSTRAINT user_links_pkey",
        &["constraint user_links.user_links_pkey is missing: PRIMARY KEY (user_id, login_type) | nothing"],
    ),
    (
        "CREATE TABLE mine (id int); INSERT INTO mine VALUES (1); ALTER TABLE mine ADD CONSTRAINT late CHECK (id > 1) NOT VALID",
        &["constraint mine.late is unfinished: nothing | CHECK (id > 1) NOT VALID", "extra table mine"],
    ),
    // Indexes.
    (
        "DROP INDEX idx_api_keys_user",
        &[
            "index api_keys.idx_api_keys_user is missing: CREATE INDEX idx_api_keys_user ON api_keys USING btree (user_id) | nothing",
        ],
    ),
    (
        "DROP INDEX idx_api_keys_user; CREATE INDEX idx_api_keys_user ON api_keys (user_id DESC) WHERE user_id IS NOT NULL",
        &[
            "index api_keys.idx_api_keys_user is changed: CREATE INDEX idx_api_keys_user ON api_keys USING btree (user_id) | CREATE INDEX idx_api_keys_user ON api_keys USING btree (user_id DESC) WHERE user_id IS NOT NULL",
        ],
    ),
    (
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'idx_api_keys_user'::regclass",
        &[
            "index api_keys.idx_api_keys_user is changed: CREATE INDEX idx_api_keys_user ON api_keys USING btree (user_id) | CREATE INDEX idx_api_keys_user ON api_keys USING btree (user_id) INVALID",
        ],
    ),
    ("CREATE INDEX mine ON api_keys (created_at)", &["extra index api_keys.mine"]),
    (
        "CREATE INDEX mine ON api_keys (created_at); UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'mine'::regclass",
        &[
            "index api_keys.mine is unfinished: nothing | CREATE INDEX mine ON api_keys USING btree (created_at) INVALID",
        ],
    ),
    (
        "CREATE UNIQUE INDEX mine ON api_keys (created_at)",
        &["index api_keys.mine is unexpected: nothing | CREATE UNIQUE INDEX mine ON api_keys USING btree (created_at)"],
    ),
    // Triggers and rules.
    (
        "DROP TRIGGER inhibit_enqueue_if_disabled ON notification_messages",
        &[
            "trigger notification_messages.inhibit_enqueue_if_disabled is missing: CREATE TRIGGER inhibit_enqueue_if_disabled BEFORE INSERT ON notification_messages FOR EACH ROW EXECUTE FUNCTION inhibit_enqueue_if_disabled() | nothing",
        ],
    ),
    (
        "ALTER TABLE notification_messages DISABLE TRIGGER inhibit_enqueue_if_disabled",
        &[
            "trigger notification_messages.inhibit_enqueue_if_disabled is changed: CREATE TRIGGER inhibit_enqueue_if_disabled BEFORE INSERT ON notification_messages FOR EACH ROW EXECUTE FUNCTION inhibit_enqueue_if_disabled() | CREATE TRIGGER inhibit_enqueue_if_disabled BEFORE INSERT ON notification_messages FOR EACH ROW EXECUTE FUNCTION inhibit_enqueue_if_disabled() DISABLED",
        ],
    ),
    (
        "CREATE TRIGGER mine BEFORE DELETE ON user_links FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        &[
            "trigger user_links.mine is unexpected: nothing | CREATE TRIGGER mine BEFORE DELETE ON user_links FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        ],
    ),
    (
        "CREATE RULE mine AS ON DELETE TO user_links DO INSTEAD NOTHING",
        &[
            "rule user_links.mine is unexpected: nothing | CREATE RULE mine AS\n    ON DELETE TO user_links DO INSTEAD NOTHING;",
        ],
    ),
    // Functions.
    (
        "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE PROCEDURE mine_too() LANGUAGE sql AS ''; CREATE AGGREGATE mine_three(int) (sfunc = int4pl, stype = int)",
        &["extra function mine()", "extra function mine_three(integer)", "extra function mine_too()"],
    ),
    // Views.
    (
        "ALTER VIEW visible_users SET (security_barrier)",
        &["view visible_users is changed: \
         SELECT id,\n    username,\n    name,\n    avatar_url\n   FROM users; | WITH (security_barrier=true) \
         SELECT id,\n    username,\n    name,\n    avatar_url\n   FROM users;"],
    ),
    ("CREATE VIEW mine AS SELECT 1 AS one", &["extra view mine"]),
    // Types.
    (
        "ALTER TYPE log_source RENAME VALUE 'provisioner' TO 'mine'",
        &["enum log_source is changed: 'provisioner_daemon',\n'provisioner' | 'provisioner_daemon',\n'mine'"],
    ),
    (
        "ALTER TYPE log_source ADD VALUE 'mine' BEFORE 'provisioner'",
        &[
            "enum log_source is changed: 'provisioner_daemon',\n'provisioner' | 'provisioner_daemon',\n'mine',\n'provisioner'",
        ],
    ),
    (
        "UPDATE pg_enum SET enumsortorder = -enumsortorder WHERE enumtypid = 'log_source'::regtype",
        &["enum log_source is changed: 'provisioner_daemon',\n'provisioner' | 'provisioner',\n'provisioner_daemon'"],
    ),
    (
        "CREATE TYPE mine AS ENUM ('a'); CREATE TYPE mine_too AS (a int); CREATE DOMAIN mine_three AS text",
        &["extra domain mine_three", "extra enum mine", "extra type mine_too"],
    ),
    ("ALTER DOMAIN tagset SET NOT NULL", &["domain tagset is changed: jsonb | jsonb NOT NULL"]),
    (
        "ALTER DOMAIN tagset ADD CONSTRAINT mine CHECK (jsonb_typeof(value) = 'object') NOT VALID",
        &[
            "domain tagset is changed: jsonb | jsonb CONSTRAINT mine CHECK (jsonb_typeof(VALUE) = 'object'::text) NOT VALID",
        ],
    ),
    // Sequences.
    (
        "ALTER SEQUENCE licenses_id_seq INCREMENT 2 CYCLE",
        &[
            "sequence licenses_id_seq is changed: AS integer START 1 INCREMENT 1 MINVALUE 1 MAXVALUE 2147483647 CACHE 1 OWNED BY licenses.id | AS integer START 1 INCREMENT 2 MINVALUE 1 MAXVALUE 2147483647 CACHE 1 CYCLE OWNED BY licenses.id",
        ],
    ),
    (
        "ALTER SEQUENCE licenses_id_seq OWNED BY NONE",
        &[
            "sequence licenses_id_seq is changed: AS integer START 1 INCREMENT 1 MINVALUE 1 MAXVALUE 2147483647 CACHE 1 OWNED BY licenses.id | AS integer START 1 INCREMENT 1 MINVALUE 1 MAXVALUE 2147483647 CACHE 1",
        ],
    ),
    ("SELECT nextval('licenses_id_seq')", &[]),
    // What is not compared.
    (
        "COMMENT ON TABLE users IS 'mine'; REVOKE ALL ON users FROM PUBLIC; ALTER TABLE users ALTER name SET STATISTICS 10",
        &[],
    ),
    ("CREATE TABLE coderdb.tomorrow (id serial PRIMARY KEY)", &[]),
    ("CREATE SCHEMA mine CREATE TABLE users (id int)", &[]),
];

#[tokio::test]
async fn whatever_is_done_by_hand_is_found_and_nothing_else() {
    let (_database, mut conn) = migrated().await;
    let mut wrong = String::new();
    for (sql, expected) in BY_HAND {
        let mut transaction = conn.begin().await.unwrap();
        run(&mut transaction, sql).await;
        let found = found(&mut transaction).await;
        transaction.rollback().await.unwrap();
        if found != *expected {
            wrong = format!("{wrong}\n{sql}\n  - {}\n  + {}", expected.join("\n  - "), found.join("\n  + "));
        }
    }
    assert!(wrong.is_empty(), "- expected, + found:{wrong}");
    assert_eq!(found(&mut conn).await, [""; 0]);
}

/// One difference of every kind, and what stands beside the schema.
const A_BIT_OF_EVERYTHING: &str = "
    ALTER TABLE user_links ALTER oauth_access_token DROP NOT NULL, ADD note text;
    DROP INDEX idx_api_keys_user;
    ALTER TABLE groups ADD CONSTRAINT no_x CHECK (name <> 'x');
    CREATE TABLE mine (id int); ALTER TABLE mine ADD CONSTRAINT late CHECK (id > 1) NOT VALID;
    CREATE OR REPLACE FUNCTION delete_deleted_user_resources() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM api_keys WHERE user_id = NEW.id;
    RETURN NEW;
END
$$";

#[tokio::test]
async fn a_person_reads_what_was_expected_and_what_was_found() {
    let (database, mut conn) = migrated().await;
    let clean = support::run(database.coderdb().args(["migrate", "verify"]));
    let as_made = format!("The schema is as version {} made it.\n", migrate::newest());
    assert_eq!((clean.code, clean.stdout, clean.stderr), (0, as_made.clone(), String::new()));

    run(&mut conn, "CREATE TABLE mine (id int)").await;
    let extra = support::run(database.coderdb().args(["migrate", "verify"]));
    let beside = "beside this schema, and no difference: table mine\n".to_owned();
    assert_eq!((extra.code, extra.stdout, extra.stderr), (0, as_made, beside));

    run(&mut conn, &format!("DROP TABLE mine;{A_BIT_OF_EVERYTHING}")).await;
    let outcome = support::run(database.coderdb().args(["migrate", "verify"]));
    let expected = "\
function delete_deleted_user_resources(): changed
    --- expected
    +++ found
    @@ -4,7 +4,6 @@
     AS $function$
     BEGIN
         DELETE FROM api_keys WHERE user_id = NEW.id;
    -    DELETE FROM user_links WHERE user_id = NEW.id;
         RETURN NEW;
     END
     $function$
index api_keys.idx_api_keys_user: missing
    expected  CREATE INDEX idx_api_keys_user ON api_keys USING btree (user_id)
constraint groups.no_x: unexpected
    found     CHECK (name <> 'x'::text)
constraint mine.late: unfinished
    found     CHECK (id > 1) NOT VALID
column user_links.oauth_access_token: changed
    expected  text DEFAULT ''::text NOT NULL
    found     text DEFAULT ''::text
";
    assert_eq!((outcome.code, outcome.stdout.as_str()), (12, expected));
    assert_eq!(outcome.stderr, "beside this schema, and no difference: table mine, column user_links.note\n");
}

#[tokio::test]
async fn a_machine_reads_the_same_in_json_of_a_known_format() {
    let (database, mut conn) = migrated().await;
    let newest = migrate::newest();
    run(&mut conn, A_BIT_OF_EVERYTHING).await;
    run(&mut conn, "UPDATE coderdb.refinery_schema_history SET checksum = '1' WHERE version = 2").await;
    let outcome = support::run(database.coderdb().args(["migrate", "verify", "-o", "json"]));
    assert_eq!((outcome.code, outcome.stderr.as_str()), (12, ""));
    let golden = include_str!("../../golden/verify.json").replace("\"NEWEST\"", &newest.to_string());
    assert_eq!(outcome.stdout, golden);
}

#[tokio::test]
async fn an_edited_migration_is_drift_and_what_a_newer_version_did_is_called_out() {
    let (database, mut conn) = migrated().await;
    run(&mut conn, "UPDATE coderdb.refinery_schema_history SET checksum = '1' WHERE version = 2").await;
    let outcome = support::run(database.coderdb().args(["migrate", "verify"]));
    let changed = "V0002__provisioner_job_logs_cap: its file differs from what was applied\n";
    assert_eq!((outcome.code, outcome.stdout.as_str()), (12, changed));

    let (database, mut conn) = migrated().await;
    run(&mut conn, "INSERT INTO coderdb.refinery_schema_history SELECT 9999, 'later', applied_on, '1' FROM coderdb.refinery_schema_history LIMIT 1").await;
    run(&mut conn, "DROP INDEX idx_api_keys_user").await;
    let outcome = support::run(database.coderdb().args(["migrate", "verify"]));
    assert_eq!(outcome.code, 12);
    assert!(outcome.stdout.contains("index api_keys.idx_api_keys_user: missing"), "{}", outcome.stdout);
    let newer = format!("the database is at version 9999, and this coderdb knows {}", migrate::newest());
    assert!(outcome.stderr.contains(&newer), "{}", outcome.stderr);
}

#[tokio::test]
async fn nothing_is_compared_while_migrations_are_pending() {
    let database = support::empty_database().await.directly();
    let outcome = support::run(database.coderdb().args(["migrate", "verify"]));
    assert_eq!((outcome.code, outcome.stdout.as_str()), (3, ""));
    let mut conn = database.connect().await;
    let options = migrate::MigrateOptions { target: Some(migrate::newest() - 1), ..migrate::MigrateOptions::default() };
    migrate::up(&mut conn, &options, |_| {}).await.unwrap();
    run(&mut conn, "DROP TABLE user_links").await;
    let outcome = support::run(database.coderdb().args(["migrate", "verify"]));
    assert_eq!((outcome.code, outcome.stdout.as_str()), (3, ""));
    assert!(outcome.stderr.starts_with("not compared: 1 migration is pending\n"), "{}", outcome.stderr);
    let outcome = support::run(database.coderdb().args(["migrate", "verify", "-o", "json"]));
    assert_eq!(outcome.code, 3);
    assert!(outcome.stdout.contains("\"drifts\": null"), "{}", outcome.stdout);
    // A history that cannot be gone on with comes first: migrating would not help.
    run(&mut conn, "UPDATE coderdb.refinery_schema_history SET checksum = '1' WHERE version = 2").await;
    database.coderdb().args(["migrate", "verify"]).assert().code(12);
}

#[tokio::test]
async fn a_role_that_may_read_nothing_but_what_everybody_may_can_verify() {
    let (database, mut conn) = migrated().await;
    let role = format!("only_verifies_{}", database.name());
    run(
        &mut conn,
        &format!(
            "REVOKE ALL ON SCHEMA public FROM PUBLIC; CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA public TO {role}; \
             DROP INDEX idx_api_keys_user"
        ),
    )
    .await;
    let mut command = database.coderdb();
    command.env("DATABASE_URL", database.url_as(&role, "")).args(["migrate", "verify"]);
    let outcome = support::run(&mut command);
    assert_eq!(outcome.code, 12, "{}", outcome.stderr);
    assert!(outcome.stdout.starts_with("index api_keys.idx_api_keys_user: missing\n"), "{}", outcome.stdout);
    run(&mut conn, &format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

#[tokio::test]
async fn a_standby_can_be_verified() {
    let mut streaming = Streaming::start(1, "SELECT").await;
    let mut primary = streaming.primary.connect().await;
    migrate::up(&mut primary, &migrate::MigrateOptions::default(), |_| {}).await.unwrap();
    run(&mut primary, "ALTER TABLE user_links ADD mine text").await;
    let written: String =
        sqlx::query_scalar("SELECT pg_current_wal_lsn()::text").fetch_one(&mut primary).await.unwrap();
    let standby = streaming.standby();
    standby.until(&format!("SELECT pg_last_wal_replay_lsn() >= '{written}'::pg_lsn")).await;
    assert_eq!(found(&mut standby.connect().await).await, ["extra column user_links.mine"]);
}
