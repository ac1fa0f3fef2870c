//! What was found when a database was adopted: the versions whose objects were there, and those that were left out.

use std::{borrow::Cow, collections::BTreeMap, ops::RangeInclusive};

use sqlx::{AssertSqlSafe, PgConnection, Row, types::Json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    Adoption, CONSTRAINT, Coder, Difference, ERROR_CODE_CHECK, LAST_FOUND, LOOK, Unknown, cannot, definitions, examine,
    migrator, recognize,
};
use crate::migrate::{
    Error, Event, MigrateOptions, Object, Status, drift,
    files::File,
    history_table,
    log::{self, quote, quote_name},
    plan::{AdoptedFrom, State},
    run::Run,
    settings,
};

/// A row for each adoption; the last one counts.
const CREATE: &str = "CREATE TABLE IF NOT EXISTS coderdb.baseline (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    role text NOT NULL DEFAULT session_user,
    coder_version bigint NOT NULL,
    server text NOT NULL DEFAULT current_setting('server_version'),
    owner text NOT NULL,
    adopted bigint[] NOT NULL,
    left_out bigint[] NOT NULL,
    error_code_check boolean NOT NULL DEFAULT false,
    accepted text[] NOT NULL,
    indexes jsonb NOT NULL
)";

/// The constraint as the versions that were left out make it, in two statements.
pub(super) const CHECK: &str = "ALTER TABLE provisioner_jobs ADD CONSTRAINT provisioner_jobs_error_code_check
    CHECK (error_code IN ('MISSING_TEMPLATE_PARAMETER', 'REQUIRED_TEMPLATE_VARIABLES', 'INSUFFICIENT_QUOTA')) NOT VALID;
ALTER TABLE provisioner_jobs VALIDATE CONSTRAINT provisioner_jobs_error_code_check;
";

/// What was recorded, and what there is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::migrate) struct Baseline {
    /// The version of Coder's schema then.
    pub(in crate::migrate) coder_version: i64,
    /// What Coder's own migrator says now.
    now: Option<Coder>,
    adopted: Vec<i64>,
    left_out: Vec<i64>,
    /// Whether the closed set of error codes was added.
    pub(in crate::migrate) error_code_check: bool,
    /// The differences that were accepted, in words.
    pub(super) accepted: Vec<String>,
    /// The definitions of the indexes that were there, by name.
    pub(super) indexes: BTreeMap<String, String>,
}

impl Baseline {
    /// Reads the last one, which is there.
    pub(in crate::migrate) async fn read(conn: &mut PgConnection) -> Result<Option<Self>, Error> {
        let last = "SELECT coder_version, adopted, left_out, error_code_check, accepted, indexes FROM coderdb.baseline \
                    ORDER BY id DESC LIMIT 1";
        let rows = settings::read(conn, last).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let now = recognize(conn).await?;
        Ok(Some(Self {
            coder_version: row.try_get(0)?,
            now,
            adopted: row.try_get(1)?,
            left_out: row.try_get(2)?,
            error_code_check: row.try_get(3)?,
            accepted: row.try_get(4)?,
            indexes: row.try_get::<Json<_>, _>(5)?.0,
        }))
    }

    /// Whether it was not accepted.
    pub(in crate::migrate) fn is_new(&self, difference: &Difference) -> bool {
        !self.accepted.contains(&difference.to_string())
    }

    /// Says of each version whether it was recorded without being run.
    pub(in crate::migrate) fn mark(self, status: &mut Status) {
        for entry in status.migrations.iter_mut().filter(|entry| entry.state == State::Applied) {
            if self.left_out.contains(&entry.version) {
                entry.state = State::LeftOut;
            } else if self.adopted.contains(&entry.version) {
                entry.state = State::Adopted;
            }
        }
        let (now, dirty) = self.now.as_ref().map_or((None, false), |coder| (coder.version, coder.dirty));
        status.adopted = Some(AdoptedFrom { from: self.coder_version, now, dirty });
        status.baseline = Some(self);
    }
}

