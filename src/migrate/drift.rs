//! Whether a database has the schema that the migrations make: the catalog, read in words, against what is expected.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

/// Reads the catalog, object by object.
pub(super) const CATALOG: &str = include_str!("catalog.sql");

/// What [`CATALOG`] says of a fresh database with every migration; `scripts/prepare` writes it.
const EXPECTED: &str = include_str!("schema.jsonl");

/// A table, column, constraint, index, trigger, rule, view, sequence, function, enum, domain or type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// What it is, in one word or two.
    pub kind: String,
    /// The table that it is part of, if it is part of one.
    #[serde(default)]
    pub table: Option<String>,
    /// Its name; that of a function has the types of its arguments.
    pub name: String,
    /// What it is made of, in SQL.
    pub definition: String,
    /// Whether one more of it can make writers fail.
    #[serde(default, skip_serializing)]
    pub(super) restricts: bool,
    /// Whether it is an index that is not valid, or a constraint that holds for new rows only.
    #[serde(default, skip_serializing)]
    pub(super) unfinished: bool,
}

impl Object {
    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        (&self.kind, &self.table, &self.name) == (&other.kind, &other.table, &other.name)
    }
}

/// `column users.email`
impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind)?;
        if let Some(table) = &self.table {
            write!(f, "{table}.")?;
        }
        f.write_str(&self.name)
    }
}

/// One difference from the expected schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drift {
    /// It is not there.
    Missing(Object),
    /// It is another than expected.
    Changed {
        /// As the migrations made it.
        expected: Object,
        /// As it is.
        found: Object,
    },
    /// It is not expected, and can make writers fail: a column that wants a value, a constraint, a trigger.
    Unexpected(Object),
    /// An index that is not valid, or a constraint that is NOT VALID, which the migrations did not make.
    Unfinished(Object),
}

impl Drift {
    /// The difference in one word.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Missing(_) => "missing",
            Self::Changed { .. } => "changed",
            Self::Unexpected(_) => "unexpected",
            Self::Unfinished(_) => "unfinished",
        }
    }

    /// What the migrations made; `None` for what they did not make.
    #[must_use]
    pub const fn expected(&self) -> Option<&Object> {
        match self {
            Self::Missing(object) | Self::Changed { expected: object, .. } => Some(object),
            Self::Unexpected(_) | Self::Unfinished(_) => None,
        }
    }

    /// What is there; `None` for what is missing.
    #[must_use]
    pub const fn found(&self) -> Option<&Object> {
        match self {
            Self::Missing(_) => None,
            Self::Changed { found: object, .. } | Self::Unexpected(object) | Self::Unfinished(object) => Some(object),
        }
    }

    /// What it is about.
    #[must_use]
    pub const fn object(&self) -> &Object {
        match self {
            Self::Missing(object) | Self::Unexpected(object) | Self::Unfinished(object) => object,
            Self::Changed { expected, .. } => expected,
        }
    }
}

/// `column users.email is missing`
impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}", self.object(), self.as_str())
    }
}

pub(super) fn expected() -> Vec<Object> {
    EXPECTED.lines().map(|line| serde_json::from_str(line).expect("a test reads every line")).collect()
}

/// The differences, and what is more than expected without being one.
pub(super) fn compare(expected: Vec<Object>, found: Vec<Object>) -> (Vec<Drift>, Vec<Object>) {
    let key = |object: &Object| (object.table.clone(), object.kind.clone(), object.name.clone());
    let mut found: BTreeMap<_, _> = found.into_iter().map(|object| (key(&object), object)).collect();
    let tables: Vec<String> = expected.iter().filter(|o| o.kind == "table").map(|o| o.name.clone()).collect();
    let gone = |object: &Object| {
        // What belongs to a missing table goes without saying.
        let table = object.table.as_ref().filter(|table| tables.contains(table));
        table.is_some_and(|table| !found.contains_key(&(None, "table".to_owned(), table.clone())))
    };
    let expected: Vec<_> = expected.into_iter().filter(|object| !gone(object)).collect();
    let mut drifts = Vec::new();
    for expected in expected {
        match found.remove(&key(&expected)) {
            None => drifts.push(Drift::Missing(expected)),
            Some(found) if found.definition != expected.definition => drifts.push(Drift::Changed { expected, found }),
            Some(_) => {}
        }
    }
    let mut extras = Vec::new();
    for object in found.into_values() {
        let ours = object.table.as_ref().is_some_and(|table| tables.contains(table));
        if ours && object.restricts {
            drifts.push(Drift::Unexpected(object));
        } else if object.unfinished {
            drifts.push(Drift::Unfinished(object));
        } else {
            extras.push(object);
        }
    }
    // The columns and indexes of a foreign table are not listed beside it.
    let theirs: Vec<_> = extras.iter().filter(|o| o.kind == "table").map(|o| o.name.clone()).collect();
    extras.retain(|object| object.table.as_ref().is_none_or(|table| !theirs.contains(table)));
    drifts.sort_by_key(|drift| key(drift.object()));
    (drifts, extras)
}
