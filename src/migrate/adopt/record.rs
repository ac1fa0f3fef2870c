//! What was found when a database was adopted: the versions whose objects were there, and those that were left out.

use sqlx::{AssertSqlSafe, PgConnection};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    Adoption,
    check::{ERROR_CODE_CHECK, LAST_FOUND},
    examination::{cannot, examine},
    indexes::definitions,
};
use crate::migrate::{
    Coder, Error, MigrateOptions, Unknown,
    coder::LOOK,
    files::File,
    history_table, log, migrator, prepare,
    sql::{quote, quote_name},
};
use std::ops::RangeInclusive;

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

/// Records what there is, in one transaction under the lock of Coder's own migrator, with what is compared once more:
/// all of it, or nothing. Returns the versions that were not recorded before.
pub(super) async fn record(
    conn: &mut PgConnection,
    options: &MigrateOptions,
    how: Adoption,
) -> Result<Vec<i64>, Error> {
    migrator::holding(conn, options, async |conn| recording(conn, options, how).await).await
}

async fn recording(conn: &mut PgConnection, options: &MigrateOptions, how: Adoption) -> Result<Vec<i64>, Error> {
    // First, because a table that is missing would end the transaction.
    prepare::prepare(conn, history_table::SCHEMA).await?;
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
    let history = history_table::read_any(conn, history_table::SCHEMA).await?;
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
        // Dumps by the owner, and by the role that migrates, read this table.
        "GRANT SELECT ON coderdb.baseline TO PUBLIC".to_owned(),
        // Also where the schema was made by an administrator: services read it to check whether it fits.
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
            history_table::table(history_table::SCHEMA),
            quote(name)
        ));
        sql.push(row.sql());
        recorded.push(version);
    }
    sqlx::raw_sql(AssertSqlSafe(sql.join(";\n"))).execute(conn).await?;
    Ok(recorded)
}

fn array(versions: &[&i64]) -> String {
    let versions: Vec<_> = versions.iter().map(ToString::to_string).collect();
    format!("{{{}}}", versions.join(","))
}
