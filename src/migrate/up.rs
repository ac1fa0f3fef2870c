//! Applying what is pending.

use refinery::{Runner, Target};
use sqlx::PgConnection;

use super::{
    Applied, Error, Event, MigrateOptions, driver::Driver, history_table, lock, prepare, run::Run, session::alone,
    status_of,
};

/// Applies what is pending, in order, and returns what it applied: nothing, without a lock, when nothing is pending.
///
/// Safe when several runners start at once: one applies, the others wait for it and find nothing left to do. Each
/// migration is one transaction with its history row. One that cannot be, runs statement by statement, each recorded with
/// what it did; a concurrent index is recorded once it is valid. When this future is dropped, close the connection: it
/// still holds the runner's lock.
///
/// # Errors
/// See [`Error`]; whatever fails, the migrations before it stay applied, and running again goes on from there.
#[tracing::instrument(name = "migrate.up", skip_all)]
pub async fn up(
    conn: &mut PgConnection,
    options: &MigrateOptions,
    mut on_event: impl FnMut(Event<'_>) + Send,
) -> Result<Vec<Applied>, Error> {
    if let Some(target) = options.target
        && options.migrations.get(target).is_none()
    {
        return Err(Error::UnknownTarget { target, newest: options.migrations.newest() });
    }
    let status = status_of(conn, &options.migrations).await?.check()?;
    if status.pending_up_to(options.target).is_empty() {
        return Ok(Vec::new());
    }
    let files: Vec<_> =
        status.pending_up_to(options.target).iter().filter_map(|v| options.migrations.get(*v)).collect();
    alone(conn, options, &files, &mut on_event, async |conn, pid, on_event| locked(conn, pid, options, on_event).await)
        .await
}

/// Applies what is pending, under the runner's lock.
pub(super) async fn locked(
    conn: &mut PgConnection,
    pid: i32,
    options: &MigrateOptions,
    on_event: &mut (impl FnMut(Event<'_>) + Send),
) -> Result<Vec<Applied>, Error> {
    lock::is_held(conn, pid).await?;
    // Again, because another runner may have finished the work while this one waited.
    let status = status_of(conn, &options.migrations).await?.check()?;
    let pending = status.pending_up_to(options.target);
    if pending.is_empty() {
        return Ok(Vec::new());
    }
    prepare::prepare(conn, options.migrations.schema()).await?;
    let mut runner = Runner::new(&options.migrations.to_apply().map_err(|error| Error::Refinery(Box::new(error)))?)
        // A newer version of the library may have applied more.
        .set_abort_missing(false)
        .set_target(options.target.map_or(Target::Latest, Target::Version));
    runner.set_migration_table_name(history_table::table(options.migrations.schema()));
    let run = Run::new(conn, pid, options, on_event).await?;
    let mut driver = Driver::new(run, &options.migrations, pending);
    match runner.run_async(&mut driver).await {
        Ok(_) => Ok(driver.into_applied()),
        Err(error) => Err(driver.into_error(error)),
    }
}
