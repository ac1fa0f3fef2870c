//! Working on a database that Coder's own server made and goes on writing to.
//!
//! The versions whose objects that server made are recorded as adopted, with what was compared; then the indexes of the later
//! ones are built like everywhere. Everything else of this layer is in the schema `coderdb`, and [`unadopt`] takes it away again.

mod baseline;
mod migrator;
mod needs;
mod unadopt;

use std::fmt;

use serde::Serialize;
use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::{
    Applied, Error, Event, MigrateOptions, Migrations, Object, Status, drift, files::File, history_table, log::quote,
    run::Index, settings,
};
pub(super) use baseline::Baseline;
pub(super) use migrator::{LOCKS, TRY, holders};
pub use needs::Difference;
pub use unadopt::unadopt;

/// The versions that make the closed set of error codes. It is not for databases to which a server writes that may know more.
const ERROR_CODE_CHECK: std::ops::RangeInclusive<i64> = 4..=7;

/// The last version whose objects Coder's own server has made.
const LAST_FOUND: i64 = 7;

/// The constraint that those versions make.
const CONSTRAINT: &str = "provisioner_jobs_error_code_check";

/// What Coder's own migrator says of its database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Coder {
    /// The version of its schema; `None` where this role may not read it, and while that server migrates.
    pub version: Option<i64>,
    /// Whether a migration of it has failed halfway.
    pub dirty: bool,
}

/// How to adopt.
#[derive(Debug, Clone, Copy, Default)]
pub struct Adoption {
    /// Go on where something is to be known first.
    pub yes: bool,
    /// Add the closed set of error codes, too.
    pub error_code_check: bool,
}

/// One of the indexes that this layer adds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OwnIndex {
    /// Its name.
    pub name: String,
    /// Its table.
    pub table: String,
    /// Whether it is there.
    pub state: IndexState,
}

/// Whether an index is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IndexState {
    /// It is to be built.
    Missing,
    /// What a build has left: it is dropped and built.
    Invalid,
    /// It is as this version builds it.
    Built,
    /// Another index has its name.
    Foreign,
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
        let foreign = self.indexes.iter().filter(|index| index.state == IndexState::Foreign);
        obstacles.extend(foreign.map(|index| format!("another index has the name {}: rename it", index.name)));
        obstacles.extend(self.impossible_indexes());
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

    /// The indexes that cannot be built, because what they are over is gone. Where the database is adopted already, an index
    /// went with it, and nothing is built again.
    fn impossible_indexes(&self) -> Vec<String> {
        let expected = drift::expected();
        let gone: Vec<&Object> = self
            .differences
            .iter()
            .filter_map(|difference| match &difference.drift {
                drift::Drift::Missing(object) => Some(object),
                _ => None,
            })
            .collect();
        let mut impossible = Vec::new();
        for index in self.indexes.iter().filter(|_| self.adopted_from.is_none()) {
            let of = |object: &&Object| object.kind == "index" && object.name == index.name;
            let Some(Object { definition, .. }) = expected.iter().find(of) else { continue };
            let words: Vec<_> = definition.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
            let is_over = |object: &&&Object| match &object.table {
                Some(table) => {
                    *table == index.table && object.kind == "column" && words.contains(&object.name.as_str())
                }
                None => object.kind == "table" && object.name == index.table,
            };
            if let Some(object) = gone.iter().find(is_over) {
                impossible
                    .push(format!("{object} is gone, and the index {} is over it: use a newer coderdb", index.name));
            }
        }
        impossible
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

    fn check(&self, how: Adoption) -> Result<(), Error> {
        let obstacles = self.obstacles();
        if !obstacles.is_empty() {
            return Err(Error::CannotAdopt { reasons: obstacles });
        }
        let warnings = self.warnings();
        if warnings.is_empty() || how.yes { Ok(()) } else { Err(Error::Unconfirmed { reasons: warnings }) }
    }
}

/// What [`adopt`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    /// The version of Coder's schema.
    pub version: Option<i64>,
    /// The versions that were recorded without being run.
    pub recorded: Vec<i64>,
    /// What was built after that.
    pub applied: Vec<Applied>,
}

