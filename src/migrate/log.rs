//! What was done to the schema, by whom: a table beside refinery's history, to which rows are only added.

use serde::Serialize;
use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::{Error, history_table, settings};

/// Created with the history, under the runner's lock.
pub(super) const CREATE: &str = "CREATE TABLE coderdb.migration_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    action text NOT NULL,
    version bigint,
    name text,
    statement integer,
    checksum text,
    milliseconds bigint,
    delay_milliseconds bigint,
    role text NOT NULL DEFAULT session_user,
    application text NOT NULL DEFAULT current_setting('application_name'),
    address text NOT NULL DEFAULT coalesce(host(inet_client_addr()), 'local'),
    host text,
    program text NOT NULL,
    schema text NOT NULL
)";

/// The library, and its version.
const PROGRAM: &str = concat!("coderdb ", env!("CARGO_PKG_VERSION"));

/// Something that was done to the schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Done {
    /// When, in RFC 3339.
    pub at: String,
    /// What: `applied` a migration, or one `statement` of it; `accepted` another checksum, `marked` as applied,
    /// `dropped` an invalid index.
    pub action: String,
    /// The version of the migration, if it was one.
    pub version: Option<i64>,
    /// Its name, or that of the index.
    pub name: Option<String>,
    /// Which statement of the migration, from 1.
    pub statement: Option<i32>,
    /// How long it took, in milliseconds; `None` where the history has only refinery's row.
    pub milliseconds: Option<i64>,
    /// The longest that it delayed anybody else's statement, in milliseconds; `None` where nobody looked.
    pub delay_milliseconds: Option<i64>,
    /// The role that did it.
    pub role: Option<String>,
    /// What its session called itself.
    pub application: Option<String>,
    /// Where it came from: an address, or `local` for a socket.
    pub address: Option<String>,
    /// The name of its machine, or of its container.
    pub host: Option<String>,
    /// Which program did it, in which version.
    pub program: Option<String>,
    /// In which schema.
    pub schema: Option<String>,
}

/// A row to add.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct New<'a> {
    pub(super) action: &'a str,
    pub(super) version: Option<i64>,
    pub(super) name: &'a str,
    pub(super) statement: Option<usize>,
    pub(super) checksum: Option<u64>,
    pub(super) milliseconds: Option<u64>,
    pub(super) delay_milliseconds: Option<u64>,
    pub(super) host: Option<&'a str>,
}

impl New<'_> {
    /// The statement that adds the row, to be sent with others.
    pub(super) fn sql(&self) -> String {
        let number = |number: Option<String>| number.unwrap_or_else(|| "NULL".to_owned());
        format!(
            "INSERT INTO coderdb.migration_log \
             (action, version, name, statement, checksum, milliseconds, delay_milliseconds, host, program) \
             VALUES ({}, {}, {}, {}, {}, {}, {}, {}, {})",
            quote(self.action),
            number(self.version.map(|version| version.to_string())),
            quote(self.name),
            number(self.statement.map(|statement| statement.to_string())),
            number(self.checksum.map(|checksum| quote(&checksum.to_string()))),
            number(self.milliseconds.map(|milliseconds| milliseconds.to_string())),
            number(self.delay_milliseconds.map(|milliseconds| milliseconds.to_string())),
            number(self.host.map(quote)),
            quote(PROGRAM),
        )
    }
}

/// A text as SQL writes it, whatever the settings of the session.
pub(super) fn quote(text: &str) -> String {
    // A doubled quote, because `backslash_quote` may forbid the other way.
    format!("E'{}'", text.replace('\0', "").replace('\\', "\\\\").replace('\'', "''"))
}

/// A name as SQL writes it, whatever it holds.
pub(super) fn quote_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The statements of a migration that are done though the migration is not, with their checksums.
pub(super) async fn statements(conn: &mut PgConnection, version: i64) -> Result<Vec<(usize, u64)>, Error> {
    let sql = format!(
        "SELECT statement, checksum FROM coderdb.migration_log WHERE action = 'statement' AND version = {version} \
         AND id > coalesce((SELECT max(id) FROM coderdb.migration_log \
                            WHERE version = {version} AND action IN ('applied', 'marked')), 0)"
    );
    let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(conn).await?;
    rows.iter()
        .map(|row| {
            let malformed = || Error::MalformedHistory { version };
            let statement = usize::try_from(row.try_get::<i32, _>(0)?).map_err(|_| malformed())?;
            Ok((statement, row.try_get::<String, _>(1)?.parse().map_err(|_| malformed())?))
        })
        .collect()
}

/// What was done to the schema, the oldest first: what the log says, and for what was done before there was one, what
/// refinery's history says. Two round trips; writes nothing.
///
/// # Errors
/// [`Error::Unavailable`], [`Error::Sql`] and [`Error::MalformedHistory`].
pub async fn history(conn: &mut PgConnection) -> Result<Vec<Done>, Error> {
    let applied = history_table::read(conn).await?.migrations;
    let columns = "SELECT to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') AS at, action, version, name, \
                   statement, milliseconds, delay_milliseconds, role, application, address, host, program, schema \
                   FROM coderdb.migration_log ORDER BY id";
    let logged = match settings::read(conn, columns).await {
        Ok(rows) => rows,
        Err(error) if history_table::is_missing(&error) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let mut done = Vec::with_capacity(logged.len());
    for row in &logged {
        done.push(Done {
            at: row.try_get(0)?,
            action: row.try_get(1)?,
            version: row.try_get(2)?,
            name: row.try_get(3)?,
            statement: row.try_get(4)?,
            milliseconds: row.try_get(5)?,
            delay_milliseconds: row.try_get(6)?,
            role: row.try_get(7)?,
            application: row.try_get(8)?,
            address: row.try_get(9)?,
            host: row.try_get(10)?,
            program: row.try_get(11)?,
            schema: row.try_get(12)?,
        });
    }
    let is_logged = |version: i64| {
        let of = |done: &&Done| done.version == Some(version) && done.statement.is_none();
        done.iter().any(|done| of(&done))
    };
    let before: Vec<_> = applied
        .iter()
        .filter(|migration| !is_logged(migration.version()))
        .map(|migration| Done {
            at: history_table::applied_on(migration).unwrap_or_default(),
            action: "applied".to_owned(),
            version: Some(migration.version()),
            name: Some(migration.name().to_owned()),
            statement: None,
            milliseconds: None,
            delay_milliseconds: None,
            role: None,
            application: None,
            address: None,
            host: None,
            program: None,
            schema: None,
        })
        .collect();
    Ok(before.into_iter().chain(done).collect())
}
