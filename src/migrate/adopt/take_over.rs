//! Taking over a database of Coder's.

use std::borrow::Cow;

use sqlx::PgConnection;

use super::{Adoption, check, examination::examine, indexes::own_indexes, record};
use crate::migrate::{
    Applied, Error, Event, MigrateOptions, files::File, index::Index, lock, run::Run, session::alone, up::locked,
};

/// What [`adopt`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    /// The version of Coder's schema.
    pub version: Option<i64>,
    /// The versions that were recorded without being run.
    pub recorded: Vec<i64>,
    /// What was built after that.
    pub applied: Vec<Applied>,
    /// The indexes that were gone, or invalid, and that were built again.
    pub rebuilt: Vec<String>,
}

/// Takes a database of Coder's over: records what is there, and builds the indexes of this layer beside its users.
///
/// What was done before a failure stays, and running again goes on from there. On a database that is adopted already,
/// after an upgrade of Coder say, it compares anew.
///
/// # Errors
/// [`Error::CannotAdopt`] and [`Error::Unconfirmed`], before anything is written; otherwise as [`up`](crate::migrate::up()).
#[tracing::instrument(name = "migrate.adopt", skip_all)]
pub async fn adopt(
    conn: &mut PgConnection,
    options: &MigrateOptions,
    how: Adoption,
    mut on_event: impl FnMut(Event<'_>) + Send,
) -> Result<Adopted, Error> {
    let examination = examine(conn, how).await?;
    examination.check(how)?;
    let missing = |file: &&File| own_indexes([*file]).any(|(name, _)| examination.is_to_be_built(&name));
    let mut files: Vec<_> = options.migrations.files().iter().filter(missing).collect();
    let check = check::check_file();
    if how.error_code_check && check::check_state(conn).await? != Some(true) {
        files.push(&check);
    }
    alone(conn, options, &files, &mut on_event, async |conn, pid, on_event| {
        lock::is_held(conn, pid).await?;
        let recorded = record::record(conn, options, how).await?;
        if how.error_code_check {
            check::add_check(conn, pid, options, on_event).await?;
        }
        let applied = locked(conn, pid, options, on_event).await?;
        let rebuilt = rebuild(conn, pid, options, on_event).await?;
        Ok(Adopted { version: examination.coder.version, recorded, applied, rebuilt })
    })
    .await
}

/// Builds again the indexes of recorded versions that are gone or invalid. Dropping a column drops its indexes.
async fn rebuild(
    conn: &mut PgConnection,
    pid: i32,
    options: &MigrateOptions,
    on_event: &mut (impl FnMut(Event<'_>) + Send),
) -> Result<Vec<String>, Error> {
    let examination = examine(conn, Adoption::default()).await?;
    let (mut names, mut sql) = (Vec::new(), String::new());
    for statement in options.migrations.files().iter().flat_map(File::statements) {
        if let Some(index) = Index::of(&statement).filter(|index| examination.is_to_be_built(&index.name)) {
            sql = sql + statement.text + ";\n";
            names.push(index.name);
        }
    }
    if names.is_empty() {
        return Ok(names);
    }
    let file = File::new(0, "adopt".to_owned(), 0, Cow::Owned(sql), "adopt".to_owned());
    Run::new(conn, pid, options, on_event).await?.steps(&file, 0, &[]).await?;
    Ok(names)
}
