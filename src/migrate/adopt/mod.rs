//! Working on a database that Coder's own server made and goes on writing to.
//!
//! The versions whose objects that server made are recorded as adopted, with what was compared; then the indexes of the later
//! ones are built like everywhere. Everything else of this layer is in the schema `coderdb`, and [`unadopt`] takes it away again.

mod baseline;
mod migrator;
mod needs;
mod unadopt;

use std::{borrow::Cow, fmt, time::Duration};

use serde::Serialize;
use sqlx::{PgConnection, Row};

use super::{
    Applied, Error, Event, MigrateOptions, Migrations, Object, Status, drift,
    files::File,
    history_table,
    log::quote,
    run::{Index, Run},
    settings,
};
pub(super) use baseline::Baseline;
pub(super) use migrator::{LOCKS, TRY, holders};
pub use needs::Difference;
pub(super) use needs::differences as all_differences;
pub use unadopt::unadopt;

/// The versions that make the closed set of error codes. It is not for databases to which a server writes that may know more.
const ERROR_CODE_CHECK: std::ops::RangeInclusive<i64> = 4..=7;

/// The last version whose objects Coder's own server has made.
const LAST_FOUND: i64 = 7;

/// The constraint that those versions make.
const CONSTRAINT: &str = "provisioner_jobs_error_code_check";

/// How long a look at that version waits for whoever has its table for himself.
const LOOK: Duration = Duration::from_millis(500);

/// What Coder's own migrator says of its database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Coder {
    /// The version of its schema.
    pub version: Option<i64>,
    /// Whether a migration of it has failed halfway.
    pub dirty: bool,
    /// Why there is no version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown: Option<Unknown>,
}

/// Why the version of Coder's schema is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unknown {
    /// This role may not read it.
    Denied,
    /// Somebody has its table for himself, as that server has while it migrates.
    Locked,
    /// Its table has no row.
    Empty,
}

impl Coder {
    const fn unknown(why: Unknown) -> Self {
        Self { version: None, dirty: false, unknown: Some(why) }
    }
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
    fn is_to_be_built(&self, index: &str) -> bool {
        let is_missing =
            |own: &OwnIndex| own.name == index && matches!(own.state, IndexState::Missing | IndexState::Invalid);
        self.indexes.iter().any(is_missing) && gone_below(&self.differences, index).is_none()
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
    /// The indexes that were gone, or invalid, and that were built again.
    pub rebuilt: Vec<String>,
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
        return Ok(Some(Coder::unknown(Unknown::Denied)));
    }
    // Its migrator has this table for itself until all of its files are done.
    let version = format!(
        "SET LOCAL lock_timeout = {}; SELECT version::bigint, dirty FROM schema_migrations ORDER BY version DESC LIMIT 1",
        LOOK.as_millis()
    );
    let rows = match settings::read(conn, &version).await {
        Err(error) if history_table::sqlstate(&error) == Some("55P03") => {
            return Ok(Some(Coder::unknown(Unknown::Locked)));
        }
        rows => rows?,
    };
    let Some(row) = rows.first() else { return Ok(Some(Coder::unknown(Unknown::Empty))) };
    Ok(Some(Coder { version: row.try_get(0)?, dirty: row.try_get(1)?, unknown: None }))
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
    let history = history_table::read_any(conn).await?;
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
    let differences = needs::differences(conn).await?;
    let indexes = indexes(conn, history.baseline.as_ref(), &differences).await?;
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

async fn new_differences(conn: &mut PgConnection, baseline: &Baseline) -> Result<Vec<Difference>, Error> {
    Ok(needs::differences(conn).await?.into_iter().filter(|difference| baseline.is_new(difference)).collect())
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
    let missing = |file: &&File| own_indexes([*file]).any(|(name, _)| examination.is_to_be_built(&name));
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
        let rebuilt = rebuild(conn, pid, options, on_event).await?;
        Ok(Adopted { version: examination.coder.version, recorded, applied, rebuilt })
    })
    .await
}

/// Builds the indexes of versions that are recorded and that are gone, or invalid: whoever drops a column drops its indexes.
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

