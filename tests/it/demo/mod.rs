//! The demo: what it holds, when it refuses, and that it is the same everywhere.

mod contents;

use std::collections::BTreeMap;

use coderdb::{
    demo::{self, DemoOptions, Error, Outcome, Regime, Scale},
    model::OrganizationId,
    sqlx::{self, AssertSqlSafe, PgConnection},
    store,
};
use uuid::Uuid;

use crate::support;

const CALM: Scale = Scale { jobs: 10_000, regime: Regime::Calm };
const STORM: Scale = Scale { jobs: 10_000, regime: Regime::Storm };

fn id(kind: u128, number: u128) -> Uuid {
    format!("c0de0000-{kind:04x}-4000-8000-{number:012}").parse().unwrap()
}

fn organization() -> OrganizationId {
    OrganizationId(id(1, 1))
}

async fn load(conn: &mut PgConnection, options: DemoOptions) -> Result<Outcome, Error> {
    demo::load(conn, &options, |_| ()).await
}

async fn loaded(conn: &mut PgConnection, scale: Option<Scale>) {
    let outcome = load(conn, DemoOptions { scale, ..DemoOptions::default() }).await.unwrap();
    assert!(matches!(outcome, Outcome::Loaded { .. }), "the database was empty, and the demo says {outcome:?}");
}

async fn execute(conn: &mut PgConnection, sql: &'static str) {
    sqlx::raw_sql(sql).execute(conn).await.unwrap();
}

async fn count(conn: &mut PgConnection, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(conn).await.unwrap()
}

/// Every table with its number of rows and a digest of them.
async fn tables(conn: &mut PgConnection) -> BTreeMap<String, (i64, String)> {
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace",
    )
    .fetch_all(&mut *conn)
    .await
    .unwrap();
    let mut tables = BTreeMap::new();
    for name in names {
        let sql =
            format!("SELECT count(*), coalesce(md5(string_agg(t::text, '|' ORDER BY t::text)), '') FROM {name} AS t");
        tables.insert(name, sqlx::query_as(AssertSqlSafe(sql)).fetch_one(&mut *conn).await.unwrap());
    }
    tables
}

/// Where each sequence stands.
async fn sequences(conn: &mut PgConnection) -> Vec<(String, Option<i64>)> {
    sqlx::query_as("SELECT sequencename::text, last_value FROM pg_sequences ORDER BY 1").fetch_all(conn).await.unwrap()
}

/// Every index, constraint and trigger, with whether it holds.
async fn schema(conn: &mut PgConnection) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT pg_get_indexdef(indexrelid) || ' valid ' || indisvalid || ' ready ' || indisready FROM pg_index \
         WHERE indrelid::regclass::text !~ '^pg_' \
         UNION ALL \
         SELECT conrelid::regclass::text || ' ' || conname || ' ' || pg_get_constraintdef(oid) || ' valid ' || convalidated \
         FROM pg_constraint WHERE connamespace = 'public'::regnamespace \
         UNION ALL \
         SELECT tgrelid::regclass::text || ' ' || regexp_replace(tgname, '_[0-9]+$', '') || ' ' || tgfoid::regproc::text || ' enabled ' || tgenabled::text \
         FROM pg_trigger \
         ORDER BY 1",
    )
    .fetch_all(conn)
    .await
    .unwrap()
}

/// Every foreign key, checked by a join of our own.
async fn broken_references(conn: &mut PgConnection) -> Vec<String> {
    let checks: Vec<(String, String)> = sqlx::query_as(
        "SELECT conname::text, format('SELECT count(*) FROM %s AS a WHERE a.%I IS NOT NULL AND NOT EXISTS (SELECT 1 FROM %s AS b WHERE b.%I = a.%I)', \
             conrelid::regclass, mine.attname, confrelid::regclass, theirs.attname, mine.attname) \
         FROM pg_constraint \
         INNER JOIN pg_attribute AS mine ON mine.attrelid = conrelid AND mine.attnum = conkey[1] \
         INNER JOIN pg_attribute AS theirs ON theirs.attrelid = confrelid AND theirs.attnum = confkey[1] \
         WHERE contype = 'f'",
    )
    .fetch_all(&mut *conn)
    .await
    .unwrap();
    assert!(checks.len() > 30, "the catalog should name every foreign key");
    let mut broken = Vec::new();
    for (name, sql) in checks {
        let missing: i64 = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut *conn).await.unwrap();
        if missing > 0 {
            broken.push(format!("{name}: {missing}"));
        }
    }
    broken
}

#[tokio::test]
async fn the_demo_is_the_same_in_every_database() {
    for scale in [None, Some(CALM), Some(STORM)] {
        let (one, other) = (support::database().await, support::database().await);
        // SET is for the session.
        let (mut one, mut other) = (one.connect().await, other.connect_with_session().await);
        execute(&mut other, "SET timezone = 'America/New_York'; SET datestyle = 'SQL, DMY'").await;
        loaded(&mut one, scale).await;
        loaded(&mut other, scale).await;
        execute(&mut other, "RESET timezone; RESET datestyle").await;
        assert_eq!(tables(&mut one).await, tables(&mut other).await, "with {scale:?}");
        assert_eq!(sequences(&mut one).await, sequences(&mut other).await, "with {scale:?}");
    }
}

