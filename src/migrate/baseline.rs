//! What was recorded when a database was adopted.

use std::{collections::BTreeMap, fmt};

use sqlx::{PgConnection, Row, types::Json};

use super::{Coder, Error, coder::recognize, settings};

/// What was recorded, and what there is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Baseline {
    /// The version of Coder's schema then.
    pub(super) coder_version: i64,
    /// What Coder's own migrator says now.
    pub(super) now: Option<Coder>,
    pub(super) adopted: Vec<i64>,
    pub(super) left_out: Vec<i64>,
    /// Whether the closed set of error codes was added.
    pub(super) error_code_check: bool,
    /// The differences that were accepted, in words.
    pub(super) accepted: Vec<String>,
    /// The definitions of the indexes that were there, by name.
    pub(super) indexes: BTreeMap<String, String>,
}

impl Baseline {
    /// Reads the last one, which is there.
    pub(super) async fn read(conn: &mut PgConnection) -> Result<Option<Self>, Error> {
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
    pub(super) fn is_new(&self, difference: &impl fmt::Display) -> bool {
        !self.accepted.contains(&difference.to_string())
    }
}
