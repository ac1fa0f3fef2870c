//! What every statement has: a name, which its errors and its span bear.

use sqlx::postgres::PgQueryResult;
use tracing::{Instrument as _, field::Empty, info_span};

use super::{Error, Result};
use crate::model::{FileId, Quota};

/// A statement of `queries/` on its way to the server.
pub(crate) trait Query<T: Rows>: Future<Output = sqlx::Result<T>> + Sized {
    /// Waits for the answer in a span as OpenTelemetry's conventions for databases describe it, and sorts the error.
    async fn of_query(self, name: &'static str) -> Result<T> {
        self.in_span(name).await.map_err(|error| Error::from_sqlx(name, error))
    }

    /// The same for an operation that sorts the error itself.
    async fn in_span(self, name: &'static str) -> sqlx::Result<T> {
        let span = info_span!(
            "query",
            otel.name = name,
            otel.kind = "client",
            db.system.name = "postgresql",
            db.query.summary = name,
            db.response.returned_rows = Empty,
            db.response.status_code = Empty,
            error.type = Empty,
        );
        let answer = self.instrument(span.clone()).await;
        match &answer {
            Ok(answer) => {
                span.record("db.response.returned_rows", answer.rows());
            }
            Err(sqlx::Error::Database(error)) => {
                let state = error.code().unwrap_or_default();
                span.record("db.response.status_code", &*state).record("error.type", &*state);
            }
            Err(_) => {
                span.record("error.type", "connection");
            }
        }
        answer
    }
}

impl<T: Rows, F: Future<Output = sqlx::Result<T>>> Query<T> for F {}

/// How many rows an answer has: one, if it is the row; `None` if the statement returns no rows.
pub(crate) trait Rows {
    fn rows(&self) -> Option<usize> {
        Some(1)
    }
}

impl<T> Rows for Vec<T> {
    fn rows(&self) -> Option<usize> {
        Some(self.len())
    }
}

impl<T> Rows for Option<T> {
    fn rows(&self) -> Option<usize> {
        Some(usize::from(self.is_some()))
    }
}

impl Rows for PgQueryResult {
    fn rows(&self) -> Option<usize> {
        None
    }
}

impl Rows for FileId {}
impl Rows for Quota {}
impl Rows for String {}
