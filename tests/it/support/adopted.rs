//! Databases of Coder's server, adopted.

use coderdb::{
    connect,
    migrate::{self, Adoption, MigrateOptions},
    sqlx::{self, AssertSqlSafe, PgConnection, Row as _},
};

use crate::support::{self, Database};

/// A database that Coder's server made, over a connection that keeps its session.
pub async fn coder() -> (Database, PgConnection) {
    let database = support::coder::database().await.directly();
    let conn = database.connect().await;
    (database, conn)
}

pub fn options(database: &Database) -> MigrateOptions {
    MigrateOptions { observer: Some(connect::ConnectOptions::from(database.options())), ..MigrateOptions::default() }
}

/// Adopts it, whatever breaks.
pub async fn adopt(database: &Database) {
    let how = Adoption { yes: true, ..Adoption::default() };
    migrate::adopt(&mut database.connect().await, &options(database), how, |_| {}).await.expect("adopted");
}

pub async fn run(conn: &mut PgConnection, sql: &str) {
    let ran = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(conn).await;
    ran.unwrap_or_else(|error| panic!("{sql}\n{error}"));
}

/// The first column, whatever its type.
pub async fn texts(conn: &mut PgConnection, sql: &str) -> Vec<String> {
    let rows = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_all(conn).await;
    let rows = rows.unwrap_or_else(|error| panic!("{sql}\n{error}"));
    rows.iter().map(|row| row.get_unchecked::<Option<String>, _>(0).unwrap_or_default()).collect()
}
