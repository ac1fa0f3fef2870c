//! The closed set of error codes, which an adopted database has only if that is asked for.

use std::{borrow::Cow, ops::RangeInclusive};

use sqlx::{AssertSqlSafe, PgConnection, Row};

use crate::migrate::{Error, Event, MigrateOptions, Object, drift, files::File, run::Run, settings, sql::sqlstate};

/// The versions that make the closed set of error codes. It is not for databases to which a server writes that may know more.
pub(super) const ERROR_CODE_CHECK: RangeInclusive<i64> = 4..=7;

/// The last version whose objects Coder's own server has made.
pub(super) const LAST_FOUND: i64 = 7;

/// The constraint that those versions make.
pub(super) const CONSTRAINT: &str = "provisioner_jobs_error_code_check";

/// The constraint as the versions that were left out make it, in two statements.
pub(super) const CHECK: &str = "ALTER TABLE provisioner_jobs ADD CONSTRAINT provisioner_jobs_error_code_check
    CHECK (error_code IN ('MISSING_TEMPLATE_PARAMETER', 'REQUIRED_TEMPLATE_VARIABLES', 'INSUFFICIENT_QUOTA')) NOT VALID;
ALTER TABLE provisioner_jobs VALIDATE CONSTRAINT provisioner_jobs_error_code_check;
";

/// Adds the closed set of error codes, unless it is there.
pub(super) async fn add_check(
    conn: &mut PgConnection,
    pid: i32,
    options: &MigrateOptions,
    on_event: &mut (impl FnMut(Event<'_>) + Send),
) -> Result<(), Error> {
    let done = [
        "UPDATE coderdb.baseline SET error_code_check = true; ",
        "UPDATE coderdb.baseline SET adopted = adopted || left_out, left_out = '{}'; ",
    ];
    let skipped = match check_state(conn).await? {
        None => 0,
        Some(false) => 1,
        Some(true) => 2,
    };
    // Where the owner has added it, or a run was killed in between.
    sqlx::raw_sql(AssertSqlSafe(done[..skipped].concat())).execute(&mut *conn).await?;
    Run::new(conn, pid, options, on_event).await?.steps(&check_file(), skipped, &done).await
}

/// Whether the closed set of error codes is there, and holds for every row.
pub(super) async fn check_state(conn: &mut PgConnection) -> Result<Option<bool>, Error> {
    let there = format!(
        "SELECT convalidated FROM pg_constraint WHERE conrelid = 'provisioner_jobs'::regclass AND conname = '{CONSTRAINT}'"
    );
    let rows = settings::read(conn, &there).await?;
    Ok(rows.first().map(|row| row.try_get(0)).transpose()?)
}

/// Whether the constraint of that name is the one that [`CHECK`] makes, proved or not; `None` where there is none.
pub(super) async fn check_is_ours(conn: &mut PgConnection) -> Result<Option<bool>, Error> {
    let definition = format!(
        "SELECT pg_get_constraintdef(oid, true) FROM pg_constraint \
         WHERE conrelid = 'provisioner_jobs'::regclass AND conname = '{CONSTRAINT}'"
    );
    let rows = settings::read(conn, &definition).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let found: String = row.try_get(0)?;
    let found = found.strip_suffix(" NOT VALID").unwrap_or(&found);
    let is_it =
        |object: &Object| object.kind == "constraint" && object.name == CONSTRAINT && object.definition == found;
    Ok(Some(drift::expected().iter().any(is_it)))
}

/// What [`add_check`] runs.
pub(super) fn check_file() -> File {
    File::new(LAST_FOUND, "error_code_check".to_owned(), 0, Cow::Borrowed(CHECK), "error_code_check".to_owned())
}

/// The error codes that jobs have and the closed set has not.
pub(super) async fn unknown_codes(conn: &mut PgConnection) -> Result<Vec<(String, i64)>, Error> {
    let codes = "SELECT error_code, count(*) FROM provisioner_jobs WHERE error_code NOT IN \
        ('MISSING_TEMPLATE_PARAMETER', 'REQUIRED_TEMPLATE_VARIABLES', 'INSUFFICIENT_QUOTA') GROUP BY 1 ORDER BY 1";
    let rows = match settings::read(conn, codes).await {
        // Who may not read the jobs prints what their owner is to run, and the server says it to him.
        Err(error) if sqlstate(&error) == Some("42501") => Vec::new(),
        rows => rows?,
    };
    Ok(rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, sqlx::Error>>()?)
}
