//! Tags: which daemons may take which jobs.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;

use super::{Label, ProvisionerType};

/// The tags of a provisioner daemon or of a job: an object from string to string (domain: tags).
///
/// A stored value that is not a string appears as its JSON text, and a stored value that is not an object as no tags:
/// one odd row must not hide all the others.
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tags(pub BTreeMap<String, String>);

impl Tags {
    /// `KEY=VALUE` as a person writes one tag: the key is the text before the first `=`. In a key, `\=` stands for `=`,
    /// and `\\` for a backslash.
    pub(crate) fn pair(text: &str) -> Option<(String, String)> {
        let (mut key, mut rest) = (String::new(), text.chars());
        while let Some(c) = rest.next() {
            match c {
                '=' => return (!key.is_empty()).then(|| (key, rest.as_str().to_owned())),
                '\\' if rest.as_str().starts_with(['=', '\\']) => key.extend(rest.next()),
                c => key.push(c),
            }
        }
        None
    }

    /// One tag as [`pair`](Self::pair) reads it.
    pub(crate) fn written(key: &str, value: &str) -> String {
        format!("{}={value}", key.replace('\\', r"\\").replace('=', r"\="))
    }

    /// The tags of a job that only daemons with exactly these take (domain: tags).
    #[must_use]
    pub fn untagged() -> Self {
        [("scope", "organization"), ("owner", "")].into_iter().collect()
    }

    /// How many tags a set may have for [`parts`](Self::parts) to list them.
    const MOST_IN_PARTS: usize = 8;

    /// The tags of all jobs that a daemon with these may take, at most 256; `None` when they would be more.
    pub(crate) fn parts(&self) -> Option<Vec<Self>> {
        if self.0.len() > Self::MOST_IN_PARTS {
            return None;
        }
        let mut parts = vec![Self::default()];
        for (key, value) in &self.0 {
            let with: Vec<_> = parts
                .iter()
                .cloned()
                .map(|mut part| {
                    part.0.insert(key.clone(), value.clone());
                    part
                })
                .collect();
            parts.extend(with);
        }
        parts.retain(|part| *part != Self::untagged() || part == self);
        Some(parts)
    }
}

/// Whether a daemon with these tags may take a job with those, as stored: what `provisioner_tagset_contains` of the
/// database answers (domain: tags), also for values that are not strings and documents that are not objects.
#[must_use]
pub fn tags_serve(daemon: &Value, job: &Value) -> bool {
    let is_untagged = job.as_object().is_some_and(|pairs| {
        pairs.len() == 2
            && pairs.get("scope").is_some_and(|scope| scope == "organization")
            && pairs.get("owner").is_some_and(|owner| owner == "")
    });
    if is_untagged { daemon == job } else { tags_contain(daemon, job) || has_element(daemon, job) }
}

/// What `@>` says of jsonb, but for the one exception of [`has_element`].
pub(crate) fn tags_contain(outer: &Value, inner: &Value) -> bool {
    match (outer, inner) {
        (Value::Object(outer), Value::Object(inner)) => {
            inner.iter().all(|(key, inner)| outer.get(key).is_some_and(|outer| tags_contain(outer, inner)))
        }
        (Value::Array(outer), Value::Array(inner)) => {
            inner.iter().all(|inner| outer.iter().any(|outer| tags_contain(outer, inner)))
        }
        // Whole numbers beyond 2^53 have neighbours that are the same double.
        (Value::Number(outer), Value::Number(inner)) if outer.is_f64() || inner.is_f64() => {
            outer.as_f64() == inner.as_f64()
        }
        (outer, inner) => outer == inner,
    }
}

/// At the top, an array contains a scalar that is one of its elements.
fn has_element(outer: &Value, scalar: &Value) -> bool {
    let is_scalar = !scalar.is_array() && !scalar.is_object();
    is_scalar && outer.as_array().is_some_and(|elements| elements.iter().any(|element| tags_contain(element, scalar)))
}

impl From<Value> for Tags {
    fn from(stored: Value) -> Self {
        let Value::Object(pairs) = stored else {
            return Self::default();
        };
        let text = |value| match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        Self(pairs.into_iter().map(|(key, value)| (key, text(value))).collect())
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Tags {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

/// How many jobs have the same tags and need the same provisioner: the same daemons may take them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagsCount {
    /// The tags.
    pub tags: Tags,
    /// How many jobs these are.
    pub jobs: i64,
    /// What a daemon must have to carry them out.
    pub provisioner: Label<ProvisionerType>,
    /// How many of them the prebuilds user asked for.
    pub prebuilds: i64,
    /// When the oldest of them was created.
    pub oldest: OffsetDateTime,
}

/// `key=value` pairs, separated by spaces, in the order of the keys.
impl fmt::Display for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (key, value)) in self.0.iter().enumerate() {
            write!(f, "{}{key}={value}", if n == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}
