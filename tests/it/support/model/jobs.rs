//! The status and the input of a job (domain: jobs; job status).

use serde_json::{Map, Value};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{JobRow, PREBUILDS};

impl JobRow {
    /// The first match wins (domain: job status). A NULL error and an empty one both fall through.
    pub fn status(&self) -> &'static str {
        let error = self.error.as_deref().is_some_and(|error| !error.is_empty());
        if self.completed_at.is_some() {
            if error {
                "failed"
            } else if self.canceled_at.is_some() {
                "canceled"
            } else {
                "succeeded"
            }
        } else if error {
            "failed"
        } else if self.canceled_at.is_some() {
            "canceling"
        } else if self.started_at.is_none() {
            "pending"
        } else {
            "running"
        }
    }

    /// Whether it counts for the position in a listing (domain: positions).
    pub fn waits_in_listing(&self) -> bool {
        self.started_at.is_none() && self.canceled_at.is_none() && self.completed_at.is_none() && self.error.is_none()
    }

    /// The queue order (domain: claims).
    pub fn queue_order(&self) -> (bool, OffsetDateTime, Uuid) {
        (self.initiator_id == PREBUILDS, self.created_at, self.id)
    }

    /// The value under a key; none if `input` is no object.
    pub fn input_key(&self, key: &str) -> Option<&Value> {
        self.input.as_object().and_then(|object| object.get(key))
    }

    /// The keys under `input` in the JSON (domain: job json).
    pub fn decoded_input(&self) -> DecodedInput {
        let empty = Map::new();
        let object = match &self.input {
            Value::Object(object) => object,
            Value::Null => &empty,
            _ => return DecodedInput { broken: true, ..DecodedInput::default() },
        };
        let absent = |key: &str| object.get(key).is_none_or(Value::is_null);
        let id = |key: &str| object.get(key).and_then(uuid_value);
        let broken = |key: &str| !absent(key) && id(key).is_none();
        DecodedInput {
            template_version_id: id("template_version_id"),
            workspace_build_id: id("workspace_build_id"),
            broken: broken("template_version_id") || broken("workspace_build_id"),
        }
    }
}

/// What the JSON shows of a job's input.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct DecodedInput {
    pub template_version_id: Option<Uuid>,
    pub workspace_build_id: Option<Uuid>,
    pub broken: bool,
}

/// A JSON string that the database's `uuid` type reads: 32 hexadecimal digits in either case, a hyphen or none after
/// each group of four, braces around it or none. Joins and JSON must agree on what names a build.
pub fn uuid_value(value: &Value) -> Option<Uuid> {
    let text = value.as_str()?;
    let text = text.strip_prefix('{').map_or(Some(text), |inner| inner.strip_suffix('}'))?;
    let mut digits = String::new();
    let mut after_group = false;
    for c in text.chars() {
        if c == '-' && after_group {
            after_group = false;
        } else if c.is_ascii_hexdigit() {
            digits.push(c);
            after_group = digits.len().is_multiple_of(4) && digits.len() < 32;
        } else {
            return None;
        }
    }
    (digits.len() == 32).then(|| u128::from_str_radix(&digits, 16).ok().map(Uuid::from_u128)).flatten()
}