/// What Coder's own migrator says of this database, if it is one of its making. Reads only.
pub(super) async fn recognize(conn: &mut PgConnection) -> Result<Option<Coder>, Error> {
    let look = "SELECT has_table_privilege(c.oid, 'SELECT') FROM pg_class AS c \
        WHERE c.oid = to_regclass('schema_migrations') AND to_regclass('provisioner_jobs') IS NOT NULL \
        AND to_regclass('workspace_builds') IS NOT NULL AND to_regclass('site_configs') IS NOT NULL \
        AND (SELECT count(*) FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attname IN ('version', 'dirty')) = 2";
    let rows = settings::read(conn, look).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    if !row.try_get::<bool, _>(0)? {
        return Ok(Some(Coder { version: None, dirty: false }));
    }
    // Its migrator has this table for itself until all of its files are done.
    let version = "SET LOCAL lock_timeout = '500ms'; \
        SELECT version::bigint, dirty FROM schema_migrations ORDER BY version DESC LIMIT 1";
    let rows = match settings::read(conn, version).await {
        Err(error) if history_table::sqlstate(&error) == Some("55P03") => Vec::new(),
        rows => rows?,
    };
    let Some(row) = rows.first() else { return Ok(Some(Coder { version: None, dirty: false })) };
    Ok(Some(Coder { version: row.try_get(0)?, dirty: row.try_get(1)? }))
}

