//! What the database would refuse, or could not hold, is refused here with a name.

use std::time::Duration;

use time::OffsetDateTime;

use super::{Error, Result};
use crate::model::Tags;

/// The moment that lies so long before another one, or the earliest one.
pub(super) fn before(now: OffsetDateTime, interval: Duration) -> OffsetDateTime {
    // The calendar here goes back further than the server's, which refuses what it does not know.
    let earliest = time::macros::datetime!(0001-01-01 0:00 UTC);
    let interval = time::Duration::try_from(interval).unwrap_or(time::Duration::MAX);
    now.checked_sub(interval).filter(|moment| *moment >= earliest).unwrap_or(earliest)
}

/// A moment that comes back as it was given: the driver cannot read years before 0, nor the server years before -4712.
pub(super) fn moment(field: &'static str, at: OffsetDateTime) -> Result<()> {
    let known = (0..=9999).contains(&at.to_offset(time::UtcOffset::UTC).year());
    known.then_some(()).ok_or(Error::Invalid { field, expected: "a time in the years 0 to 9999" })
}

/// A text that a column of PostgreSQL can hold.
pub(super) fn text(field: &'static str, value: &str) -> Result<()> {
    if value.contains('\0') {
        return Err(Error::Invalid { field, expected: "a text without NUL characters" });
    }
    Ok(())
}

/// A name for a `varchar(64)`.
pub(super) fn name(field: &'static str, value: &str) -> Result<()> {
    text(field, value)?;
    if !(1..=64).contains(&value.chars().count()) {
        return Err(Error::Invalid { field, expected: "1 to 64 characters long" });
    }
    Ok(())
}

/// Tags that jsonb can hold.
pub(super) fn tags(field: &'static str, tags: &Tags) -> Result<()> {
    tags.0.iter().flat_map(<[&String; 2]>::from).try_for_each(|value| text(field, value))
}

/// An entry that is too large for the index over it, in words of the caller; any other error as it is.
pub(super) fn too_large(query: &'static str, field: &'static str, error: sqlx::Error) -> Error {
    let state = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    if state.as_deref() == Some("54000") {
        return Error::Invalid { field, expected: "short enough for the index over it, some 2,700 bytes" };
    }
    Error::from_sqlx(query, error)
}

/// The constraint of the schema that the server names.
pub(super) fn constraint(error: &sqlx::Error) -> Option<&str> {
    error.as_database_error().and_then(sqlx::error::DatabaseError::constraint)
}
