//! refinery over sqlx's own connection. Nothing else knows refinery's driver traits.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use refinery::Migration;
use refinery_core::{
    AsyncMigrate,
    traits::r#async::{AsyncQuery, AsyncTransaction},
};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row, postgres::PgDatabaseError};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Applied, Entry, Error, Event, Refusal, lock};

/// How often a migration is tried that fails for want of a lock.
const ATTEMPTS: u32 = 10;

type OnEvent<'a> = &'a mut (dyn FnMut(Event<'_>) + Send);

pub(super) struct Driver<'a> {
    conn: &'a mut PgConnection,
    lock_timeout: Duration,
    on_event: Option<OnEvent<'a>>,
    /// refinery hands over statements without saying whose they are; it runs these, in this order.
    pending: VecDeque<Entry>,
    applied: Vec<Applied>,
    /// What went wrong: refinery would give it back as text.
    failure: Option<Error>,
}

/// Says that [`Driver::failure`] has the reason.
#[derive(Debug, thiserror::Error)]
#[error("the driver failed")]
pub(super) struct Failed;

impl<'a> Driver<'a> {
    /// A driver that reads the history.
    pub(super) fn reader(conn: &'a mut PgConnection) -> Self {
        Self {
            conn,
            lock_timeout: Duration::ZERO,
            on_event: None,
            pending: VecDeque::new(),
            applied: Vec::new(),
            failure: None,
        }
    }

    /// A driver that applies these migrations.
    pub(super) fn writer(
        conn: &'a mut PgConnection,
        lock_timeout: Duration,
        pending: Vec<Entry>,
        on_event: OnEvent<'a>,
    ) -> Self {
        Self { lock_timeout, on_event: Some(on_event), pending: pending.into(), ..Self::reader(conn) }
    }

    pub(super) fn into_applied(self) -> Vec<Applied> {
        self.applied
    }

    pub(super) fn into_error(self, error: refinery::Error) -> Error {
        self.failure.unwrap_or_else(|| Error::Refinery(Box::new(error)))
    }

    fn emit(&mut self, event: Event<'_>) {
        if let Some(on_event) = &mut self.on_event {
            on_event(event);
        }
    }

    async fn run(&mut self, queries: &[&str]) -> Result<(), Error> {
        // One statement creates the history table; a migration comes with the statement that records it.
        let [sql, record] = *queries else {
            for sql in queries {
                batch(self.conn, sql).await?;
            }
            return Ok(());
        };
        let Some(Entry { version, name, .. }) = self.pending.pop_front() else {
            return Err(Error::SessionLost);
        };
        if !lock::is_held(self.conn).await? {
            return Err(Error::SessionLost);
        }
        let start = Instant::now();
        let file = format!("migrations/V{version:04}__{name}.sql");
        self.emit(Event::Started { version, name: &name });
        if has_directive(sql, "no-transaction") {
            self.concurrent_index(&file, sql, record).await?;
        } else {
            self.transaction(version, &file, sql, record).await?;
        }
        let milliseconds = start.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
        self.applied.push(Applied { version, name, milliseconds });
        Ok(())
    }

    /// The migration and its history row, together or not at all.
    async fn transaction(&mut self, version: i64, file: &str, sql: &str, record: &str) -> Result<(), Error> {
        let mut attempt = 1;
        loop {
            let error = match self.attempt(sql, record).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let lost_a_race = sqlstate(&error).is_some_and(|state| ["55P03", "40P01", "40001"].contains(&state));
            match error {
                source if lost_a_race && attempt >= ATTEMPTS => {
                    return Err(Error::TableLock { file: file.to_owned(), attempts: attempt, source });
                }
                _ if lost_a_race => {
                    self.emit(Event::Retrying { version, attempt });
                    tokio::time::sleep(Duration::from_millis(100) * 2_u32.pow(attempt.min(5))).await;
                    attempt += 1;
                }
                error => return Err(refused(file, sql, error, true)),
            }
        }
    }

    async fn attempt(&mut self, sql: &str, record: &str) -> Result<(), sqlx::Error> {
        let mut transaction = self.conn.begin().await?;
        let limits =
            format!("SET LOCAL lock_timeout = {}; SET LOCAL statement_timeout = 0", self.lock_timeout.as_millis());
        batch(&mut transaction, &limits).await?;
        batch(&mut transaction, sql).await?;
        batch(&mut transaction, record).await?;
        transaction.commit().await
    }

    /// `CREATE INDEX CONCURRENTLY` cannot share a transaction, so the history row follows once the index is valid.
    async fn concurrent_index(&mut self, file: &str, sql: &str, record: &str) -> Result<(), Error> {
        let Some((index, table)) = index_on(sql) else {
            return Err(Error::NoTransaction { file: file.to_owned() });
        };
        // A build waits for older transactions by taking locks: a time-out would only leave an invalid index.
        batch(self.conn, "SET lock_timeout = 0; SET statement_timeout = 0").await?;
        let built = self.build(file, sql, index, table).await;
        batch(self.conn, "RESET lock_timeout; RESET statement_timeout").await?;
        built?;
        Ok(batch(self.conn, record).await?)
    }

    async fn build(&mut self, file: &str, sql: &str, index: &str, table: &str) -> Result<(), Error> {
        if let Some((qualified, false)) = find_index(self.conn, index, table).await? {
            // What a killed or failed build leaves behind; the name is taken, and nothing uses it.
            batch(self.conn, &format!("DROP INDEX CONCURRENTLY {qualified}")).await?;
        }
        if find_index(self.conn, index, table).await?.is_none() {
            batch(self.conn, sql).await.map_err(|error| refused(file, sql, error, false))?;
        }
        match find_index(self.conn, index, table).await? {
            Some((_, true)) => Ok(()),
            _ => Err(Error::InvalidIndex { file: file.to_owned(), index: index.to_owned() }),
        }
    }
}

impl AsyncTransaction for Driver<'_> {
    type Error = Failed;

    async fn execute<'a, T: Iterator<Item = &'a str> + Send + 'a>(&'a mut self, queries: T) -> Result<usize, Failed> {
        let queries: Vec<&str> = queries.collect();
        match self.run(&queries).await {
            Ok(()) => Ok(queries.len()),
            Err(error) => {
                self.failure = Some(error);
                Err(Failed)
            }
        }
    }
}

