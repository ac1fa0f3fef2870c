//! What is read on adopted databases is what the model says, before and after upgrades of Coder.

mod keys;
mod prebuilds;
mod pruning;
mod queue;
mod rows;
mod things;
mod work;
mod world;

use coderdb::sqlx::{Connection as _, PgConnection};
use fastrand::Rng;

use super::{adopt, coder, run, upgrades};
use crate::support::{
    self, Database, listing,
    model::Reached,
    operations::names,
    random_database::STALE,
    snapshot::compare_snapshot,
    states::{Classes, Seed, seeds},
};

/// `CODERDB_TEST_CASES` multiplies it.
const DATABASES: u64 = 20;

async fn compare(database: &Database, seeds: impl Iterator<Item = u64>, classes: &Classes) {
    let mut conn: PgConnection = database.connect().await;
    let reached = Reached::default();
    for seed in seeds {
        let _seed = Seed(seed);
        let mut rng = Rng::with_seed(seed);
        let mut transaction = conn.begin().await.expect("a transaction");
        rows::fill(&mut transaction, &mut rng).await;
        listing::compare(&mut transaction, &mut rng, &reached).await;
        let owner = support::site_owner(&mut transaction).await;
        let world = world::World::read(&mut transaction, classes).await;
        let organizations = world.ids("organizations");
        let stale = STALE.unsigned_abs();
        compare_snapshot(&mut transaction, &world.model, &organizations, stale, &Classes::default()).await;
        let mut people = things::people(&mut transaction, &world).await;
        assert!(people.contains(&owner));
        things::compare(&mut transaction, &world, &people).await;
        keys::compare(&mut transaction, &world, &people).await;
        prebuilds::compare(&mut transaction, &world).await;
        queue::compare(&mut transaction, &world).await;
        pruning::compare(&mut transaction, &world).await;
        people.retain(|who| *who != owner);
        work::compare(&mut transaction, &world, &people, &mut rng).await;
        transaction.rollback().await.expect("a clean end");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_adopted_databases_are_listed_as_the_model_says_before_and_after_upgrades() {
    let (database, conn) = coder().await;
    adopt(&database).await;
    let classes = Classes::default();
    compare(&database, seeds(DATABASES).step_by(2), &classes).await;
    conn.close().await.expect("a clean end");
    // All that every operation goes on after, one after the other.
    let ours = upgrades::UPGRADES
        .iter()
        .filter(|upgrade| upgrade.differences.is_empty() || upgrade.sql.contains("input TYPE json"));
    let mut count = 0;
    for upgrade in ours {
        assert_eq!(upgrades::upgraded(&database, upgrade.sql).await, Ok(()), "{}", upgrade.name);
        count += 1;
    }
    assert!(count > 10, "{count}");
    // The rows of the test know nothing of it.
    run(&mut database.connect().await, "ALTER TABLE organizations ALTER default_org_member_roles SET DEFAULT '{}'")
        .await;
    compare(&database, seeds(DATABASES).skip(1).step_by(2), &classes).await;
    classes.all_met();
}

/// Whoever adds an operation that reads adds what it should answer.
#[test]
fn every_operation_that_reads_is_compared() {
    let sources = [
        include_str!("keys.rs"),
        include_str!("prebuilds.rs"),
        include_str!("pruning.rs"),
        include_str!("queue.rs"),
        include_str!("things.rs"),
        include_str!("work.rs"),
        include_str!("../../support/listing.rs"),
        include_str!("../../support/snapshot.rs"),
    ]
    .concat();
    let is_compared = |name: &String| sources.contains(&format!("store::{name}("));
    // What `cancel_batch` would do, and what only tells others.
    let others = ["jobs::would_cancel_batch", "changes::announce", "licenses::refresh"];
    let reads = names::public_operations().into_iter().filter(|name| {
        !names::WRITES.contains(&name.as_str())
            && !name.starts_with("transaction::")
            && !name.starts_with("runner::")
            && !others.contains(&name.as_str())
    });
    let missing: Vec<_> = reads.filter(|name| !is_compared(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