#[tokio::test]
async fn a_second_load_changes_nothing() {
    let database = support::database().await;
    let mut conn = database.connect().await;
    let scale = Some(Scale { jobs: 1_000, regime: Regime::Calm });
    loaded(&mut conn, scale).await;
    execute(&mut conn, "DELETE FROM chats; UPDATE users SET username = 'alicia' WHERE username = 'alice'").await;
    let (rows, places) = (tables(&mut conn).await, sequences(&mut conn).await);
    for asked in [None, scale] {
        let outcome = load(&mut conn, DemoOptions { scale: asked, ..DemoOptions::default() }).await.unwrap();
        assert_eq!(outcome, Outcome::AlreadyLoaded { scale, at: demo::ANCHOR });
        assert_eq!(tables(&mut conn).await, rows, "a demo that was loaded once is left as it is");
        assert_eq!(sequences(&mut conn).await, places);
    }
}

#[tokio::test]
async fn the_large_organization_can_follow_the_small_one_but_not_another_large_one() {
    let database = support::database().await;
    let mut conn = database.connect().await;
    loaded(&mut conn, None).await;
    let before = schema(&mut conn).await;
    let calm = Scale { jobs: 1_000, regime: Regime::Calm };
    let outcome = load(&mut conn, DemoOptions { scale: Some(calm), ..DemoOptions::default() }).await.unwrap();
    assert!(matches!(outcome, Outcome::Loaded { jobs: 1_000, .. }), "{outcome:?}");
    assert_eq!(schema(&mut conn).await, before);
    assert_eq!(count(&mut conn, "SELECT count(*) FROM provisioner_jobs").await, 1_042);

    let rows = tables(&mut conn).await;
    let storm = Scale { jobs: 1_000, regime: Regime::Storm };
    let error = load(&mut conn, DemoOptions { scale: Some(storm), ..DemoOptions::default() }).await.unwrap_err();
    assert!(matches!(error, Error::OtherScale { loaded, asked } if loaded == calm && asked == storm), "{error}");
    assert_eq!(
        error.to_string(),
        "a demo of 1000 jobs (calm) is loaded; 1000 jobs (storm) needs a database of its own"
    );
    assert_eq!(tables(&mut conn).await, rows);
}

#[tokio::test]
async fn a_database_with_rows_of_others_is_refused_and_can_be_overridden() {
    let database = support::database().await;
    let mut conn = database.connect().await;
    execute(
        &mut conn,
        "INSERT INTO organizations (id, name, description, created_at, updated_at, is_default, display_name) \
         VALUES ('11111111-1111-1111-1111-111111111111', 'ours', '', now(), now(), true, 'Ours'); \
         INSERT INTO users (id, email, username, hashed_password, created_at, updated_at) \
         VALUES ('22222222-2222-2222-2222-222222222222', 'we@example.org', 'we', '', now(), now()); \
         INSERT INTO provisioner_jobs (id, created_at, updated_at, organization_id, initiator_id, provisioner, storage_method, type, input, file_id) \
         SELECT gen_random_uuid(), now(), now(), '11111111-1111-1111-1111-111111111111', gen_random_uuid(), 'echo', 'file', 'workspace_build', '{}', gen_random_uuid() \
         FROM generate_series(1, 3)",
    )
    .await;
    let rows = tables(&mut conn).await;
    let error = load(&mut conn, DemoOptions::default()).await.unwrap_err();
    assert!(matches!(error, Error::InUse { organizations: 1, users: 1, jobs: 3 }), "{error}");
    assert_eq!(error.code(), "demo_in_use");
    assert_eq!(tables(&mut conn).await, rows, "a refusal must not write");

    let before = schema(&mut conn).await;
    let scale = Some(Scale { jobs: 1_000, regime: Regime::Storm });
    let _ = load(&mut conn, DemoOptions { allow_existing: true, scale, ..DemoOptions::default() }).await.unwrap();
    assert_eq!(schema(&mut conn).await, before);
    assert_eq!(broken_references(&mut conn).await, Vec::<String>::new());
    let default = store::organizations::default(&mut conn, &support::read_organizations()).await.unwrap();
    assert_eq!(default.name, "ours", "the default organization stays the default one");
    assert_eq!(count(&mut conn, "SELECT count(*) FROM provisioner_jobs").await, 1_045);
}

#[tokio::test]
async fn a_taken_name_is_named_and_nothing_is_written() {
    let database = support::database().await;
    let mut conn = database.connect().await;
    execute(
        &mut conn,
        "INSERT INTO users (id, email, username, hashed_password, created_at, updated_at) \
         VALUES ('22222222-2222-2222-2222-222222222222', 'we@example.org', 'Alice', '', now(), now())",
    )
    .await;
    let rows = tables(&mut conn).await;
    let error = load(&mut conn, DemoOptions { allow_existing: true, ..DemoOptions::default() }).await.unwrap_err();
    assert_eq!(error.to_string(), "the demo needs names that are taken: username Alice");
    assert_eq!(tables(&mut conn).await, rows);
}

#[tokio::test]
async fn a_demo_whose_note_is_gone_is_not_touched() {
    let database = support::database().await;
    let mut conn = database.connect().await;
    loaded(&mut conn, None).await;
    execute(&mut conn, "DELETE FROM site_configs WHERE key = 'coderdb_demo'").await;
    let rows = tables(&mut conn).await;
    let error = load(&mut conn, DemoOptions { allow_existing: true, ..DemoOptions::default() }).await.unwrap_err();
    assert!(matches!(error, Error::Unknown), "{error}");
    assert_eq!(tables(&mut conn).await, rows);
}

#[tokio::test]
async fn a_scale_that_cannot_keep_its_proportions_is_refused() {
    let database = support::database().await;
    let mut conn = database.connect().await;
    let scale = Some(Scale { jobs: 999, regime: Regime::Calm });
    let error = load(&mut conn, DemoOptions { scale, ..DemoOptions::default() }).await.unwrap_err();
    assert_eq!(error.to_string(), "a demo of 999 jobs cannot be made: between 1000 and 20000000, please");
}
