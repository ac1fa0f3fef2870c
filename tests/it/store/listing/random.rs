//! Random databases against the model.

use std::sync::Arc;

use fastrand::Rng;
use sqlx::Connection;
use tokio::task::JoinSet;

use crate::support::{
    self,
    listing::compare,
    model::Reached,
    random_database::{self as rows},
    states::{Seed, VACUUM, all_seeds, seeds},
};

const CASES: u64 = 300;
const TASKS: u64 = 4;

/// `CODERDB_TEST_CASES` multiplies the number of databases; `CODERDB_TEST_SEED` picks one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_databases_are_listed_as_the_model_says() {
    let seeds = seeds(CASES);
    let reached = Arc::new(Reached::default());
    let mut tasks: JoinSet<()> = (0..TASKS)
        .map(|task| {
            let (reached, seeds) = (Arc::clone(&reached), seeds.clone());
            async move {
                let database = support::database().await;
                let mut conn = database.connect().await;
                for seed in seeds.filter(|seed| seed % TASKS == task) {
                    let _seed = Seed(seed);
                    let mut rng = Rng::with_seed(seed);
                    let mut transaction = conn.begin().await.unwrap();
                    // What a statement answers must not depend on how it is planned; planning anew takes the longest.
                    let plans = if seed % 17 == 0 { "force_custom_plan" } else { "force_generic_plan" };
                    sqlx::query("SELECT set_config('plan_cache_mode', $1, true)")
                        .bind(plans)
                        .execute(&mut *transaction)
                        .await
                        .unwrap();
                    rows::fill(&mut transaction, &mut rng).await;
                    compare(&mut transaction, &mut rng, &reached).await;
                    transaction.rollback().await.unwrap();
                    if seed / TASKS % 100 == 99 {
                        sqlx::raw_sql(VACUUM).execute(&mut conn).await.unwrap();
                    }
                }
            }
        })
        .collect();
    while let Some(outcome) = tasks.join_next().await {
        if let Err(error) = outcome {
            std::panic::resume_unwind(error.into_panic());
        }
    }
    let counts: Vec<_> = reached.counts().collect();
    for (count, sentence) in &counts {
        println!("{count:>9}  {sentence}");
    }
    if all_seeds() {
        let missed: Vec<_> = counts.iter().filter(|(count, _)| *count == 0).map(|(_, sentence)| sentence).collect();
        assert!(missed.is_empty(), "no random database made these sentences true: {missed:#?}");
    }
}
