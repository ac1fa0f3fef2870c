//! Which database: the configured one, else a private server.

use std::{error::Error as _, io::ErrorKind, ops::DerefMut, time::Duration};

use sqlx::{Connection, PgConnection, postgres::PgDatabaseError};
use tokio::time::{Instant, sleep};

use super::{
    error::{CliError, UNREACHABLE, USAGE, chain},
    output::note,
};
use crate::{
    connect::{self, ConnectOptions, Pooler},
    postgres::{DATABASE, Server, Settings},
};

/// From one attempt to connect to the next.
const PAUSE: Duration = Duration::from_millis(500);

/// A connection, and the hold on the private server that it goes to, if it does.
pub(super) struct Database {
    connection: PgConnection,
    options: ConnectOptions,
    server: Option<Server>,
}

impl std::ops::Deref for Database {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Database {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

impl Database {
    /// How it was connected to, for more connections.
    pub(super) const fn options(&self) -> &ConnectOptions {
        &self.options
    }

    /// Whether it is the private server, because no database is configured.
    #[cfg(feature = "serve")]
    pub(super) const fn is_private(&self) -> bool {
        self.server.is_some()
    }

    /// Says goodbye to the server, so that it does not log a lost connection, and lets go of a private one.
    pub(super) async fn close(self) {
        // The work is done and answered; a server that is gone by now changes nothing.
        let _ = self.connection.close().await;
        self.options.passed_on().await;
        drop(self.server);
    }
}

/// Connects to the configured database, or else to the private server, which it starts.
pub(super) async fn connect() -> Result<Database, CliError> {
    connect_within(Duration::ZERO).await
}

/// Connects, and waits so long for a database that starts, restarts or has no room.
pub(super) async fn connect_within(wait: Duration) -> Result<Database, CliError> {
    let (options, server) = if let Some(options) = ConnectOptions::from_environment()? {
        (options, None)
    } else {
        let server = Server::open(&Settings::development()?, |notice| note(&notice.to_string()))?;
        (server.url(DATABASE).parse()?, Some(server))
    };
    let options = options.disable_statement_logging();
    let deadline = Instant::now() + wait;
    let mut is_told = false;
    let connection = loop {
        let error = match options.connect().await {
            Ok(connection) => break connection,
            Err(error) => error,
        };
        if !error.is_passing() || Instant::now() >= deadline {
            return Err(error.into());
        }
        if !is_told {
            note(&format!("waiting for the database: {}", chain(&error)));
            is_told = true;
        }
        sleep(PAUSE.min(deadline - Instant::now())).await;
    };
    Ok(Database { connection, options, server })
}

/// Whether a transaction pooler lends the sessions of the configured database.
pub(super) fn is_pooled() -> Result<bool, CliError> {
    Ok(ConnectOptions::from_environment()?.is_some_and(|options| options.get_pooler() == Pooler::Transaction))
}

/// Connects to the configured database and nothing else, and says how, for more connections.
#[cfg(feature = "mcp")]
pub(super) async fn connect_to_configured() -> Result<Database, CliError> {
    let options = ConnectOptions::from_environment()?.ok_or_else(|| {
        CliError::new(USAGE, "no database is configured")
            .next("set DATABASE_URL, or the variables of libpq (PGHOST, …)")
    })?;
    let options = options.disable_statement_logging();
    let connection = options.connect().await?;
    Ok(Database { connection, options, server: None })
}

impl From<connect::Error> for CliError {
    fn from(error: connect::Error) -> Self {
        use connect::Error as E;
        let elsewhere = "check that the server runs and that DATABASE_URL or PGHOST and PGPORT point at it";
        let (server, source) = match error {
            E::Invalid { .. } => return Self::new(USAGE, error.to_string()),
            E::ForgetsStatements { .. } => {
                return Self::new(USAGE, error.to_string())
                    .next("or unset CODERDB_POOLER: then no such pooler is expected");
            }
            E::NoAnswer { .. } | E::OtherTarget { .. } => {
                return Self::new(UNREACHABLE, error.to_string()).next(elsewhere);
            }
            E::Failed { server, source } => (server, source),
        };
        let Some(database) = source.as_database_error().and_then(|e| e.try_downcast_ref::<PgDatabaseError>()) else {
            let reason = chain(source.source().unwrap_or(&source));
            return match source {
                sqlx::Error::Configuration(_) | sqlx::Error::InvalidArgument(_) | sqlx::Error::Tls(_) => {
                    Self::new(USAGE, format!("cannot connect to {server}: {reason}"))
                }
                sqlx::Error::Io(error) if error.kind() == ErrorKind::InvalidData => {
                    Self::new(USAGE, format!("cannot trust {server}: {reason}"))
                        .next("check its certificate, sslrootcert, and the host that DATABASE_URL or PGHOST names")
                }
                _ => Self::new(UNREACHABLE, format!("cannot reach {server}: {reason}")).next(elsewhere),
            };
        };
        let said = format!("{server} refused the connection: {}", database.message());
        match database.code() {
            // Wrong password, unknown user, no entry in pg_hba.conf, no right to connect.
            "28P01" | "28000" | "42501" => Self::new(USAGE, said).next("check the user name and the password"),
            "3D000" => Self::new(USAGE, said).next("create the database, for example with `createdb`"),
            // Out of something, starting, stopping, or in trouble of its own or of a pooler.
            code if ["08", "53", "57P", "58", "XX"].iter().any(|class| code.starts_with(class)) => {
                Self::new(UNREACHABLE, said)
            }
            _ => Self::new(USAGE, said),
        }
    }
}
