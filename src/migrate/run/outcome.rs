//! What became of a commit that got no answer.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, Row};

use crate::migrate::{MigrateOptions, Outcome, sql::quote};

/// How long to find out what became of a commit.
const OUTCOME: Duration = Duration::from_secs(30);

/// What became of a transaction whose commit got no answer.
pub(super) async fn outcome(options: &MigrateOptions, transaction: &str) -> Outcome {
    let Some(observer) = &options.observer else { return Outcome::Unknown };
    let ask = async {
        loop {
            if let Ok(mut conn) = observer.connect().await {
                let status = format!("SELECT pg_xact_status({}::xid8)", quote(transaction));
                let status = sqlx::raw_sql(AssertSqlSafe(status)).fetch_one(&mut conn).await;
                let status = status.and_then(|row| row.try_get::<Option<String>, _>(0));
                let _ = conn.close().await;
                match status.as_ref().map(Option::as_deref) {
                    Ok(Some("committed")) => return Outcome::Committed,
                    Ok(Some("aborted")) => return Outcome::RolledBack,
                    // Still under way, or the server starts.
                    _ => {}
                }
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(OUTCOME, ask).await.unwrap_or(Outcome::Unknown)
}
