//! Settings of a role or a database that reach the sessions of the engine: none changes what it does.

use coderdb::sqlx::{self, AssertSqlSafe, PgConnection};

use super::{
    Program, Set, empty,
    environment::{drop_role, role, url_as, with_url},
    run,
};
use crate::support::{self, streaming::Streaming};

/// What is meant to have a meaning: where a session works, as whom, and that it may not write.
const MEANT: &[&str] = &["search_path", "role", "session_authorization", "default_transaction_read_only"];

/// Every setting that can be set by `ALTER ROLE`, with values that nobody has by default; the second of each is for a second
/// round. The loop finds settings of versions to come by itself.
async fn unusual(conn: &mut PgConnection) -> [Vec<(String, String)>; 2] {
    let settings = "
        SELECT name, CASE
            WHEN vartype = 'bool' THEN ARRAY[CASE setting WHEN 'on' THEN 'off' ELSE 'on' END]
            WHEN vartype = 'enum' THEN ARRAY(SELECT v FROM unnest(enumvals) AS v WHERE v <> setting)
            -- Long enough for a statement, too short for whoever waits; a limit that somebody means is respected.
            WHEN name IN ('statement_timeout', 'lock_timeout') THEN ARRAY['60s', '600s']
            WHEN unit = 'ms' THEN ARRAY['200ms', max_val || unit]
            WHEN vartype IN ('integer', 'real') THEN ARRAY[min_val, max_val]
            ELSE ARRAY[s.text]
        END
        FROM pg_settings
        LEFT JOIN (VALUES
            ('DateStyle', 'German, DMY'), ('TimeZone', 'Asia/Kolkata'), ('timezone_abbreviations', 'India'),
            ('lc_monetary', 'C'), ('lc_numeric', 'C'), ('lc_time', 'C'), ('lc_messages', 'C'),
            ('application_name', ''), ('client_encoding', 'SQL_ASCII'), ('default_text_search_config', 'simple'),
            ('restrict_nonsystem_relation_kind', 'view, foreign-table'), ('backtrace_functions', 'errstart')
        ) AS s (setting_name, text) ON s.setting_name = name
        WHERE context IN ('user', 'superuser', 'backend', 'superuser-backend') AND name <> ALL ($1)
        ORDER BY name";
    // Those of plpgsql are there once it has been used.
    run(conn, "DO $$ BEGIN END $$").await;
    let settings: Vec<(String, Vec<Option<String>>)> =
        sqlx::query_as(settings).bind(MEANT).fetch_all(conn).await.expect("settings");
    let value = |values: &[Option<String>], n: usize| values.get(n).cloned().flatten();
    [0, 1].map(|n| settings.iter().filter_map(|(name, values)| Some((name.clone(), value(values, n)?))).collect())
}

/// What goes wrong in an empty database of a role with these settings.
async fn trial(settings: &[(String, String)]) -> Option<String> {
    let (database, mut conn) = empty().await;
    let role = role(&mut conn, &database, "odd", "").await;
    run(&mut conn, &format!("ALTER DATABASE {} OWNER TO {role}", database.name())).await;
    for (name, value) in settings {
        let set = format!("ALTER ROLE {role} SET {name} = '{value}'");
        // What the server does not allow a role to have, no role has.
        if let Err(error) = sqlx::raw_sql(AssertSqlSafe(set)).execute(&mut conn).await {
            println!("left out: {name} = {value}: {error}");
        }
    }
    let url = url_as(&database, &role);
    let mut wrong = None;
    for args in [
        &["status"][..],
        &["up"],
        &["check"],
        &["verify"],
        &["history"],
        &["plan"],
        &["repair", "accept", "1", "--yes"],
    ] {
        let outcome = support::run(&mut with_url(&url, args));
        if outcome.code != 0 {
            wrong = Some(format!("{args:?} {}: {}{}", outcome.code, outcome.stdout, outcome.stderr));
            break;
        }
    }
    run(&mut conn, &format!("ALTER DATABASE {} OWNER TO postgres", database.name())).await;
    drop_role(&mut conn, &role).await;
    wrong
}

/// The settings that are to blame, each with what it does.
async fn to_blame(settings: &[(String, String)]) -> Vec<String> {
    let Some(wrong) = trial(settings).await else { return Vec::new() };
    if let [(name, value)] = settings {
        return vec![format!("{name} = {value}: {wrong}")];
    }
    let (first, second) = settings.split_at(settings.len() / 2);
    let found = [Box::pin(to_blame(first)).await, Box::pin(to_blame(second)).await].concat();
    if found.is_empty() { vec![format!("only together: {settings:?}: {wrong}")] } else { found }
}

#[tokio::test]
async fn whatever_setting_a_role_has_it_migrates_and_looks_as_ever() {
    let (_database, mut conn) = empty().await;
    for settings in unusual(&mut conn).await {
        assert!(settings.len() > 20, "{settings:?}");
        let found = to_blame(&settings).await;
        assert!(found.is_empty(), "{}", found.join("\n"));
    }
}

