//! Quoting for statements that are put together as text, and the SQLSTATE of an error.

use sqlx::postgres::PgDatabaseError;

/// A text as SQL writes it, whatever the settings of the session.
pub(super) fn quote(text: &str) -> String {
    // A doubled quote, because `backslash_quote` may forbid the other way.
    format!("E'{}'", text.replace('\0', "").replace('\\', "\\\\").replace('\'', "''"))
}

/// A name as SQL writes it, whatever it holds.
pub(super) fn quote_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Whether the table, or its schema, is not there.
pub(super) fn is_missing(error: &sqlx::Error) -> bool {
    sqlstate(error) == Some("42P01")
}

pub(super) fn sqlstate(error: &sqlx::Error) -> Option<&str> {
    Some(error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()?.code())
}
