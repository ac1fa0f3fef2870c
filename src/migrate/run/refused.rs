//! Statements that the server refused, with their place in the file.

use sqlx::postgres::{PgDatabaseError, PgErrorPosition};

use super::Work;
use crate::migrate::{
    Error, Refusal,
    files::File,
    statements::{Statement, line_and_column},
};

/// The error of work of which the server has done so many statements before it refused one.
pub(super) fn refused(work: &Work<'_>, completed: usize, error: sqlx::Error) -> Error {
    let error = match Error::from(error) {
        Error::Sql(error) => error,
        unavailable => return unavailable,
    };
    let file = work.file;
    let statements = file.statements();
    // Where the server names no position, the statement is one.
    let statement = work.statement.or_else(|| (completed < statements.len()).then(|| completed + 1));
    match error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>()) {
        Some(error) => {
            let refusal = refusal(file, work.at, statement.map(|n| (n, &*statements)), error);
            Error::Refused(Box::new(refusal))
        }
        None => Error::Sql(error),
    }
}

/// The refusal of the SQL that begins at this offset of the file.
fn refusal(file: &File, at: usize, statement: Option<(usize, &[Statement<'_>])>, error: &PgDatabaseError) -> Refusal {
    let sql = file.sql();
    let named = error.position().and_then(|position| match position {
        // What is missing at the end is named one character behind it.
        PgErrorPosition::Original(position) => {
            let places = sql[at..].char_indices().map(|(offset, _)| offset).chain([sql.len() - at]);
            places.into_iter().nth(position.checked_sub(1)?)
        }
        PgErrorPosition::Internal { .. } => None,
    });
    let begins = statement.and_then(|(number, statements)| statements.get(number - 1)).map(|statement| statement.at);
    let named = named.map(|offset| at + offset);
    // All of a file is parsed before any of it runs, so that the count of what is done says nothing of a typing error.
    let statement = statement.map(|(number, statements)| {
        let named = named.and_then(|at| statements.iter().rposition(|statement| statement.at <= at));
        (named.map_or(number, |before| before + 1), statements)
    });
    let at = named.or(begins);
    Refusal {
        file: file.path.clone(),
        state: error.code().to_owned(),
        message: error.message().to_owned(),
        detail: error.detail().map(str::to_owned),
        hint: error.hint().map(str::to_owned),
        at: at.map(|at| {
            let (line, column) = line_and_column(sql, at);
            (line, column, sql.lines().nth(line - 1).unwrap_or_default().to_owned())
        }),
        statement: statement.map(|(number, statements)| (number, statements.len())),
        rolled_back: !file.is_stepwise,
        is_embedded: file.is_embedded,
        is_first: file.migration.version() <= 1,
    }
}
