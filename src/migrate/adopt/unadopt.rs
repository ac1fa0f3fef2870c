//! Taking everything of this layer away from a database that Coder's own server made.

use std::borrow::Cow;

use sqlx::{AssertSqlSafe, PgConnection};

use super::{CONSTRAINT, IndexState, batch, cannot, indexes, migrator, recognize};
use crate::migrate::{Error, Event, Options, alone, files::File, history_table, lock, run::Run};

/// Removes the indexes of this layer, its constraint, and the schema `coderdb`. Returns what it removed; nothing when nothing of it
/// was there. What was done before a failure stays done, and running again goes on.
///
/// # Errors
/// [`Error::CannotAdopt`] for a database that this layer made itself; otherwise as [`up`](crate::migrate::up()).
#[tracing::instrument(name = "migrate.unadopt", skip_all)]
pub async fn unadopt(
    conn: &mut PgConnection,
    options: &Options,
    mut on_event: impl FnMut(Event<'_>) + Send,
) -> Result<Vec<String>, Error> {
    if recognize(conn).await?.is_none() {
        return Err(cannot("this is no database that Coder's server made: nothing of it can be taken away"));
    }
    if !is_there(conn).await? {
        return Ok(Vec::new());
    }
    let baseline = history_table::read_any(conn).await?.baseline;
    let own = indexes(conn, baseline.is_some()).await?;
    let has_check = baseline.is_some_and(|baseline| baseline.error_code_check);
    let own = own.iter().filter(|index| matches!(index.state, IndexState::Built | IndexState::Invalid));
    let mut removed: Vec<_> = own.clone().map(|index| format!("index {}", index.name)).collect();
    let mut sql: Vec<_> = own.map(|index| format!("DROP INDEX CONCURRENTLY IF EXISTS {};", index.name)).collect();
    if has_check {
        sql.push(format!("ALTER TABLE provisioner_jobs DROP CONSTRAINT IF EXISTS {CONSTRAINT};"));
        removed.push(format!("constraint provisioner_jobs.{CONSTRAINT}"));
    }
    removed.push("schema coderdb".to_owned());
    let file = File::new(0, "unadopt".to_owned(), 0, Cow::Owned(sql.join("\n")), "unadopt".to_owned());
    alone(conn, options, &[&file], &mut on_event, async |conn, pid, on_event| {
        lock::is_held(conn, pid).await?;
        if !is_there(conn).await? {
            return Ok(Vec::new());
        }
        Run::new(conn, pid, options, on_event).await?.steps(&file, 0, &[]).await?;
        migrator::begin(conn, options).await?;
        // Without CASCADE: what somebody else has put there is named, and stays.
        let drop = format!(
            "DROP TABLE IF EXISTS coderdb.baseline, coderdb.migration_log, {}; DROP SCHEMA coderdb; COMMIT",
            history_table::TABLE
        );
        batch(conn, &drop).await?;
        Ok(removed)
    })
    .await
}

/// Whether there is anything of this layer.
async fn is_there(conn: &mut PgConnection) -> Result<bool, Error> {
    let schema = sqlx::raw_sql(AssertSqlSafe("SELECT FROM pg_namespace WHERE nspname = 'coderdb'".to_owned()));
    Ok(schema.fetch_optional(conn).await?.is_some())
}
