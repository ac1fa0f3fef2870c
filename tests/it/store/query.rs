//! The span of each statement.

use std::{
    io,
    sync::{Arc, Mutex},
};

use coderdb::{
    authz::ReadOrganizations,
    sqlx::{self, Executor as _},
    store::{self, Error},
};
use tracing_subscriber::fmt::format::FmtSpan;

use crate::support;

#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<u8>>>);

impl io::Write for Spans {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(text)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Spans {
    /// Those that were closed since the last call: each with its parents and its fields.
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

#[tokio::test]
async fn query_spans_have_the_rows_or_the_error_under_the_names_of_opentelemetry() {
    let database = support::database().await;
    let mut conn = database.connect().await;
    let permit = ReadOrganizations::check(&support::operator());
    let spans = Spans::default();
    let writer = spans.clone();
    let log = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_span_events(FmtSpan::CLOSE)
        .with_writer(move || writer.clone())
        .finish();
    let _only_here = tracing::subscriber::set_default(log);

    assert!(store::organizations::list(&mut conn, &permit).await.unwrap().is_empty());
    let closed = spans.take();
    let expected = "db.organizations.list:query{otel.name=\"organizations/list\" otel.kind=\"client\" \
                    db.system.name=\"postgresql\" db.query.summary=\"organizations/list\" db.response.returned_rows=0}: \
                    coderdb::store::query: close";
    assert!(closed.contains(expected), "{closed}");

    conn.execute("ALTER TABLE organizations RENAME COLUMN display_name TO other").await.unwrap();
    spans.take();
    let error = store::organizations::list(&mut conn, &permit).await.unwrap_err();
    assert!(matches!(error, Error::Schema(_)), "{error}");
    let closed = spans.take();
    assert!(closed.contains("db.response.status_code=\"42703\" error.type=\"42703\"}"), "{closed}");

    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    sqlx::raw_sql(end).execute(&mut database.directly().connect().await).await.unwrap();
    spans.take();
    assert!(store::organizations::list(&mut conn, &permit).await.is_err());
    let closed = spans.take();
    assert!(closed.contains("error.type="), "{closed}");
}
