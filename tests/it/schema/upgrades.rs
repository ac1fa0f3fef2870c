//! Upgrades of stored rows.

use coderdb::migrate;

use super::Schema;
use crate::support;

#[tokio::test]
async fn no_later_version_rewrites_the_jobs_table() {
    // Migrations need a session.
    let database = support::empty_database().await.with_sessions();
    let mut conn = database.connect().await;
    migrate::up(&mut conn, &migrate::MigrateOptions { target: Some(1), ..Default::default() }, |_| {})
        .await
        .expect("the base");
    let mut schema = Schema { conn, _database: database };
    schema.run(include_str!("../golden/rows.sql")).await;
    let table = "SELECT pg_relation_filenode('provisioner_jobs')";
    let before = schema.row(table).await;
    schema.run("UPDATE provisioner_jobs SET error_code = 'REQUIRED_TEMPLATE_VARIABLES'").await;
    migrate::up(&mut schema.conn, &migrate::MigrateOptions::default(), |_| {}).await.expect("the rest");
    assert_eq!(schema.row(table).await, before);
    let job = "SELECT error_code, logs_length, logs_overflowed FROM provisioner_jobs";
    assert_eq!(schema.row(job).await, "REQUIRED_TEMPLATE_VARIABLES 0 false");
}

#[tokio::test]
async fn a_stored_error_code_that_no_version_knows_stops_the_upgrade_and_is_named() {
    // Migrations need a session.
    let database = support::empty_database().await.with_sessions();
    let mut conn = database.connect().await;
    migrate::up(&mut conn, &migrate::MigrateOptions { target: Some(3), ..Default::default() }, |_| {})
        .await
        .expect("the base");
    let mut schema = Schema { conn, _database: database };
    schema.run(include_str!("../golden/rows.sql")).await;
    schema.run("SELECT add_job(2), add_job(3); UPDATE provisioner_jobs SET error_code = 'ODD' WHERE id <> u(2)").await;
    let error =
        migrate::up(&mut schema.conn, &migrate::MigrateOptions::default(), |_| {}).await.expect_err("an odd code");
    assert!(error.to_string().contains("does not know: 'ODD' in 2 rows"), "{error}");
    schema.run("UPDATE provisioner_jobs SET error_code = NULL WHERE error_code = 'ODD'").await;
    migrate::up(&mut schema.conn, &migrate::MigrateOptions::default(), |_| {}).await.expect("the rest");
    let unfinished = "SELECT (SELECT count(*) FROM pg_constraint WHERE NOT convalidated) AS c, \
                      (SELECT count(*) FROM pg_index WHERE NOT indisvalid) AS i";
    assert_eq!(schema.row(unfinished).await, "0 0");
}
