//! Whether Coder's own server made a database, and the version of its schema.

use std::{fmt, time::Duration};

use serde::Serialize;
use sqlx::{PgConnection, Row};

use super::{Error, settings, sql::sqlstate};

/// How long reading that version waits for an exclusive lock on its table.
pub(super) const LOOK: Duration = Duration::from_millis(500);

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
    /// Its table is locked exclusively, as it is while that server migrates.
    Locked,
    /// Its table has no row.
    Empty,
}

impl Coder {
    const fn unknown(why: Unknown) -> Self {
        Self { version: None, dirty: false, unknown: Some(why) }
    }
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
        Err(error) if sqlstate(&error) == Some("55P03") => {
            return Ok(Some(Coder::unknown(Unknown::Locked)));
        }
        rows => rows?,
    };
    let Some(row) = rows.first() else { return Ok(Some(Coder::unknown(Unknown::Empty))) };
    Ok(Some(Coder { version: row.try_get(0)?, dirty: row.try_get(1)?, unknown: None }))
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