#[tokio::test]
async fn whatever_setting_a_role_has_everything_reads_on_a_standby() {
    let mut streaming = Streaming::start(1, "SELECT").await;
    let mut primary = streaming.primary.connect().await;
    let [settings, _] = unusual(&mut primary).await;
    coderdb::migrate::up(&mut primary, &coderdb::migrate::MigrateOptions::default(), |_| {}).await.unwrap();
    for (name, value) in settings {
        let set = format!("ALTER ROLE postgres SET {name} = '{value}'");
        let _ = sqlx::raw_sql(AssertSqlSafe(set)).execute(&mut primary).await;
    }
    // The last value that there is, and the one that stops a standby.
    run(&mut primary, "ALTER ROLE postgres SET default_transaction_isolation = 'serializable'").await;
    let written: String =
        sqlx::query_scalar("SELECT pg_current_wal_lsn()::text").fetch_one(&mut primary).await.unwrap();
    let url = |node: &support::streaming::Node| {
        let directory = node.socket().parent().unwrap().display().to_string().replace('/', "%2F");
        format!("postgres://postgres@localhost/postgres?host={directory}")
    };
    let standby = streaming.standby();
    let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{written}'::pg_lsn");
    let looker = standby.options().options([("default_transaction_isolation", "read committed")]);
    let mut looker = <PgConnection as sqlx::Connection>::connect_with(&looker).await.unwrap();
    super::until(&mut looker, &replayed).await;
    for args in [&["status", "--exit-code"][..], &["check"], &["plan"], &["verify"], &["history"], &["up"]] {
        for target in ["any", "standby"] {
            let url = format!("{}&target_session_attrs={target}", url(standby));
            let outcome = support::run(&mut with_url(&url, args));
            assert_eq!(outcome.code, 0, "{args:?}: {}{}", outcome.stdout, outcome.stderr);
        }
    }
}

#[tokio::test]
async fn time_outs_of_a_role_end_no_wait_of_the_engine() {
    let (database, mut conn) = empty().await;
    let role = role(&mut conn, &database, "hasty", "SUPERUSER").await;
    for name in ["statement_timeout", "lock_timeout", "idle_session_timeout", "idle_in_transaction_session_timeout"] {
        run(&mut conn, &format!("ALTER ROLE {role} SET {name} = '300ms'")).await;
    }
    let url = url_as(&database, &role);
    let set = Set::of(&[("V0001__slow", "SELECT pg_sleep(0.6)")]);
    // While it waits for another runner, and for somebody else's.
    let mut holder = database.connect().await;
    run(&mut holder, "SELECT pg_advisory_lock(x'636f6465726462'::bigint)").await;
    let mut up = set.spawn(&url, &[]);
    let from = set.path().to_str().unwrap();
    let mut check = Program::spawn(&url, &["migrate", "check", "--wait", "1h", "--from", from]);
    up.says("waiting for another runner").await;
    up.says("waiting for another runner").await;
    run(&mut holder, "SELECT pg_advisory_unlock_all()").await;
    assert_eq!(up.ends().await, 0, "{}", up.said);
    assert_eq!(check.ends().await, 0, "{}", check.said);
    drop_role(&mut conn, &role).await;
}

#[tokio::test]
async fn what_the_caller_has_set_is_there_again_whatever_was_asked() {
    let (_database, mut conn) = empty().await;
    let set =
        "SET statement_timeout = '7min'; SET row_security = off; SET default_transaction_isolation = 'repeatable read'";
    run(&mut conn, set).await;
    let options = coderdb::migrate::MigrateOptions::default();
    for _ in 0..2 {
        coderdb::migrate::status(&mut conn).await.unwrap();
        coderdb::migrate::up(&mut conn, &options, |_| {}).await.unwrap();
        let _ = coderdb::migrate::verify(&mut conn).await.unwrap();
        coderdb::migrate::history(&mut conn).await.unwrap();
        coderdb::migrate::accept(&mut conn, &options, 1).await.unwrap();
        let now: String = super::ask(
            &mut conn,
            "SELECT concat_ws(' ', current_setting('statement_timeout'), current_setting('row_security'), \
             current_setting('transaction_isolation'), current_setting('client_connection_check_interval'))",
        )
        .await;
        assert_eq!(now, "7min off repeatable read 0");
    }
    // Also in a transaction of the caller, which stays as it is.
    let mut transaction = sqlx::Connection::begin(&mut conn).await.unwrap();
    run(&mut transaction, "CREATE TABLE mine ()").await;
    coderdb::migrate::status(&mut transaction).await.unwrap();
    coderdb::migrate::history(&mut transaction).await.unwrap();
    let off: bool = super::ask(&mut transaction, "SELECT current_setting('row_security') = 'off'").await;
    transaction.commit().await.unwrap();
    assert!(off && super::ask::<bool>(&mut conn, "SELECT to_regclass('mine') IS NOT NULL").await);
}
