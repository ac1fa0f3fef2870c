//! Passwords are shown nowhere. Every other test looks for its password, too: in the log at its finest, in panics, in
//! what the program prints, and in what the server shows of its sessions.

use std::time::Duration;

use coderdb::{
    connect::ConnectOptions,
    pool::{Pool, Settings},
    sqlx::{self, Connection as _},
    watch::{self, Watcher},
};

use crate::support::{
    self,
    secrets::{self, CANARY},
};

#[tokio::test]
async fn a_pool_a_watcher_and_their_errors_show_no_password() {
    let database = support::database().await;
    assert!(database.url().contains(CANARY));
    let options: ConnectOptions = database.url().parse().expect("a URL");
    let settings = Settings { max_size: 1, deadline: Duration::from_secs(2), ..Settings::default() };
    let pool = Pool::new(options.clone(), settings);
    let watcher = Watcher::start(&pool, watch::Settings::default());
    let held = pool.get().await.expect("a connection");
    secrets::check("Debug", &format!("{options:?} {options} {pool:?} {:?} {watcher:?} {held:?}", pool.metrics()));
    let error = pool.get().await.expect_err("the only one is held");
    secrets::check("an error", &format!("{error:?} {error}"));
    for url in [
        database.url().replace("localhost", "127.0.0.1:1").replace("?host=", "?application_name="),
        database.url().replace(database.name(), "nowhere"),
        database.url().replace("?host=", "?hots="),
        database.url_as("nobody-of-this-name", CANARY),
        database.url().replace('@', "/@"),
        database.url().replace('@', "?@"),
    ] {
        let shown = match url.parse::<ConnectOptions>() {
            Ok(options) => match Pool::new(options.clone(), settings).get().await {
                Ok(_) => panic!("it connected"),
                Err(error) => format!("{options:?} {error:?} {error}"),
            },
            Err(error) => format!("{error:?} {error}"),
        };
        secrets::check("an error", &shown);
    }
}

#[tokio::test]
async fn the_program_shows_no_password_to_others_while_it_works() {
    let database = support::database().await;
    support::run(database.coderdb().arg("demo"));
    let mut conn = database.connect().await;
    let mut lock = conn.begin().await.expect("a transaction");
    sqlx::raw_sql("LOCK TABLE organizations").execute(&mut *lock).await.expect("the lock");
    let mut coderdb = database.coderdb();
    let program = std::thread::spawn(move || support::run(coderdb.args(["provisioner", "jobs", "list"])));
    // It has connected and waits for the lock. (A transaction sees the sessions as they were when it first looked.)
    let mut other = database.connect().await;
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while sqlx::query_scalar::<_, i64>(waits).fetch_one(&mut other).await.expect("a number") == 0 {
        tokio::task::yield_now().await;
    }
    secrets::check_process_list();
    secrets::check("pg_stat_activity", &support::sessions(database.name()).await);
    lock.rollback().await.expect("the rollback");
    assert_eq!(program.join().expect("the program").code, 0);
}

#[tokio::test]
async fn the_log_is_looked_through_at_its_finest() {
    let database = support::database().await;
    let before = secrets::seen();
    let mut conn = database.connect().await;
    sqlx::query("SELECT 1").execute(&mut conn).await.expect("a row");
    assert!(secrets::seen() > before, "the driver logs each statement");
}