impl AsyncQuery<Vec<Migration>> for Driver<'_> {
    async fn query<'a>(&'a mut self, query: &'a str) -> Result<Vec<Migration>, Failed> {
        history(self.conn, query).await.map_err(|error| {
            self.failure = Some(error);
            Failed
        })
    }
}

impl AsyncMigrate for Driver<'_> {}

async fn history(conn: &mut PgConnection, query: &str) -> Result<Vec<Migration>, Error> {
    let rows = sqlx::query(AssertSqlSafe(query)).persistent(false).fetch_all(conn).await?;
    rows.iter()
        .map(|row| {
            // refinery's own choice is the smaller type.
            let version = row.try_get("version").or_else(|_| row.try_get("version").map(i32::into))?;
            let malformed = || Error::MalformedHistory { version };
            let text = |column| row.try_get::<String, _>(column).map_err(|_| malformed());
            let applied_on = OffsetDateTime::parse(&text("applied_on")?, &Rfc3339).map_err(|_| malformed())?;
            let checksum = text("checksum")?.parse().map_err(|_| malformed())?;
            Ok(Migration::applied(version, text("name")?, applied_on, checksum))
        })
        .collect()
}

/// Several statements in one message; the server names positions in the whole text.
async fn batch(conn: &mut PgConnection, sql: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(conn).await.map(drop)
}

/// The index of this name on this table, as SQL names it, and whether it is valid. Another table may have one, too.
async fn find_index(conn: &mut PgConnection, index: &str, table: &str) -> Result<Option<(String, bool)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT i.indexrelid::regclass::text, i.indisvalid AND i.indisready \
         FROM pg_index AS i INNER JOIN pg_class AS c ON c.oid = i.indexrelid \
         WHERE c.relname = $1 AND i.indrelid = to_regclass($2)",
    )
    .persistent(false)
    .bind(index)
    .bind(table)
    .fetch_optional(conn)
    .await
}

fn sqlstate(error: &sqlx::Error) -> Option<&str> {
    Some(error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()?.code())
}

fn refused(file: &str, sql: &str, error: sqlx::Error, rolled_back: bool) -> Error {
    let error = match Error::from(error) {
        Error::Sql(error) => error,
        unavailable => return unavailable,
    };
    match error.as_database_error().and_then(|e| e.try_downcast_ref::<PgDatabaseError>()) {
        Some(refusal) => Error::Refused(Box::new(Refusal::new(file.to_owned(), sql, refusal, rolled_back))),
        None => Error::Sql(error),
    }
}

/// Whether the leading comment of a migration has the line `-- coderdb: <directive>`.
fn has_directive(sql: &str, directive: &str) -> bool {
    let comment = sql.lines().map_while(|line| line.strip_prefix("--"));
    comment.filter_map(|line| line.trim().strip_prefix("coderdb:")).any(|word| word.trim() == directive)
}

/// The names in a file whose only statement is `CREATE [UNIQUE] INDEX CONCURRENTLY index ON table …`.
///
/// `IF NOT EXISTS` is refused: it would accept an invalid index. A second statement is refused by the server.
fn index_on(sql: &str) -> Option<(&str, &str)> {
    let mut words = sql.lines().filter(|line| !line.starts_with("--")).flat_map(str::split_whitespace);
    let mut word = |expected: &str| words.next().filter(|word| word.eq_ignore_ascii_case(expected));
    word("CREATE")?;
    let mut index = words.next()?;
    if index.eq_ignore_ascii_case("UNIQUE") {
        index = words.next()?;
    }
    let concurrently = words.next()?;
    let name = words.next()?;
    let plain = |name: &str| name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    let on = words.next()?;
    let table = words.next()?;
    (index.eq_ignore_ascii_case("INDEX")
        && concurrently.eq_ignore_ascii_case("CONCURRENTLY")
        && plain(name)
        && plain(table)
        && on.eq_ignore_ascii_case("ON"))
    .then_some((name, table))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directive_counts_only_in_the_leading_comment() {
        assert!(has_directive("-- what\n-- coderdb: no-transaction\nSELECT 1;", "no-transaction"));
        assert!(!has_directive("SELECT 1;\n-- coderdb: no-transaction\n", "no-transaction"));
        assert!(!has_directive("-- coderdb: no-transactions\nSELECT 1;", "no-transaction"));
    }

    #[test]
    fn only_a_named_concurrent_index_may_go_without_a_transaction() {
        assert_eq!(index_on("-- c\n\nCREATE INDEX CONCURRENTLY i\n    ON t (a);"), Some(("i", "t")));
        assert_eq!(index_on("create unique index concurrently i_1 on t (a)"), Some(("i_1", "t")));
        for refused in [
            "CREATE INDEX i ON t (a)",
            "CREATE INDEX CONCURRENTLY ON t (a)",
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON t (a)",
            "CREATE INDEX CONCURRENTLY i ON ONLY t (a)",
            "DROP INDEX CONCURRENTLY i",
            "CREATE INDEX CONCURRENTLY \"I\" ON t (a)",
            "",
        ] {
            assert_eq!(index_on(refused), None, "{refused}");
        }
    }
}
