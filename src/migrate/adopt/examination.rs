//! A look at a database that is to be adopted.

use sqlx::{PgConnection, Row};

use super::{
    check::{self, CONSTRAINT},
    indexes::{IndexState, OwnIndex, gone_below, indexes},
    needs::{self, Difference},
};
use crate::migrate::{Coder, Error, Unknown, coder::recognize, history_table, settings};

/// How to adopt.
#[derive(Debug, Clone, Copy, Default)]
pub struct Adoption {
    /// Go on where something is to be known first.
    pub yes: bool,
    /// Add the closed set of error codes, too.
    pub error_code_check: bool,
}

/// What was seen of a database that is to be adopted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examination {
    /// What Coder's own migrator says.
    pub coder: Coder,
    /// The version that it was adopted from, if it is adopted.
    pub adopted_from: Option<i64>,
    /// The role that owns the tables.
    pub owner: String,
    /// The version of the server.
    pub server: String,
    /// How it differs from what the statements need.
    pub differences: Vec<Difference>,
    /// The publications of all tables, which publish the schema `coderdb`, too.
    pub publications: Vec<String>,
    /// The indexes of this layer.
    pub indexes: Vec<OwnIndex>,
    /// Error codes that the closed set has not, each with how many jobs have it; empty where that is not to be added.
    pub error_codes: Vec<(String, i64)>,
    /// Whether another constraint has the name of the closed set; only where that is to be added.
    has_other_check: bool,
    accepted: Vec<String>,
}

impl Examination {
    /// What makes it impossible.
    #[must_use]
    pub fn obstacles(&self) -> Vec<String> {
        let mut obstacles = Vec::new();
        if self.coder.dirty {
            obstacles.push("a migration of Coder's own server has failed halfway (schema_migrations.dirty)".to_owned());
        }
        if self.coder.unknown == Some(Unknown::Empty) {
            let why = "schema_migrations is empty, so that nobody knows the version: restore its row, or let Coder's own server write it";
            obstacles.push(why.to_owned());
        }
        let foreign = self.indexes.iter().filter(|index| index.state == IndexState::Foreign);
        obstacles.extend(foreign.map(|index| format!("another index has the name {}: rename or drop it", index.name)));
        // Once it is adopted, what an index is over was accepted to be gone.
        obstacles.extend(self.indexes.iter().filter(|_| self.adopted_from.is_none()).filter_map(|index| {
            let gone = gone_below(&self.differences, &index.name)?;
            Some(format!("{gone} is gone, and the index {} is over it: use a newer coderdb", index.name))
        }));
        let codes = self.error_codes.iter().map(|(code, jobs)| {
            format!("provisioner_jobs.error_code is {code:?} in {jobs} jobs: leave out --with-error-code-check")
        });
        obstacles.extend(codes);
        if self.has_other_check {
            obstacles.push(format!(
                "another constraint has the name {CONSTRAINT}: rename it, or leave out --with-error-code-check"
            ));
        }
        obstacles
    }

    /// What is to be known before anything is done.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let differences = self.differences.iter().map(ToString::to_string);
        let new = differences.filter(|difference| !self.accepted.contains(difference));
        let published = self.publications.iter().filter(|_| self.adopted_from.is_none()).map(|publication| {
            format!(
                "the publication {publication} is FOR ALL TABLES: it publishes the schema coderdb, and a subscriber stops \
                 until it has these tables, too (pg_dump --schema-only --schema=coderdb)"
            )
        });
        new.chain(published).collect()
    }

    /// Whether the index is not as it should be, and can be built.
    pub(super) fn is_to_be_built(&self, index: &str) -> bool {
        let is_missing =
            |own: &OwnIndex| own.name == index && matches!(own.state, IndexState::Missing | IndexState::Invalid);
        self.indexes.iter().any(is_missing) && gone_below(&self.differences, index).is_none()
    }

    pub(super) fn check(&self, how: Adoption) -> Result<(), Error> {
        let obstacles = self.obstacles();
        if !obstacles.is_empty() {
            return Err(Error::CannotAdopt { reasons: obstacles });
        }
        let warnings = self.warnings();
        if warnings.is_empty() || how.yes { Ok(()) } else { Err(Error::Unconfirmed { reasons: warnings }) }
    }
}

/// Looks at a database that is to be adopted, or is; writes nothing.
///
/// # Errors
/// [`Error::CannotAdopt`] where it is not one that Coder's server made; [`Error::Unavailable`] and [`Error::Sql`].
#[tracing::instrument(name = "migrate.examine", skip_all)]
pub async fn examine(conn: &mut PgConnection, how: Adoption) -> Result<Examination, Error> {
    let Some(coder) = recognize(conn).await? else {
        let elsewhere = "SELECT n.nspname::text, current_schema()::text FROM pg_namespace AS n WHERE EXISTS \
            (SELECT FROM pg_class AS c WHERE c.relnamespace = n.oid AND c.relname = 'schema_migrations') AND EXISTS \
            (SELECT FROM pg_class AS c WHERE c.relnamespace = n.oid AND c.relname = 'provisioner_jobs')";
        return Err(match settings::read(conn, elsewhere).await?.first() {
            Some(row) => Error::Elsewhere { home: row.try_get(0)?, current: row.try_get(1)? },
            None => cannot("this is no database that Coder's server made: it has no schema_migrations of it"),
        });
    };
    let history = history_table::read_any(conn, history_table::SCHEMA).await?;
    if history.baseline.is_none() && !history.migrations.is_empty() {
        return Err(cannot(
            "the history of coderdb says that it has migrated this database itself: run `coderdb migrate unadopt`, then adopt",
        ));
    }
    let about = "SELECT pg_get_userbyid(c.relowner)::text, current_setting('server_version'), \
        ARRAY(SELECT pubname::text FROM pg_publication WHERE puballtables ORDER BY 1), \
        nullif(n.nspname, current_schema())::text, current_schema()::text \
        FROM pg_class AS c INNER JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = 'provisioner_jobs'::regclass";
    let row = settings::read(conn, about).await?;
    let row = row.first().ok_or(sqlx::Error::RowNotFound)?;
    let (owner, server, publications) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    if let Some(home) = row.try_get(3)? {
        return Err(Error::Elsewhere { home: Some(home), current: row.try_get(4)? });
    }
    let differences = needs::all_differences(conn).await?;
    let indexes = indexes(conn, history.baseline.as_ref(), &differences).await?;
    let adds_check = how.error_code_check && check::check_state(conn).await? != Some(true);
    let error_codes = if adds_check { check::unknown_codes(conn).await? } else { Vec::new() };
    let is_recorded = history.baseline.as_ref().is_some_and(|baseline| baseline.error_code_check);
    let has_other_check = how.error_code_check && !is_recorded && check::check_is_ours(conn).await? == Some(false);
    let (adopted_from, accepted) = match history.baseline {
        Some(baseline) => (Some(baseline.coder_version), baseline.accepted),
        None => (None, Vec::new()),
    };
    Ok(Examination {
        coder,
        adopted_from,
        owner,
        server,
        differences,
        publications,
        indexes,
        error_codes,
        has_other_check,
        accepted,
    })
}

pub(super) fn cannot(reason: &str) -> Error {
    Error::CannotAdopt { reasons: vec![reason.to_owned()] }
}