/// Looks at a database that is to be adopted, or is; writes nothing.
///
/// # Errors
/// [`Error::CannotAdopt`] where it is not one that Coder's server made; [`Error::Unavailable`] and [`Error::Sql`].
#[tracing::instrument(name = "migrate.examine", skip_all)]
pub async fn examine(conn: &mut PgConnection, how: Adoption) -> Result<Examination, Error> {
    let Some(coder) = recognize(conn).await? else {
        return Err(cannot("this is no database that Coder's server made: it has no schema_migrations of it"));
    };
    let history = history_table::read_any(conn).await?;
    if history.baseline.is_none() && !history.migrations.is_empty() {
        return Err(cannot(
            "the history of coderdb says that it has migrated this database itself: run `coderdb migrate unadopt`, then adopt",
        ));
    }
    let about = "SELECT pg_get_userbyid(c.relowner)::text, current_setting('server_version'), \
        ARRAY(SELECT pubname::text FROM pg_publication WHERE puballtables ORDER BY 1), \
        nullif(c.relnamespace::regnamespace::text, quote_ident(current_schema())) \
        FROM pg_class AS c WHERE c.oid = 'provisioner_jobs'::regclass";
    let row = settings::read(conn, about).await?;
    let row = row.first().ok_or(sqlx::Error::RowNotFound)?;
    let (owner, server, publications) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    if let Some(home) = row.try_get(3)? {
        let current = sqlx::raw_sql("SELECT current_schema()::text").fetch_one(conn).await?.try_get(0)?;
        return Err(Error::Elsewhere { home: Some(home), current });
    }
    let differences = needs::differences(conn).await?;
    let indexes = indexes(conn, history.baseline.is_some()).await?;
    let adds_check = how.error_code_check && baseline::check_state(conn).await? != Some(true);
    let error_codes = if adds_check { unknown_codes(conn).await? } else { Vec::new() };
    let is_recorded = history.baseline.as_ref().is_some_and(|baseline| baseline.error_code_check);
    let has_other_check = how.error_code_check && !is_recorded && baseline::check_is_ours(conn).await? == Some(false);
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

/// How an adopted database with this status differs from what was accepted when it was adopted; empty for one that fits, and for one
/// that this layer made itself. Writes nothing; one round trip.
///
/// # Errors
/// [`Error::Unavailable`] and [`Error::Sql`]; [`Error::MigratorBusy`] while Coder's own server alters a table.
pub async fn differences(conn: &mut PgConnection, status: &Status) -> Result<Vec<Difference>, Error> {
    match &status.baseline {
        Some(baseline) => new_differences(conn, baseline).await,
        None => Ok(Vec::new()),
    }
}

pub(super) async fn new_differences(conn: &mut PgConnection, baseline: &Baseline) -> Result<Vec<Difference>, Error> {
    let mut differences = needs::differences(conn).await?;
    differences.retain(|difference| !baseline.accepted.contains(&difference.to_string()));
    Ok(differences)
}

/// Takes a database of Coder's over: records what is there, and builds the indexes of this layer beside its users.
///
/// What was done before a failure stays, and running again goes on from there. On a database that is adopted already, after an
/// upgrade of Coder say, it compares anew.
///
/// # Errors
/// [`Error::CannotAdopt`] and [`Error::Unconfirmed`], before anything is written; otherwise as [`up`](super::up()).
#[tracing::instrument(name = "migrate.adopt", skip_all)]
pub async fn adopt(
    conn: &mut PgConnection,
    options: &MigrateOptions,
    how: Adoption,
    mut on_event: impl FnMut(Event<'_>) + Send,
) -> Result<Adopted, Error> {
    let examination = examine(conn, how).await?;
    examination.check(how)?;
    let missing = |file: &&File| {
        own_indexes([*file]).any(|(name, _)| {
            examination.indexes.iter().any(|index| index.name == name && index.state != IndexState::Built)
        })
    };
    let mut files: Vec<_> = options.migrations.files().iter().filter(missing).collect();
    let check = baseline::check_file();
    if how.error_code_check && baseline::check_state(conn).await? != Some(true) {
        files.push(&check);
    }
    super::alone(conn, options, &files, &mut on_event, async |conn, pid, on_event| {
        super::lock::is_held(conn, pid).await?;
        let recorded = baseline::record(conn, options, how).await?;
        if how.error_code_check {
            baseline::add_check(conn, pid, options, on_event).await?;
        }
        let applied = super::locked(conn, pid, options, on_event).await?;
        Ok(Adopted { version: examination.coder.version, recorded, applied })
    })
    .await
}

/// What the owner of the tables is to run where another role adopts: psql runs it, statement by statement.
///
/// # Errors
/// As [`examine`].
pub async fn owner_sql(conn: &mut PgConnection, how: Adoption) -> Result<String, Error> {
    let Examination { coder, owner, indexes, .. } = examine(conn, Adoption::default()).await?;
    let about = "SELECT current_user::text, current_database()::text, to_regnamespace('coderdb') IS NULL \
        AND NOT has_database_privilege(current_database(), 'CREATE')";
    let rows = settings::read(conn, about).await?;
    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    let role: String = row.try_get(0)?;
    let database: String = row.try_get(1)?;
    let mut sql = vec![format!("-- As {owner}, in the database {database}, not in a transaction.\n")];
    let role = super::log::quote_name(&role);
    if coder.version.is_none() {
        sql.push(format!("GRANT SELECT ON schema_migrations TO {role};\n"));
    }
    if row.try_get(2)? {
        sql.push(format!("-- By whoever may create schemas there:\nCREATE SCHEMA coderdb AUTHORIZATION {role};\n"));
    }
    for file in Migrations::embedded().files() {
        for statement in file.statements() {
            let Some(index) = Index::of(&statement) else { continue };
            let state = indexes.iter().find(|own| own.name == index.name).map(|own| own.state);
            if state == Some(IndexState::Invalid) {
                sql.push(format!("DROP INDEX CONCURRENTLY {};\n", index.name));
            }
            if state != Some(IndexState::Built) {
                sql.push(format!("{};\n", statement.text));
            }
        }
    }
    if how.error_code_check {
        let done = baseline::check_state(conn).await?.map_or(0, |is_proved| 1 + usize::from(is_proved));
        sql.extend(baseline::CHECK.split_inclusive(";\n").skip(done).map(str::to_owned));
    }
    Ok(sql.concat())
}

/// What a role is to be granted that services work as, in SQL.
///
/// # Errors
/// [`Error::Unavailable`] and [`Error::Sql`].
pub async fn grants(conn: &mut PgConnection, role: &str) -> Result<String, Error> {
    let rows = settings::read(conn, "SELECT coalesce(current_schema(), 'public')::text").await?;
    let schema: String = rows.first().ok_or(sqlx::Error::RowNotFound)?.try_get(0)?;
    Ok(needs::grants(&schema, role))
}

/// The indexes that these files build, each with its table.
fn own_indexes<'a>(files: impl IntoIterator<Item = &'a File>) -> impl Iterator<Item = (String, String)> {
    let statements = files.into_iter().filter(|file| file.is_stepwise).flat_map(File::statements);
    let indexes: Vec<_> = statements.filter_map(|statement| Index::of(&statement)).collect();
    indexes.into_iter().filter_map(|index| Some((index.name, index.table?)))
}

/// What this layer has made in an adopted database.
pub(super) fn own_objects(baseline: &Baseline) -> Vec<Object> {
    let migrations = Migrations::embedded();
    let indexes: Vec<_> = own_indexes(migrations.files()).map(|(name, _)| name).collect();
    let is_own = |object: &Object| match object.kind.as_str() {
        "index" => indexes.contains(&object.name),
        "constraint" => baseline.error_code_check && object.name == CONSTRAINT,
        _ => false,
    };
    let mut own: Vec<_> = drift::expected().into_iter().filter(is_own).collect();
    for object in &mut own {
        // An upgrade may have given another name to a column of it before the last adoption.
        if let Some(definition) = baseline.indexes.get(&object.name) {
            object.definition.clone_from(definition);
        }
    }
    own
}

/// The indexes of this version, and whether they are there. Once the database is adopted, whatever has such a name is one, also with
/// columns that an upgrade has given other names.
async fn indexes(conn: &mut PgConnection, is_adopted: bool) -> Result<Vec<OwnIndex>, Error> {
    let migrations = Migrations::embedded();
    let own: Vec<_> = own_indexes(migrations.files()).collect();
    let names: Vec<_> = own.iter().map(|(name, _)| quote(name)).collect();
    let found = found_indexes(conn, &names).await?;
    let expected = drift::expected();
    let definition = |name: &str| {
        let is_it = |object: &&Object| object.kind == "index" && object.name == name;
        expected.iter().find(is_it).map(|object| object.definition.as_str())
    };
    let state = |name: &str| match found.iter().find(|(found, ..)| found == name) {
        None => IndexState::Missing,
        Some((_, _, found)) if !is_adopted && Some(found.as_str()) != definition(name) => IndexState::Foreign,
        Some((_, true, _)) => IndexState::Built,
        Some((_, false, _)) => IndexState::Invalid,
    };
    Ok(own.into_iter().map(|(name, table)| OwnIndex { state: state(&name), name, table }).collect())
}

/// The definitions of those that are there and valid, by name, as JSON.
async fn definitions(
    conn: &mut PgConnection,
    names: impl Iterator<Item = &String>,
) -> Result<serde_json::Value, Error> {
    let names: Vec<_> = names.map(|name| quote(name)).collect();
    let found = found_indexes(conn, &names).await?;
    Ok(found.into_iter().filter(|(_, is_valid, _)| *is_valid).map(|(name, _, found)| (name, found)).collect())
}

/// The relations with these quoted names, whether each is a valid index, and its definition.
async fn found_indexes(conn: &mut PgConnection, names: &[String]) -> Result<Vec<(String, bool, String)>, Error> {
    let look = format!(
        "SELECT x.relname::text, coalesce(i.indisvalid AND i.indisready, false), coalesce(pg_get_indexdef(x.oid, 0, true), '') \
         FROM pg_class AS x LEFT JOIN pg_index AS i ON i.indexrelid = x.oid \
         WHERE x.relnamespace = quote_ident(current_schema())::regnamespace AND x.relname = ANY (ARRAY[{}]::text[])",
        names.join(", ")
    );
    let rows = settings::read(conn, &look).await?;
    let found = rows.iter().map(|row| {
        let definition: String = row.try_get(2)?;
        Ok((row.try_get(0)?, row.try_get(1)?, without_schema(&definition)))
    });
    Ok(found.collect::<Result<_, sqlx::Error>>()?)
}

/// The definition of an index as it is where its table is on the search path.
fn without_schema(definition: &str) -> String {
    let Some((before, rest)) = definition.split_once(" ON ") else { return definition.to_owned() };
    let (table, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    format!("{before} ON {} {rest}", table.rsplit_once('.').map_or(table, |(_, table)| table))
}

/// The error codes that jobs have and the closed set has not.
async fn unknown_codes(conn: &mut PgConnection) -> Result<Vec<(String, i64)>, Error> {
    let codes = "SELECT error_code, count(*) FROM provisioner_jobs WHERE error_code NOT IN \
        ('MISSING_TEMPLATE_PARAMETER', 'REQUIRED_TEMPLATE_VARIABLES', 'INSUFFICIENT_QUOTA') GROUP BY 1 ORDER BY 1";
    let rows = settings::read(conn, codes).await?;
    Ok(rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, sqlx::Error>>()?)
}

fn cannot(reason: &str) -> Error {
    Error::CannotAdopt { reasons: vec![reason.to_owned()] }
}

impl fmt::Display for Coder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            Some(version) => write!(f, "version {version}"),
            None => f.write_str("a version that cannot be read now, or not by this role"),
        }
    }
}

async fn batch(conn: &mut PgConnection, sql: &str) -> Result<(), Error> {
    let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *conn).await;
    if done.is_err() {
        // Whatever was begun; without a transaction, a warning.
        let _ = sqlx::raw_sql("ROLLBACK").execute(conn).await;
    }
    Ok(done.map(drop)?)
}