/// What the owner of the tables is to run where another role adopts: psql runs it, statement by statement.
///
/// # Errors
/// As [`examine`], and [`Error::CannotAdopt`] where something is in the way.
pub async fn owner_sql(conn: &mut PgConnection, how: Adoption) -> Result<String, Error> {
    let examination = examine(conn, how).await?;
    examination.check(Adoption { yes: true, ..how })?;
    let about = "SELECT current_user::text, current_database()::text, to_regnamespace('coderdb') IS NULL \
        AND NOT has_database_privilege(current_database(), 'CREATE')";
    let rows = settings::read(conn, about).await?;
    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    let role: String = row.try_get(0)?;
    let database: String = row.try_get(1)?;
    // A name may have lines, and would go on as SQL.
    let comment = |text: &str| format!("-- {}\n", text.replace(['\r', '\n'], " "));
    let head = format!("As {}, in the database {database}, not in a transaction.", examination.owner);
    let mut sql = vec![comment(&head)];
    sql.extend(examination.warnings().iter().map(|warning| comment(&format!("Then only with --yes: {warning}"))));
    let role = super::log::quote_name(&role);
    if examination.coder.unknown == Some(Unknown::Denied) {
        sql.push(comment(&format!("After unadopt: REVOKE SELECT ON schema_migrations FROM {role};")));
        sql.push(format!("GRANT SELECT ON schema_migrations TO {role};\n"));
    }
    if row.try_get(2)? {
        sql.push(format!("-- By whoever may create schemas there:\nCREATE SCHEMA coderdb AUTHORIZATION {role};\n"));
    }
    for statement in Migrations::embedded().files().iter().flat_map(File::statements) {
        let Some(index) = Index::of(&statement).filter(|index| examination.is_to_be_built(&index.name)) else {
            continue;
        };
        if examination.indexes.iter().any(|own| own.name == index.name && own.state == IndexState::Invalid) {
            sql.push(format!("DROP INDEX CONCURRENTLY {};\n", index.name));
        }
        sql.push(format!("{};\n", statement.text));
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
/// As [`examine`], and [`Error::Unfit`] where there is no such role.
pub async fn grants(conn: &mut PgConnection, role: &str) -> Result<String, Error> {
    examine(conn, Adoption::default()).await?;
    let about = format!(
        "SELECT current_schema()::text, EXISTS (SELECT FROM pg_roles WHERE rolname = {})",
        quote(&role.replace('\0', "\u{fffd}"))
    );
    let rows = settings::read(conn, &about).await?;
    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    if !row.try_get::<bool, _>(1)? {
        return Err(Error::Unfit { reason: format!("there is no role {role:?}: CREATE ROLE first") });
    }
    let schema: String = row.try_get(0)?;
    Ok(needs::grants(&schema, role))
}

/// The indexes that these files build, each with its table.
fn own_indexes<'a>(files: impl IntoIterator<Item = &'a File>) -> impl Iterator<Item = (String, String)> {
    let statements = files.into_iter().filter(|file| file.is_stepwise).flat_map(File::statements);
    let indexes: Vec<_> = statements.filter_map(|statement| Index::of(&statement)).collect();
    indexes.into_iter().filter_map(|index| Some((index.name, index.table?)))
}

/// What this layer has made in an adopted database that differs like this from what the statements need.
pub(super) fn own_objects(baseline: &Baseline, differences: &[Difference]) -> Vec<Object> {
    let migrations = Migrations::embedded();
    let indexes: Vec<_> = own_indexes(migrations.files()).map(|(name, _)| name).collect();
    let is_own = |object: &Object| match object.kind.as_str() {
        "index" => {
            indexes.contains(&object.name)
                && (baseline.indexes.contains_key(&object.name) || gone_below(differences, &object.name).is_none())
        }
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

/// The indexes of this version, and whether they are there: one of such a name is it where PostgreSQL writes it as it was made, or
/// as it was when the database was adopted, or where what it is over has got another name since then.
async fn indexes(
    conn: &mut PgConnection,
    baseline: Option<&Baseline>,
    differences: &[Difference],
) -> Result<Vec<OwnIndex>, Error> {
    let migrations = Migrations::embedded();
    let own: Vec<_> = own_indexes(migrations.files()).collect();
    let names: Vec<_> = own.iter().map(|(name, _)| quote(name)).collect();
    let found = found_indexes(conn, &names).await?;
    let expected = drift::expected();
    let is_it = |name: &str, found: &str| {
        let made = expected.iter().any(|o| o.kind == "index" && o.name == name && o.definition == found);
        let adopted = baseline.is_some_and(|baseline| {
            baseline.indexes.get(name).is_some_and(|definition| definition == found)
                || !found.is_empty() && gone_below(differences, name).is_some()
        });
        made || adopted
    };
    let state = |name: &str| match found.iter().find(|(found, ..)| found == name) {
        None => IndexState::Missing,
        Some((_, _, found)) if !is_it(name, found) => IndexState::Foreign,
        Some((_, true, _)) => IndexState::Built,
        Some((_, false, _)) => IndexState::Invalid,
    };
    Ok(own.into_iter().map(|(name, table)| OwnIndex { state: state(&name), name, table }).collect())
}

/// What is gone of what an index of this layer is over.
fn gone_below<'a>(differences: &'a [Difference], index: &str) -> Option<&'a Object> {
    let expected = drift::expected();
    let index = expected.iter().find(|object| object.kind == "index" && object.name == index)?;
    let table = index.table.as_deref()?;
    let words: Vec<_> = index.definition.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let is_below = |object: &&Object| match &object.table {
        Some(of) => of == table && object.kind == "column" && words.contains(&object.name.as_str()),
        None => object.kind == "table" && object.name == table,
    };
    let gone = differences.iter().filter_map(|difference| match &difference.drift {
        drift::Drift::Missing(object) => Some(object),
        _ => None,
    });
    gone.into_iter().find(is_below)
}

/// The definitions of those that are there and valid, by name, as JSON.
async fn definitions(conn: &mut PgConnection, indexes: &[OwnIndex]) -> Result<serde_json::Value, Error> {
    let built = indexes.iter().filter(|index| index.state == IndexState::Built);
    let names: Vec<_> = built.map(|index| quote(&index.name)).collect();
    let found = found_indexes(conn, &names).await?;
    Ok(found.into_iter().map(|(name, _, found)| (name, found)).collect())
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
    let rows = match settings::read(conn, codes).await {
        // Who may not read the jobs prints what their owner is to run, and the server says it to him.
        Err(error) if history_table::sqlstate(&error) == Some("42501") => Vec::new(),
        rows => rows?,
    };
    Ok(rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, sqlx::Error>>()?)
}

fn cannot(reason: &str) -> Error {
    Error::CannotAdopt { reasons: vec![reason.to_owned()] }
}

impl fmt::Display for Coder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            Some(version) => write!(f, "version {version}"),
            None => f.write_str(match self.unknown {
                Some(Unknown::Locked) => {
                    "a version that nobody can read now, because somebody has schema_migrations for himself"
                }
                Some(Unknown::Empty) => "without a version, because schema_migrations is empty",
                _ => "a version that this role may not read (GRANT SELECT ON schema_migrations)",
            }),
        }
    }
}
