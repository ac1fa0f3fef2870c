//! Many random states, each from a seed, compared with a model; and what there must be among them.

use std::{collections::BTreeMap, ops::Range, panic, sync::Mutex, thread};

use coderdb::sqlx::{self, Connection, PgConnection};

use super::database;

/// How many states a comparison makes; `CODERDB_TEST_CASES` multiplies it, and `./test --all` sets that to five.
pub const STATES: u64 = 10_000;
/// Where each state takes milliseconds.
pub const SLOW_STATES: u64 = 2_000;
const WORKERS: usize = 2;

/// What was rolled back still lies in the tables.
pub const VACUUM: &str = "VACUUM users, organization_members, groups, group_members, templates, template_versions, \
    workspaces, workspace_builds, workspace_agents, workspace_agent_logs, provisioner_daemons, provisioner_jobs, \
    provisioner_job_logs";

/// The seeds of so many states; `CODERDB_TEST_SEED` picks one.
pub fn seeds(states: u64) -> Range<u64> {
    let all = 0..states * number_from_env("CODERDB_TEST_CASES").unwrap_or(1);
    number_from_env("CODERDB_TEST_SEED").map_or(all, |seed| seed..seed + 1)
}

/// Whether all states are made, so that every class must be among them.
pub fn all_seeds() -> bool {
    number_from_env("CODERDB_TEST_SEED").is_none()
}

pub fn number_from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

/// Says which state failed, after whatever assertion says how.
pub struct Seed(pub u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if thread::panicking() {
            let test = thread::current().name().unwrap_or_default().to_owned();
            eprintln!("\n{test}: this was state {0}; CODERDB_TEST_SEED={0} makes it again, alone.\n", self.0);
        }
    }
}

/// Sentences about states, and of how many each was true. One that was never true makes a comparison vacuous.
#[derive(Default)]
pub struct Classes(Mutex<BTreeMap<&'static str, u64>>);

impl Classes {
    pub fn note(&self, sentence: &'static str, when: bool) {
        *self.0.lock().expect("nobody panics here").entry(sentence).or_default() += u64::from(when);
    }

    pub fn all_met(&self) {
        let classes = self.0.lock().expect("nobody panics here");
        for (sentence, count) in &*classes {
            println!("{count:>9}  {sentence}");
        }
        if all_seeds() {
            let missed: Vec<_> = classes.iter().filter(|(_, count)| **count == 0).collect();
            assert!(missed.is_empty(), "no random state made these sentences true: {missed:#?}");
        }
    }
}

/// Compares so many states in a few databases with `golden/rows.sql`, a second organization and a key each, so
/// many in one transaction, which is rolled back.
pub fn compare(count: u64, at_once: usize, states: impl AsyncFn(&mut PgConnection, &[u64], &Classes) + Sync) {
    let seeds: Vec<u64> = seeds(count).collect();
    let classes = Classes::default();
    let name = thread::current().name().unwrap_or_default().to_owned();
    thread::scope(|scope| {
        let worker = |number| {
            let batches = seeds.chunks(at_once).skip(number).step_by(WORKERS);
            let (states, classes) = (&states, &classes);
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(async {
                    let database = database().await;
                    let mut conn = database.connect().await;
                    sqlx::raw_sql(concat!(
                        include_str!("../golden/rows.sql"),
                        "SELECT add_organization(2);
                         INSERT INTO provisioner_keys (id, created_at, organization_id, name, hashed_secret, tags)
                         SELECT id, created_at, id, 'key', '', '{}' FROM organizations"
                    ))
                    .execute(&mut conn)
                    .await
                    .expect("the rows");
                    for (n, batch) in batches.enumerate() {
                        // What a statement answers must not depend on how it is planned; planning anew takes longer.
                        let begin = if batch[0] % 17 == 0 {
                            "BEGIN ISOLATION LEVEL SERIALIZABLE; SET LOCAL plan_cache_mode = force_custom_plan"
                        } else {
                            "BEGIN ISOLATION LEVEL SERIALIZABLE; SET LOCAL plan_cache_mode = force_generic_plan"
                        };
                        let mut transaction = conn.begin_with(begin).await.expect("a transaction");
                        states(&mut transaction, batch, classes).await;
                        transaction.rollback().await.expect("the end");
                        if (n * at_once).is_multiple_of(200) {
                            sqlx::raw_sql(VACUUM).execute(&mut conn).await.expect("clean tables");
                        }
                    }
                });
            }
        };
        let spawn =
            |number| thread::Builder::new().name(name.clone()).spawn_scoped(scope, worker(number)).expect("a thread");
        let workers: Vec<_> = (0..WORKERS).map(spawn).collect();
        for worker in workers {
            if let Err(reason) = worker.join() {
                panic::resume_unwind(reason);
            }
        }
    });
    classes.all_met();
}
