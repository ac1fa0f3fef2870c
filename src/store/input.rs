//! What every argument must be before it is sent: the server would refuse it, but without a name.

use serde_json::Value;
use time::OffsetDateTime;

use super::{Error, Result, Timestamp};

const NO_NUL: &str = "a text without NUL characters";

/// PostgreSQL stores no NUL in a text.
pub(super) fn text(field: &'static str, text: &str) -> Result<()> {
    if text.contains('\0') { Err(Error::Invalid { field, expected: NO_NUL }) } else { Ok(()) }
}

/// Neither does it in a JSON document, at any depth.
pub(super) fn json(field: &'static str, document: &Value) -> Result<()> {
    match document {
        Value::String(value) => text(field, value),
        Value::Array(values) => values.iter().try_for_each(|value| json(field, value)),
        Value::Object(pairs) => pairs.iter().try_for_each(|(key, value)| {
            text(field, key)?;
            json(field, value)
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

/// A time outside of these years could be written, but never read again.
pub(super) fn time(field: &'static str, at: OffsetDateTime) -> Result<Timestamp> {
    if (1..=9999).contains(&at.to_utc().year()) {
        Ok(Timestamp(at))
    } else {
        Err(Error::Invalid { field, expected: "a time in the years 1 to 9999" })
    }
}
