//! The log of what was done to the schema: a table beside refinery's history, to which rows are only added.

use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::{
    Error, history_table,
    sql::{quote, quote_name},
};

/// Created with the history, under the runner's lock.
pub(super) fn create(schema: &str) -> String {
    format!("CREATE TABLE {} (", table(schema)) + COLUMNS
}

pub(super) fn table(schema: &str) -> String {
    format!("{}.migration_log", quote_name(schema))
}

const COLUMNS: &str = "
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

/// A row to add.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct New<'a> {
    /// The schema of the log; `None` for that of this library's own migrations.
    pub(super) schema: Option<&'a str>,
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
            "INSERT INTO {} \
             (action, version, name, statement, checksum, milliseconds, delay_milliseconds, host, program) \
             VALUES ({}, {}, {}, {}, {}, {}, {}, {}, {})",
            table(self.schema.unwrap_or(history_table::SCHEMA)),
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

/// The statements of a migration that are done though the migration is not, with their checksums.
pub(super) async fn statements(
    conn: &mut PgConnection,
    schema: &str,
    version: i64,
) -> Result<Vec<(usize, u64)>, Error> {
    let log = table(schema);
    let sql = format!(
        "SELECT statement, checksum FROM {log} WHERE action = 'statement' AND version = {version} \
         AND id > coalesce((SELECT max(id) FROM {log} \
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
