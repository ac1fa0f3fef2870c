//! The seam to refinery: nothing else knows its driver traits.

use super::{Applied, Error, Migrations, files::File, history_table, run::Run};
use refinery::Migration;
use refinery_core::{
    AsyncMigrate,
    traits::r#async::{AsyncQuery, AsyncTransaction},
};

/// Carries out what refinery's runner asks for.
pub(super) struct Driver<'a> {
    run: Run<'a>,
    migrations: &'a Migrations,
    /// refinery hands over statements without saying whose they are; it runs these, in this order.
    pending: std::vec::IntoIter<i64>,
    applied: Vec<Applied>,
    /// What went wrong: refinery would give it back as text.
    failure: Option<Error>,
}

/// Says that [`Driver::failure`] has the reason.
#[derive(Debug, thiserror::Error)]
#[error("the driver failed")]
pub(super) struct Failed;

impl<'a> Driver<'a> {
    /// A driver that applies these migrations.
    pub(super) fn new(run: Run<'a>, migrations: &'a Migrations, pending: Vec<i64>) -> Self {
        Self { run, migrations, pending: pending.into_iter(), applied: Vec::new(), failure: None }
    }

    pub(super) fn into_applied(self) -> Vec<Applied> {
        self.applied
    }

    pub(super) fn into_error(self, error: refinery::Error) -> Error {
        self.failure.unwrap_or_else(|| Error::Refinery(Box::new(error)))
    }

    async fn run(&mut self, queries: &[&str]) -> Result<(), Error> {
        // One statement creates the history table, which is there; a migration comes with the statement that records it.
        let [sql, record] = *queries else { return Ok(()) };
        let expected = self.pending.next();
        let file = expected.and_then(|version| self.migrations.get(version)).filter(|file| is_of(file, sql, record));
        let file = file.ok_or_else(|| Error::Mixed { expected, record: record.to_owned() })?;
        self.applied.push(self.run.apply(file, record).await?);
        Ok(())
    }
}

/// Whether refinery hands over this very file, with the row that records it.
fn is_of(file: &File, sql: &str, record: &str) -> bool {
    let (version, name, checksum) = (file.migration.version(), file.migration.name(), file.migration.checksum());
    file.sql() == sql
        && record.contains(&format!("VALUES ({version}, '{name}', '"))
        && record.ends_with(&format!("', '{checksum}')"))
}

impl AsyncTransaction for Driver<'_> {
    type Error = Failed;

    async fn execute<'a, T: Iterator<Item = &'a str> + Send + 'a>(&'a mut self, queries: T) -> Result<usize, Failed> {
        let queries: Vec<&str> = queries.collect();
        match self.run(&queries).await {
            Ok(()) => Ok(queries.len()),
            Err(error) => {
                self.failure = Some(error);
                Err(Failed)
            }
        }
    }
}

impl AsyncQuery<Vec<Migration>> for Driver<'_> {
    async fn query<'a>(&'a mut self, _query: &'a str) -> Result<Vec<Migration>, Failed> {
        history_table::read(self.run.conn, self.migrations.schema()).await.map(|history| history.migrations).map_err(
            |error| {
                self.failure = Some(error);
                Failed
            },
        )
    }
}

impl AsyncMigrate for Driver<'_> {}
