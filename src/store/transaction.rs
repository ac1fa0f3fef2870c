//! Trying again what lost a race.

use std::{
    hash::{BuildHasher, RandomState},
    pin::Pin,
    time::Duration,
};

use sqlx::{Connection, PgConnection};

use super::{Error, Result};

/// How often [`retry`] tries at most.
pub const MAX_ATTEMPTS: u32 = 50;

const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Does `operation`, and does it again while it loses races (SQLSTATE 40001 and 40P01), after a pause of random length:
/// up to 2 ms at first, twice as long each time, 100 ms at most, and [`MAX_ATTEMPTS`] times in all.
///
/// In a transaction of the caller it tries once, because only the whole transaction can be tried again. It opens no
/// transaction itself, so that it leaves nothing behind when it is dropped at any await; the operations of this library
/// do not either. One round trip per attempt and statement of the operation.
///
/// # Errors
/// [`Error::Serialization`] when the last attempt lost, too; any other error of the operation at once.
pub async fn retry<T>(
    conn: &mut PgConnection,
    // Boxed, because the type of an async closure cannot express yet that its future is `Send`.
    mut operation: impl for<'c> FnMut(&'c mut PgConnection) -> Pin<Box<dyn Future<Output = Result<T>> + Send + 'c>>,
) -> Result<T> {
    let attempts = if conn.is_in_transaction() { 1 } else { MAX_ATTEMPTS };
    for attempt in 1..attempts {
        match operation(conn).await {
            Err(Error::Serialization(_)) => {
                super::count("coderdb_transaction_conflicts_total", 1);
                tokio::time::sleep(pause(attempt)).await;
            }
            result => return result,
        }
    }
    operation(conn).await
}

/// Any length up to the bound of this attempt: equal pauses would let the same transactions meet again.
fn pause(attempt: u32) -> Duration {
    let bound = LONGEST_PAUSE.min(FIRST_PAUSE.saturating_mul(1 << attempt.saturating_sub(1).min(16)));
    let micros = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(RandomState::new().hash_one(attempt) % (micros + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_random_and_bounded() {
        let pauses: Vec<_> = (1..1_000).map(pause).collect();
        assert!(pauses.iter().all(|pause| *pause <= LONGEST_PAUSE));
        assert!(pauses.iter().any(|pause| *pause > LONGEST_PAUSE / 2));
        assert!(pause(1) <= FIRST_PAUSE);
    }
}