/// Records what there is, in one transaction under the lock of Coder's own migrator, with what is compared once more: all of
/// it, or nothing. Returns the versions that were not recorded before.
pub(super) async fn record(
    conn: &mut PgConnection,
    options: &MigrateOptions,
    how: Adoption,
) -> Result<Vec<i64>, Error> {
    migrator::holding(conn, options, async |conn| recording(conn, options, how).await).await
}

async fn recording(conn: &mut PgConnection, options: &MigrateOptions, how: Adoption) -> Result<Vec<i64>, Error> {
    // First, because a table that is missing would end the transaction.
    history_table::prepare(conn).await?;
    let examination = examine(conn, how).await?;
    examination.check(how)?;
    let version = match examination.coder {
        Coder { version: Some(version), .. } => version,
        Coder { unknown: Some(Unknown::Locked), .. } => {
            return Err(Error::MigratorBusy { waited: LOOK, holders: migrator::holders(conn).await? });
        }
        _ => {
            return Err(cannot(
                "this role may not read the version of Coder's schema: GRANT SELECT ON schema_migrations",
            ));
        }
    };
    let history = history_table::read_any(conn).await?;
    let before = history.baseline.as_ref();
    let has_check = before.is_some_and(|baseline| baseline.error_code_check);
    let found = |range: RangeInclusive<i64>| {
        options.migrations.files().iter().filter(move |f| range.contains(&f.migration.version()))
    };
    let versions: Vec<_> = found(1..=LAST_FOUND).map(|file| file.migration.version()).collect();
    let (left_out, adopted): (Vec<_>, Vec<_>) =
        versions.iter().partition(|version| !has_check && ERROR_CODE_CHECK.contains(version));
    let accepted: Vec<_> = examination.differences.iter().map(|difference| quote(&difference.to_string())).collect();
    let indexes = definitions(conn, &examination.indexes).await?;
    let mut sql = vec![
        CREATE.to_owned(),
        format!(
            "INSERT INTO coderdb.baseline (coder_version, owner, adopted, left_out, error_code_check, accepted, indexes) \
             VALUES ({version}, {}, '{}', '{}', {has_check}, ARRAY[{}]::text[], {})",
            quote(&examination.owner),
            array(&adopted),
            array(&left_out),
            accepted.join(", "),
            quote(&indexes.to_string())
        ),
        // So that a dump by that role still works, and by whoever migrates.
        "GRANT SELECT ON coderdb.baseline TO PUBLIC".to_owned(),
        // Also where somebody else has made the schema: whoever serves looks whether it fits.
        "GRANT USAGE ON SCHEMA coderdb TO PUBLIC".to_owned(),
        format!("GRANT USAGE ON SCHEMA coderdb TO {}", quote_name(&examination.owner)),
        format!("GRANT SELECT ON ALL TABLES IN SCHEMA coderdb TO {}", quote_name(&examination.owner)),
        format!("GRANT SELECT ON ALL SEQUENCES IN SCHEMA coderdb TO {}", quote_name(&examination.owner)),
    ];
    let now = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
    let is_new = |file: &&File| !history.migrations.iter().any(|row| row.version() == file.migration.version());
    let mut recorded = Vec::new();
    for file in found(1..=LAST_FOUND).filter(is_new) {
        let (version, name, checksum) = (file.migration.version(), file.migration.name(), file.migration.checksum());
        let action = if left_out.contains(&&version) { "left out" } else { "adopted" };
        let host = options.host.as_deref();
        let row =
            log::New { action, version: Some(version), name, checksum: Some(checksum), host, ..log::New::default() };
        sql.push(format!(
            "INSERT INTO {} (version, name, applied_on, checksum) VALUES ({version}, {}, '{now}', '{checksum}')",
            history_table::TABLE,
            quote(name)
        ));
        sql.push(row.sql());
        recorded.push(version);
    }
    sqlx::raw_sql(AssertSqlSafe(sql.join(";\n"))).execute(conn).await?;
    Ok(recorded)
}

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

fn array(versions: &[&i64]) -> String {
    let versions: Vec<_> = versions.iter().map(ToString::to_string).collect();
    format!("{{{}}}", versions.join(","))
}
