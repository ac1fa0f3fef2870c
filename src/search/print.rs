//! A query as a text.

use std::fmt::{self, Display};

use super::{Condition, Query, Term};
use crate::model::{NameOrId, Tags, UserRef};

impl Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, term) in self.terms.iter().enumerate() {
            write!(f, "{}{term}", if n == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

impl Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}:", if self.negated { "-" } else { "" }, self.condition.key())?;
        match &self.condition {
            Condition::Status(values) => several(f, values),
            Condition::Initiator(UserRef::Me) => f.write_str("me"),
            Condition::Initiator(UserRef::Id(id)) => id.fmt(f),
            Condition::Initiator(UserRef::Username(name)) => quoted(f, name),
            Condition::Organization(named) => name_or_id(f, named),
            Condition::Template(named) => name_or_id(f, named),
            Condition::Workspace(named) => name_or_id(f, named),
            Condition::Transition(value) => value.fmt(f),
            Condition::Type(values) => several(f, values),
            Condition::Tag(key, value) => quoted(f, &Tags::written(key, value)),
            Condition::Untagged => f.write_str("none"),
            Condition::Id(values) => several(f, values),
            Condition::Created(value) => value.fmt(f),
            Condition::ErrorCode(values) => several(f, values),
        }
    }
}

fn several<T: Display>(f: &mut fmt::Formatter<'_>, values: &[T]) -> fmt::Result {
    for (n, value) in values.iter().enumerate() {
        write!(f, "{}{value}", if n == 0 { "" } else { "," })?;
    }
    Ok(())
}

fn name_or_id<Id: Display>(f: &mut fmt::Formatter<'_>, named: &NameOrId<Id>) -> fmt::Result {
    match named {
        NameOrId::Id(id) => id.fmt(f),
        NameOrId::Name(name) => quoted(f, name),
    }
}

/// As it is, or between quotation marks where it would read as something else.
fn quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    if !text.contains(|c: char| c.is_whitespace() || matches!(c, '"' | ',')) {
        return f.write_str(text);
    }
    f.write_str("\"")?;
    for c in text.chars() {
        write!(f, "{}{c}", if matches!(c, '"' | '\\') { "\\" } else { "" })?;
    }
    f.write_str("\"")
}
