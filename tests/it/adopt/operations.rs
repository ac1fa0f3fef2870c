//! Every operation on an adopted database, after each upgrade of Coder's own server.

use std::collections::{BTreeMap, BTreeSet};

use coderdb::sqlx::{Connection as _, PgConnection};

use super::{adopt, coder, run, texts, upgrades};
use crate::support::{
    Database,
    operations::{self, Operation},
};

/// Adopted, and what is there for the operations.
async fn world(before: &str) -> Database {
    let (database, mut conn) = coder().await;
    adopt(&database).await;
    run(&mut conn, &operations::what_is_there_after(before)).await;
    conn.close().await.expect("a clean end");
    database
}

/// What an operation does, and takes back: how many rows are as they should be, or its error, and whether it has written before that.
async fn called(conn: &mut PgConnection, operation: &Operation) -> (Result<usize, String>, bool) {
    const STATE: &str = "SELECT * FROM state()";
    let before = if operation.writes { texts(conn, STATE).await } else { Vec::new() };
    let mut transaction = conn.begin().await.expect("a transaction");
    let done = operation.call(&mut transaction).await.map_err(|error| {
        let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        format!("{error}: {source}")
    });
    // What the server has refused has ended the transaction.
    let goes_on = coderdb::sqlx::raw_sql("SELECT").execute(&mut *transaction).await.is_ok();
    let wrote = done.is_err() && operation.writes && goes_on && texts(&mut transaction, STATE).await != before;
    transaction.rollback().await.expect("a clean end");
    (done, wrote)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_every_upgrade_each_operation_works_or_names_what_is_gone() {
    let operations = operations::all().await;
    let befores: BTreeSet<_> = operations.iter().map(|operation| operation.before).collect();
    let (mut usual, mut failed) = (BTreeMap::new(), Vec::new());
    for before in befores {
        let world = world(before).await;
        let operations: Vec<_> = operations.iter().filter(|operation| operation.before == before).collect();
        let mut conn = world.connect().await;
        for operation in &operations {
            let (done, _) = called(&mut conn, operation).await;
            usual.insert(operation.name, done.unwrap_or_else(|error| panic!("{}: {error}", operation.name)));
        }
        conn.close().await.expect("a clean end");
        for upgrade in upgrades::UPGRADES {
            let upgraded = world.copy().await.directly();
            assert_eq!(upgrades::upgraded(&upgraded, upgrade.sql).await, Ok(()), "{}", upgrade.name);
            // What a difference is about: `column provisioner_jobs.input is …`.
            let gone: Vec<_> = upgrade
                .differences
                .iter()
                .map(|difference| difference.split(' ').nth(1).expect("a name").rsplit('.').next().expect("a name"))
                .collect();
            // What is read and written as text in any case goes on.
            let all_work = gone.is_empty() || upgrade.sql.contains("input TYPE json");
            let mut conn = upgraded.connect().await;
            for operation in &operations {
                let (done, wrote) = called(&mut conn, operation).await;
                let is_right = match &done {
                    Ok(rows) => *rows == usual[operation.name],
                    Err(error) => !all_work && !wrote && gone.iter().any(|name| error.contains(name)),
                };
                if !is_right {
                    failed.push(format!("{}: {}: {done:?}, wrote: {wrote}", upgrade.name, operation.name));
                }
            }
        }
    }
    assert!(usual.len() > 90, "{}", usual.len());
    assert!(failed.is_empty(), "{failed:#?}");
}
