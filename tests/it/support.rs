//! Interim: databases on the scratch server. Will be replaced.

use std::{
    fs,
    sync::atomic::{AtomicU32, Ordering},
};

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::sync::OnceCell;

fn url(database: &str) -> String {
    format!("postgres://postgres@localhost/{database}?host=/tmp/scratchpg")
}

pub struct Database {
    url: String,
}

impl Database {
    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }

    pub fn url(&self) -> &str {
        &self.url
    }
}

async fn template() -> String {
    let mut conn = PgConnection::connect(&url("postgres")).await.unwrap();
    let old: Vec<String> =
        sqlx::query_scalar("SELECT datname::text FROM pg_database WHERE datname LIKE 'listing_%' ORDER BY 1 DESC")
            .fetch_all(&mut conn)
            .await
            .unwrap();
    for name in old {
        if !fs::exists(format!("/proc/{}", name.split('_').nth(1).unwrap())).unwrap() {
            sqlx::query(AssertSqlSafe(format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")))
                .execute(&mut conn)
                .await
                .unwrap();
        }
    }
    let name = format!("listing_{}_template", std::process::id());
    sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut conn).await.unwrap();
    let mut conn = PgConnection::connect(&url(&name)).await.unwrap();
    let mut files: Vec<_> = fs::read_dir("migrations").unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in files.iter().filter(|file| file.extension().is_some_and(|e| e == "sql")) {
        let sql = fs::read_to_string(file).unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut conn).await.unwrap();
    }
    conn.close().await.unwrap();
    name
}

pub async fn database() -> Database {
    static TEMPLATE: OnceCell<String> = OnceCell::const_new();
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let template = TEMPLATE.get_or_init(template).await;
    let name = format!("listing_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let mut conn = PgConnection::connect(&url("postgres")).await.unwrap();
    sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name} TEMPLATE {template} STRATEGY = FILE_COPY")))
        .execute(&mut conn)
        .await
        .unwrap();
    Database { url: url(&name) }
}
