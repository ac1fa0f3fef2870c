//! The history of the schema: what was done, when and by which role.

use serde::Serialize;
use sqlx::{PgConnection, Row};

use super::{Error, Migrations, history_table, log, settings, sql::is_missing};

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
    /// The longest delay of another session's statement, in milliseconds; `None` without an observer.
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

/// What was done to the schema, the oldest first: what the log says, and for what was done before there was one, what
/// refinery's history says. Two round trips; writes nothing.
///
/// # Errors
/// [`Error::Unavailable`], [`Error::Sql`] and [`Error::MalformedHistory`].
pub async fn history(conn: &mut PgConnection) -> Result<Vec<Done>, Error> {
    history_of(conn, &Migrations::embedded()).await
}

/// The same for other migrations.
///
/// # Errors
/// As [`history`].
pub async fn history_of(conn: &mut PgConnection, migrations: &Migrations) -> Result<Vec<Done>, Error> {
    let applied = history_table::read(conn, migrations.schema()).await?.migrations;
    let columns = "SELECT to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') AS at, action, version, name, \
                   statement, milliseconds, delay_milliseconds, role, application, address, host, program, schema \
                   FROM";
    let columns = format!("{columns} {} ORDER BY id", log::table(migrations.schema()));
    let logged = match settings::read(conn, &columns).await {
        Ok(rows) => rows,
        Err(error) if is_missing(&error) => Vec::new(),
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
