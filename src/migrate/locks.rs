//! Which tables the statements of a migration lock, and which they rewrite.

use std::collections::BTreeMap;

use refinery::Migration;
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::{
    Error, Migrations,
    index::{Index, is_concurrent},
};

/// What [`locks`] has found for the migrations of this version. `scripts/prepare` writes it.
const EMBEDDED: &str = include_str!("locks.json");

/// The modes, the weakest first.
const MODES: [&str; 8] = [
    "AccessShareLock",
    "RowShareLock",
    "RowExclusiveLock",
    "ShareUpdateExclusiveLock",
    "ShareLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
];

/// What a statement does to tables that were there before its migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatementLocks {
    /// Which statement of its file, from 1.
    pub statement: usize,
    /// The tables that it locks, each with the strongest mode, in PostgreSQL's words: `AccessExclusiveLock`.
    pub locks: BTreeMap<String, String>,
    /// Those of them that it rewrites.
    pub rewrites: Vec<String>,
}

/// The locks of a migration, statement by statement; `None` if it is not one of this version.
pub(super) fn embedded(migration: &Migration) -> Option<Vec<StatementLocks>> {
    let own = Migrations::embedded();
    own.get(migration.version()).filter(|file| file.migration == *migration)?;
    let all: BTreeMap<i64, Vec<StatementLocks>> = serde_json::from_str(EMBEDDED).ok()?;
    all.get(&migration.version()).cloned()
}

/// Finds out which tables each statement locks and rewrites, by running all migrations on an empty database, which has
/// them afterwards, without a history. By version; statements that touch no such table are left out.
///
/// # Errors
/// [`Error::Unavailable`] and [`Error::Sql`].
pub async fn locks(
    conn: &mut PgConnection,
    migrations: &Migrations,
) -> Result<BTreeMap<i64, Vec<StatementLocks>>, Error> {
    let mut all = BTreeMap::new();
    for file in migrations.files() {
        let before = files(conn).await?;
        let mut statements = Vec::new();
        if !file.is_stepwise {
            batch(conn, "BEGIN").await?;
        }
        let mut held: BTreeMap<String, String> = BTreeMap::new();
        for (number, statement) in (1..).zip(file.statements()) {
            let rewritten = files(conn).await?;
            let is_alone = is_concurrent(&statement);
            if file.is_stepwise {
                held.clear();
                if !is_alone {
                    batch(conn, "BEGIN").await?;
                }
            }
            // Nothing is held after such a statement: this is what the server's documentation says of it.
            let beside = if is_alone { Index::of(&statement) } else { None };
            let table = match &beside {
                Some(index) => index.table(conn).await?,
                None => None,
            };
            batch(conn, statement.text).await?;
            let mut now = own_locks(conn).await?;
            now.extend(table.map(|table| (table, "ShareUpdateExclusiveLock".to_owned())));
            now.retain(|table, mode| {
                before.contains_key(table) && held.get(table).is_none_or(|held| rank(held) < rank(mode))
            });
            let after = files(conn).await?;
            let changed = |table: &&String| before.contains_key(*table) && rewritten.get(*table) != after.get(*table);
            let rewrites: Vec<_> = after.keys().filter(changed).cloned().collect();
            held.extend(now.clone());
            now.retain(|_, mode| rank(mode) > 0);
            let found = StatementLocks { statement: number, locks: now, rewrites };
            if !(found.locks.is_empty() && found.rewrites.is_empty()) {
                statements.push(found);
            }
            if file.is_stepwise && !is_alone {
                batch(conn, "COMMIT").await?;
            }
        }
        if !file.is_stepwise {
            batch(conn, "COMMIT").await?;
        }
        all.insert(file.migration.version(), statements);
    }
    Ok(all)
}

fn rank(mode: &str) -> usize {
    MODES.iter().position(|known| *known == mode).unwrap_or(MODES.len())
}

async fn batch(conn: &mut PgConnection, sql: &str) -> Result<(), Error> {
    Ok(sqlx::raw_sql(AssertSqlSafe(sql)).execute(conn).await.map(drop)?)
}

/// The tables of the schema, with the file on disk that each is in.
async fn files(conn: &mut PgConnection) -> Result<BTreeMap<String, String>, Error> {
    pairs(
        conn,
        "SELECT oid::regclass::text, relfilenode::text FROM pg_class
         WHERE relkind IN ('r', 'p') AND relnamespace = quote_ident(current_schema())::regnamespace",
    )
    .await
}

/// The strongest mode in which this session holds each table.
async fn own_locks(conn: &mut PgConnection) -> Result<BTreeMap<String, String>, Error> {
    let mut strongest = BTreeMap::<String, String>::new();
    let held =
        "SELECT l.relation::regclass::text, l.mode FROM pg_locks AS l INNER JOIN pg_class AS c ON c.oid = l.relation
                WHERE l.pid = pg_backend_pid() AND l.granted AND c.relkind IN ('r', 'p')
                AND c.relnamespace = quote_ident(current_schema())::regnamespace";
    for row in sqlx::raw_sql(held).fetch_all(conn).await? {
        let (table, mode): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let known = strongest.entry(table).or_insert_with(|| mode.clone());
        if rank(known) < rank(&mode) {
            *known = mode;
        }
    }
    Ok(strongest)
}

async fn pairs(conn: &mut PgConnection, sql: &'static str) -> Result<BTreeMap<String, String>, Error> {
    let rows = sqlx::raw_sql(sql).fetch_all(conn).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}
