//! What every argument must be before it is sent: the server would refuse it, but without a name.

use std::time::Duration;

use serde_json::{Map, Value};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Error, Result, Timestamp};
use crate::model::Tags;

/// How deep a JSON document may be nested: what is deeper than 127 levels could be written, but never read again.
const MAX_LEVELS: u32 = 100;

/// The moment that lies so long before `now`, or the earliest one.
pub(super) fn before(now: OffsetDateTime, interval: Duration) -> Result<Timestamp> {
    time("now", now)?;
    let earliest = time::macros::datetime!(0001-01-01 0:00 UTC);
    let interval = time::Duration::try_from(interval).unwrap_or(time::Duration::MAX);
    Ok(Timestamp(now.checked_sub(interval).filter(|moment| *moment >= earliest).unwrap_or(earliest)))
}

/// PostgreSQL stores no NUL in a text.
pub(super) fn text(field: &'static str, text: &str) -> Result<()> {
    if text.contains('\0') { Err(Error::Invalid { field, expected: "a text without NUL characters" }) } else { Ok(()) }
}

/// A text that tells what happened, with what cannot be stored replaced visibly: a log line must not be lost because of one
/// character. In ASCII, so that every encoding of a database has it.
pub(super) fn visible(text: &str) -> String {
    text.replace('\0', "\\0")
}

/// The same for a database whose encoding lacks a character of it: `?` for all that is not ASCII.
pub(super) fn visible_in_ascii(text: &str) -> String {
    visible(text).chars().map(|character| if character.is_ascii() { character } else { '?' }).collect()
}

/// Whether the server said that its encoding lacks a character.
pub(super) fn is_untranslatable(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref() == Some("22P05")
}

/// Neither does it in a JSON document, at any depth.
pub(super) fn json(field: &'static str, document: &Value) -> Result<()> {
    json_within(field, document, MAX_LEVELS)
}

fn json_within(field: &'static str, document: &Value, levels: u32) -> Result<()> {
    let deeper = |value: &Value| match levels.checked_sub(1) {
        Some(levels) => json_within(field, value, levels),
        None => Err(Error::Invalid { field, expected: "a JSON document of at most 100 levels" }),
    };
    match document {
        Value::String(value) => text(field, value),
        Value::Array(values) => values.iter().try_for_each(deeper),
        Value::Object(pairs) => pairs.iter().try_for_each(|(key, value)| {
            text(field, key)?;
            deeper(value)
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

/// The `input` of a job: the key that names its target, and options that name none.
pub(super) fn job(key: &str, target: Uuid, options: &Map<String, Value>) -> Result<Value> {
    if ["workspace_build_id", "template_version_id"].iter().any(|key| options.contains_key(*key)) {
        return Err(Error::Invalid { field: "options", expected: "no key that names the target" });
    }
    let mut input = options.clone();
    input.insert(key.to_owned(), Value::String(target.to_string()));
    let input = Value::Object(input);
    json("options", &input)?;
    Ok(input)
}

/// A time outside of these years could be written, but never read again.
pub(super) fn time(field: &'static str, at: OffsetDateTime) -> Result<Timestamp> {
    // With an offset, a time may lie on a day that the calendar here does not have in UTC.
    match at.checked_to_utc() {
        Some(utc) if (1..=9999).contains(&utc.year()) => Ok(Timestamp(at)),
        _ => Err(Error::Invalid { field, expected: "a time in the years 1 to 9999" }),
    }
}

/// A name for a `varchar(64)`.
pub(super) fn name(field: &'static str, value: &str) -> Result<()> {
    text(field, value)?;
    if !(1..=64).contains(&value.chars().count()) {
        return Err(Error::Invalid { field, expected: "1 to 64 characters" });
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
        return Error::Invalid { field, expected: "a text that fits into the index over it, some 2,700 bytes" };
    }
    Error::from_sqlx(query, error)
}

/// The constraint of the schema that the server names.
pub(super) fn constraint(error: &sqlx::Error) -> Option<&str> {
    error.as_database_error().and_then(sqlx::error::DatabaseError::constraint)
}
