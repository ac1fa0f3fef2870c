//! The migrations of a service beside those of the library: as good, and apart.

use coderdb::{
    migrate::{self, Error, MigrateOptions, Migrations},
    sqlx::{self, AssertSqlSafe, PgConnection},
};
use refinery::{Migration, Runner};

use crate::support::{self, coder};

fn migrations(files: &[(&str, &str)]) -> Result<Migrations, Error> {
    let files: Vec<_> = files.iter().map(|(name, sql)| Migration::unapplied(name, sql).expect("a name")).collect();
    Migrations::of_service(&Runner::new(&files), "billing")
}

const TABLE: (&str, &str) =
    ("V1__invoices", "CREATE TABLE invoices (id bigint PRIMARY KEY, user_id uuid NOT NULL REFERENCES users)");
const INDEX: (&str, &str) = (
    "V2__invoices_by_user",
    "-- coderdb: no-transaction\nCREATE INDEX CONCURRENTLY invoices_by_user ON invoices (user_id);",
);

async fn up(conn: &mut PgConnection, migrations: &Migrations) -> Result<Vec<i64>, Error> {
    let options = MigrateOptions { migrations: migrations.clone(), ..MigrateOptions::default() };
    Ok(migrate::up(conn, &options, |_| {}).await?.iter().map(|applied| applied.version).collect())
}

async fn count(conn: &mut PgConnection, what: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM {what}"))).fetch_one(conn).await.expect("a count")
}

#[tokio::test]
async fn up_of_a_service_keeps_its_own_history_and_leaves_ours_alone() {
    let database = support::database().await.with_sessions();
    let mut conn = database.connect().await;
    let ours = count(&mut conn, "coderdb.migration_log").await;
    let own = migrations(&[TABLE, INDEX]).unwrap();
    let planned = migrate::plan(&mut conn, &own).await.unwrap();
    assert_eq!(planned.iter().map(|planned| planned.name).collect::<Vec<_>>(), ["invoices", "invoices_by_user"]);
    assert_eq!(up(&mut conn, &own).await.unwrap(), [1, 2]);
    assert!(up(&mut conn, &own).await.unwrap().is_empty());

    let status = migrate::status_of(&mut conn, &own).await.unwrap();
    assert!(status.is_current() && status.version == Some(2), "{status:?}");
    assert_eq!(count(&mut conn, "billing.refinery_schema_history").await, 2);
    let done = migrate::history_of(&mut conn, &own).await.unwrap();
    let actions: Vec<_> = done.iter().map(|done| (done.action.as_str(), done.version)).collect();
    assert_eq!(actions, [("applied", Some(1)), ("statement", Some(2)), ("applied", Some(2))]);

    assert_eq!(count(&mut conn, "coderdb.migration_log").await, ours);
    assert!(migrate::status(&mut conn).await.unwrap().is_current());
    let verified = migrate::verify(&mut conn).await.unwrap();
    assert!(verified.is_clean(), "{verified:?}");
    assert!(verified.extras.iter().any(|extra| extra.to_string() == "table invoices"), "{:?}", verified.extras);
    let check = support::run(database.coderdb().args(["migrate", "check"]));
    assert_eq!(check.code, 0, "{}", check.stderr);
}

#[tokio::test]
async fn up_of_a_service_has_the_guarantees_of_ours() {
    let database = support::database().await.with_sessions();
    let mut conn = database.connect().await;
    let broken = ("V2__half", "CREATE TABLE half (a int); SELECT 1 / 0;");
    let refused = up(&mut conn, &migrations(&[TABLE, broken]).unwrap()).await.unwrap_err().to_string();
    assert!(refused.contains("billing/V2__half:1:"), "{refused}");
    let there = "SELECT to_regclass('half')::text";
    assert_eq!(sqlx::query_scalar::<_, Option<String>>(there).fetch_one(&mut conn).await.unwrap(), None);

    // Many at once: each migration is applied once.
    let own = migrations(&[TABLE, INDEX]).unwrap();
    let mut others = [database.connect().await, database.connect().await];
    let [one, two] = &mut others;
    let (first, second, third) = tokio::join!(up(&mut conn, &own), up(one, &own), up(two, &own));
    assert_eq!([first.unwrap(), second.unwrap(), third.unwrap()].concat(), [2]);

    let edited = migrations(&[("V1__invoices", "CREATE TABLE invoices ()"), INDEX]).unwrap();
    assert!(matches!(up(&mut conn, &edited).await, Err(Error::History { .. })));
    let options = MigrateOptions { migrations: edited.clone(), ..MigrateOptions::default() };
    assert_eq!(migrate::accept(&mut conn, &options, 1).await.unwrap(), ["V0001__invoices"]);
    assert!(migrate::status_of(&mut conn, &edited).await.unwrap().is_current());
}

#[tokio::test]
async fn up_of_a_service_works_on_a_database_that_coder_made() {
    let database = coder::database().await.with_sessions();
    let mut conn = database.connect().await;
    assert_eq!(up(&mut conn, &migrations(&[TABLE]).unwrap()).await.unwrap(), [1]);
    assert!(matches!(migrate::status(&mut conn).await, Err(Error::MadeByCoder { .. })));
}

#[test]
fn of_service_refuses_what_could_not_be_applied() {
    let refused = |files: &[(&str, &str)]| migrations(files).unwrap_err().to_string();
    let transaction = refused(&[("V1__a", "BEGIN; SELECT 1; COMMIT")]);
    assert!(transaction.starts_with("billing/V1__a:1:1: "), "{transaction}");
    let twice = refused(&[("V1__a", "SELECT 1"), ("V1__b", "SELECT 1")]);
    assert!(twice.contains("has the version of another"), "{twice}");
    let unversioned = refused(&[("U1__a", "SELECT 1")]);
    assert!(unversioned.contains("only versions from 1 on"), "{unversioned}");
    for schema in ["", "coderdb", "public", "pg_own", "With Space", "a\"b", &"a".repeat(64)] {
        let error = Migrations::of_service(&Runner::new(&[]), schema).unwrap_err().to_string();
        assert!(error.contains("no schema for a history"), "{error}");
    }
}
