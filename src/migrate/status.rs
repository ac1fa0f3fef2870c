//! What is applied, pending and wrong in a database.

use sqlx::PgConnection;

use super::{Error, Migrations, Planned, Status, history_table, plan as plans};

/// What is applied, pending and wrong with this version's migrations. Writes nothing: a role that may only read, and a
/// standby, are enough. One round trip.
///
/// # Errors
/// [`Error::Unavailable`] and [`Error::Sql`]; what is wrong with the history is part of the answer.
#[tracing::instrument(name = "migrate.status", skip_all)]
pub async fn status(conn: &mut PgConnection) -> Result<Status, Error> {
    status_of(conn, &Migrations::embedded()).await
}

/// What is applied, pending and wrong with other migrations; see [`status`].
///
/// # Errors
/// As [`status`].
pub async fn status_of(conn: &mut PgConnection, migrations: &Migrations) -> Result<Status, Error> {
    let history = history_table::read(conn, migrations.schema()).await?;
    Ok(plans::status(&history.migrations, &migrations.as_applied()).with_baseline(history.baseline))
}

/// What [`up`](super::up()) would run, in its order. Writes nothing: its transaction is READ ONLY, unless the
/// caller has begun one. One round trip, as [`status`].
///
/// # Errors
/// As [`status`], and [`Error::History`] and [`Error::TooNew`], which would stop it.
pub async fn plan<'m>(conn: &mut PgConnection, migrations: &'m Migrations) -> Result<Vec<Planned<'m>>, Error> {
    let pending = status_of(conn, migrations).await?.check()?.pending_up_to(None);
    Ok(pending.into_iter().filter_map(|version| migrations.get(version)).map(Planned::of).collect())
}
