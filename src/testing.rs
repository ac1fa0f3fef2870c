//! A migrated database for each test, on a throw-away server of the process that runs the tests.
//!
//! Feature `testing`, for the development dependencies of a service:
//!
//! ```
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use coderdb::{authz::{Actor, ReadOrganizations, System}, store, testing::Database};
//!
//! let database = Database::new().await?;
//! let mut conn = database.pool().get().await?;
//! let permit = ReadOrganizations::check(&Actor::system(System::Operator));
//! assert!(store::organizations::list(&mut conn, &permit).await?.is_empty());
//! # Ok(())
//! # }
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(example()).unwrap();
//! ```
//!
//! The first test of a process starts the server (PostgreSQL 14 or newer, from `PG_BIN_DIR` or wherever it is installed, else
//! the pinned build from npm) and migrates a template; the others copy that. The server ends with the process, also after
//! `kill -9`, and leaves nothing. Its data is in memory where there is room, and it syncs nothing.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    sync::{
        Arc, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::sync::Mutex;

use crate::{
    connect::{self, ConnectOptions},
    migrate::{self, Identity, MigrateOptions, Migrations},
    pool::{Pool, Settings},
    postgres::{self, Server},
};

/// Why there is no database for a test. `{:?}` is what a test that fails prints: the message, too.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No server was found, or it did not start.
    #[error("no server for the tests, which do not look at DATABASE_URL: {0}")]
    Server(#[source] postgres::Error),
    /// The server takes no connections: 200 are all that it has.
    #[error("cannot connect to the server of the tests: {0}")]
    Connect(#[source] connect::Error),
    /// The database could not be made.
    #[error("cannot make a database for the test: {0}")]
    Create(#[source] sqlx::Error),
    /// A migration failed.
    #[error(transparent)]
    Migrate(#[from] migrate::Error),
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A database of one test. Dropping the value drops the database and ends the sessions that are connected to it.
#[derive(Debug)]
pub struct Database {
    name: String,
    server: &'static Server,
}

impl Database {
    /// A database with every migration of this version of the library.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn new() -> Result<Self, Error> {
        Self::migrated(&[Migrations::embedded()]).await
    }

    /// A database with these migrations, set after set: those of this library first, if a service has its own beside them.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn migrated(sets: &[Migrations]) -> Result<Self, Error> {
        static TEMPLATES: Mutex<BTreeMap<Vec<Identity>, Arc<Database>>> = Mutex::const_new(BTreeMap::new());
        let sets_of_template = sets.iter().map(Migrations::identity).collect();
        let template = match TEMPLATES.lock().await.entry(sets_of_template) {
            Entry::Occupied(template) => template.get().clone(),
            Entry::Vacant(free) => free.insert(Arc::new(Self::template(sets).await?)).clone(),
        };
        template.copy().await
    }

    async fn template(sets: &[Migrations]) -> Result<Self, Error> {
        let template = Self::empty().await?;
        let mut conn = template.connect().await?;
        for migrations in sets {
            let options = MigrateOptions { migrations: migrations.clone(), ..MigrateOptions::default() };
            migrate::up(&mut conn, &options, |_| {}).await?;
        }
        // Nobody may be connected to what is copied.
        conn.close().await.map_err(Error::Create)?;
        Ok(template)
    }

    /// A database without anything in it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn empty() -> Result<Self, Error> {
        Self::with_options("").await
    }

    /// A database with the same in it, say with the rows that many tests begin with. Nobody may be connected to this one.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn copy(&self) -> Result<Self, Error> {
        // A file copy of a small database is four times as fast as writing it through the log; 14 knows no other way.
        let strategy = if self.server.version().starts_with("14") { "" } else { "STRATEGY FILE_COPY" };
        Self::with_options(&format!("TEMPLATE {} {strategy}", self.name)).await
    }

    /// A database as `CREATE DATABASE` makes it with these options.
    #[doc(hidden)]
    pub async fn with_options(options: &str) -> Result<Self, Error> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let server =
            tokio::task::spawn_blocking(server).await.map_err(|e| Error::Create(sqlx::Error::Io(e.into())))??;
        let database = Self { name: format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed)), server };
        execute(server, &format!("CREATE DATABASE {} {options}", database.name)).await?;
        Ok(database)
    }

    /// Its name on the server.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its URL, for programs and other libraries.
    #[must_use]
    pub fn url(&self) -> String {
        self.server.url(&self.name)
    }

    /// How to connect to it.
    #[must_use]
    pub fn options(&self) -> ConnectOptions {
        options(self.server, &self.name)
    }

    /// A connection.
    ///
    /// # Errors
    /// [`Error::Connect`].
    pub async fn connect(&self) -> Result<PgConnection, Error> {
        self.options().connect().await.map_err(Error::Connect)
    }

    /// A new pool of connections, with the default settings.
    #[must_use]
    pub fn pool(&self) -> Pool {
        Pool::new(self.options(), Settings::default())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (server, drop_database) = (self.server, format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
        // In the background: the server takes up to 100 ms to see that the last session is gone.
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            // A database that cannot be dropped is removed together with the server.
            runtime.map(|runtime| runtime.block_on(execute(server, &drop_database)))
        });
    }
}

/// The server of this process, which the first call starts. Blocks meanwhile.
///
/// # Errors
/// [`Error::Server`]; the next call tries again.
pub fn server() -> Result<&'static Server, Error> {
    static SERVER: OnceLock<Server> = OnceLock::new();
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(server) = SERVER.get() {
        return Ok(server);
    }
    let server = Server::throw_away(|notice| eprintln!("{notice}")).map_err(Error::Server)?;
    Ok(SERVER.get_or_init(|| server))
}

fn options(server: &Server, database: &str) -> ConnectOptions {
    server.url(database).parse().expect("the URL of a private server")
}

/// Not in the database of a test: a template must be left alone.
async fn execute(server: &Server, sql: &str) -> Result<(), Error> {
    let mut conn = options(server, "postgres").connect().await.map_err(Error::Connect)?;
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut conn).await.map_err(Error::Create)?;
    conn.close().await.map_err(Error::Create)
}
