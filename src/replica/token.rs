//! How far the primary had come, and how far a standby has.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use crate::store;

/// A position in the log of the primary, after a write: a read that carries it sees that write.
///
/// As text it is `1:16/B374D848`, the timeline and the position as PostgreSQL writes it, fit for a header or a cookie.
/// It is no secret, and promises nothing: one that was made up costs its reader the time to wait for it.
///
/// Of two tokens the greater one covers both. A failover begins a new timeline, whose tokens are greater than all before:
/// a former primary that comes back with more than its successor ever got does not pass for being ahead of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Token {
    timeline: u32,
    lsn: u64,
}

/// What [`Token`] cannot be read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a token like 1:16/B374D848")]
pub struct InvalidToken;

impl Token {
    /// Whatever was written so far: only the primary has it for sure.
    pub const LATEST: Self = Self { timeline: u32::MAX, lsn: u64::MAX };

    /// A token for all that this connection, and every other one to the same primary, has committed. One round trip.
    ///
    /// # Errors
    /// [`store::Error::Unavailable`], and [`store::Error::Sql`] on a standby.
    pub async fn current(conn: &mut PgConnection) -> store::Result<Self> {
        // Not the flushed position: a commit that does not wait for the disk lies behind it. The position of the next
        // record may stand after the header of a page that has none yet, where replay cannot arrive.
        const SQL: &str = "
            SELECT ('x' || left(pg_walfile_name(lsn), 8))::bit(32)::int8,
                at - CASE WHEN at % segment = 40 THEN 40 WHEN at % page = 24 THEN 24 ELSE 0 END
            FROM
                pg_current_wal_insert_lsn() AS lsn,
                LATERAL (SELECT
                    (lsn - '0/0')::int8,
                    pg_size_bytes(current_setting('wal_segment_size')),
                    current_setting('wal_block_size')::int8
                ) AS x (at, segment, page)";
        let row: (i64, i64) =
            sqlx::query_as(SQL).fetch_one(conn).await.map_err(|e| store::Error::from_sqlx("replica/current", e))?;
        Ok(Self::new(row))
    }

    /// How far the standby at the other end has replayed; `None` when it is none, or one no more. One round trip.
    pub(super) async fn replayed(conn: &mut PgConnection) -> Result<Option<Self>, sqlx::Error> {
        // No function tells the timeline that is being replayed; the control file tells one that was reached before,
        // so it is read first. A standby that follows a new primary may be a checkpoint late to know.
        const SQL: &str = "
            SELECT greatest(r.min_recovery_end_timeline, c.timeline_id)::int8, (pg_last_wal_replay_lsn() - '0/0')::int8
            FROM pg_control_recovery() AS r, pg_control_checkpoint() AS c
            WHERE pg_is_in_recovery()";
        let row: Option<(i64, Option<i64>)> = sqlx::query_as(SQL).fetch_optional(conn).await?;
        Ok(row.and_then(|(timeline, lsn)| Some(Self::new((timeline, lsn?)))))
    }

    pub(super) const fn timeline(self) -> u32 {
        self.timeline
    }

    pub(super) const fn into_parts(self) -> (u32, u64) {
        (self.timeline, self.lsn)
    }

    pub(super) const fn from_parts((timeline, lsn): (u32, u64)) -> Self {
        Self { timeline, lsn }
    }

    fn new((timeline, lsn): (i64, i64)) -> Self {
        // The server has them without a sign, and shorter than this.
        Self { timeline: u32::try_from(timeline).unwrap_or_default(), lsn: u64::try_from(lsn).unwrap_or_default() }
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:X}/{:X}", self.timeline, self.lsn >> 32, self.lsn & 0xFFFF_FFFF)
    }
}

impl FromStr for Token {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let read = || {
            let (timeline, position) = text.split_once(':')?;
            let (high, low) = position.split_once('/')?;
            let digits = |text: &str, radix| {
                let plain = (1..=10).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
                plain.then(|| u32::from_str_radix(text, radix).ok()).flatten()
            };
            let lsn = u64::from(digits(high, 16)?) << 32 | u64::from(digits(low, 16)?);
            Some(Self { timeline: digits(timeline, 10)?, lsn })
        };
        read().ok_or(InvalidToken)
    }
}

impl From<Token> for String {
    fn from(token: Token) -> Self {
        token.to_string()
    }
}

impl TryFrom<String> for Token {
    type Error = InvalidToken;

    fn try_from(text: String) -> Result<Self, InvalidToken> {
        text.parse()
    }
}
