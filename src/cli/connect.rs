//! Which database: the configured one, else a private server.

use std::{
    env::{self, VarError},
    error::Error,
    ops::DerefMut,
    str::FromStr,
    time::Duration,
};

use sqlx::{
    ConnectOptions, Connection as _, PgConnection,
    postgres::{PgConnectOptions, PgDatabaseError, PgSslMode},
};

use super::{
    error::{CliError, UNREACHABLE, USAGE, chain},
    output::note,
};
use crate::{
    pooler::Pooler,
    postgres::{DATABASE, Server, Settings},
};

/// libpq's variables that say where a database is or how to enter it. One of them is a configuration.
const LIBPQ: &[&str] = &[
    "PGHOST",
    "PGHOSTADDR",
    "PGPORT",
    "PGDATABASE",
    "PGUSER",
    "PGPASSWORD",
    "PGPASSFILE",
    "PGSERVICE",
    "PGSERVICEFILE",
    "PGSSLMODE",
    "PGSSLROOTCERT",
    "PGSSLCERT",
    "PGSSLKEY",
    "PGOPTIONS",
];

/// A connection, and the hold on the private server that it goes to, if it does.
pub(super) struct Database {
    connection: PgConnection,
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
    /// Says goodbye to the server, so that it does not log a lost connection, and lets go of a private one.
    pub(super) async fn close(self) {
        // The work is done and answered; a server that is gone by now changes nothing.
        let _ = self.connection.close().await;
        drop(self.server);
    }
}

/// The variable that configures a database, if one does.
pub(super) fn configured() -> Option<&'static str> {
    let set = |name: &&str| env::var_os(name).is_some_and(|value| !value.is_empty());
    ["DATABASE_URL"].iter().chain(LIBPQ).copied().find(set)
}

/// Connects to the configured database, or else to the private server, which it starts.
pub(super) async fn connect() -> Result<Database, CliError> {
    check_environment()?;
    let (options, server) = match configured() {
        Some("DATABASE_URL") => {
            let url = env::var("DATABASE_URL").map_err(|_| CliError::new(USAGE, "DATABASE_URL is not UTF-8"))?;
            check_parameters(&url)?;
            // The parser's message never repeats the URL, which may hold a password.
            let options = PgConnectOptions::from_str(&url).map_err(|error| {
                CliError::new(USAGE, format!("DATABASE_URL is not a PostgreSQL URL: {}", chain(&error)))
            })?;
            (options, None)
        }
        Some(name @ ("PGSERVICE" | "PGSERVICEFILE")) => {
            return Err(CliError::new(USAGE, format!("{name} is not supported yet"))
                .next("set DATABASE_URL, or PGHOST, PGDATABASE and PGUSER"));
        }
        Some(_) => (PgConnectOptions::new(), None),
        None => {
            let server = Server::open(&Settings::development()?, |notice| note(&notice.to_string()))?;
            let options = PgConnectOptions::from_str(&server.url(DATABASE));
            (options.map_err(|error| CliError::new(USAGE, chain(&error)))?, Some(server))
        }
    };
    let options = options.application_name("coderdb").disable_statement_logging();
    let attempt = tokio::time::timeout(connect_timeout()?, pooler()?.connect(&options)).await;
    let connection = match attempt {
        Ok(connected) => connected.map_err(|error| refused(&options, &error))?,
        Err(_) => return Err(unreachable(&options, "no answer in time")),
    };
    Ok(Database { connection, server })
}

/// What the driver reads out of the query of a URL.
const PARAMETERS: &[&str] = &[
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];

/// The driver passes over a parameter that it does not know: `sslmod=verify-full` would connect without encryption.
fn check_parameters(url: &str) -> Result<(), CliError> {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    for parameter in query.split('#').next().unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
        let name = parameter.split('=').next().unwrap_or_default();
        if !PARAMETERS.contains(&name) && !name.starts_with("options[") {
            // Not its name: what follows a question mark in a password that is not encoded looks like one.
            return Err(CliError::new(USAGE, "DATABASE_URL has a parameter that is not supported")
                .next(format!("use {}", PARAMETERS.join(", "))));
        }
    }
    Ok(())
}

/// sqlx takes its default for what it cannot read: another database, or a connection that need not be encrypted.
fn check_environment() -> Result<(), CliError> {
    let wrong = |name: &str, what: &str| Err(CliError::new(USAGE, format!("{name} is not {what}")));
    for name in LIBPQ {
        match env::var(name) {
            Err(VarError::NotUnicode(_)) => return wrong(name, "UTF-8"),
            Ok(port) if *name == "PGPORT" && !port.is_empty() && port.parse::<u16>().is_err() => {
                return wrong(name, "a port");
            }
            Ok(mode) if *name == "PGSSLMODE" && !mode.is_empty() && mode.parse::<PgSslMode>().is_err() => {
                return wrong(name, "disable, allow, prefer, require, verify-ca or verify-full");
            }
            _ => {}
        }
    }
    Ok(())
}

/// What lends the sessions of the configured database.
pub(super) fn pooler() -> Result<Pooler, CliError> {
    match env::var("CODERDB_POOLER") {
        // The private server is reached directly.
        Ok(mode) if !mode.is_empty() && configured().is_some() => {
            mode.parse().map_err(|_| CliError::new(USAGE, "CODERDB_POOLER is not session or transaction"))
        }
        _ => Ok(Pooler::Session),
    }
}

fn connect_timeout() -> Result<Duration, CliError> {
    match env::var("PGCONNECT_TIMEOUT") {
        Ok(seconds) => match seconds.trim().parse() {
            Ok(0) => Ok(Duration::MAX),
            Ok(seconds) => Ok(Duration::from_secs(seconds)),
            Err(_) => Err(CliError::new(USAGE, "PGCONNECT_TIMEOUT is not a number of seconds")),
        },
        Err(_) => Ok(Duration::from_secs(10)),
    }
}

/// The host, port and database of the options, and nothing secret.
fn place(options: &PgConnectOptions) -> String {
    let at = match options.get_socket() {
        Some(socket) => socket.display().to_string(),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    };
    let database = options.get_database().unwrap_or(options.get_username());
    // After a slash in the password that is not escaped, the rest of the URL counts as the database.
    format!("database {:?} at {at}", database.rsplit('@').next().unwrap_or_default())
}

fn unreachable(options: &PgConnectOptions, why: &str) -> CliError {
    CliError::new(UNREACHABLE, format!("cannot reach {}: {why}", place(options)))
        .next("check that the server runs and that DATABASE_URL or PGHOST and PGPORT point at it")
}

fn refused(options: &PgConnectOptions, error: &sqlx::Error) -> CliError {
    let database = error.as_database_error().and_then(|e| e.try_downcast_ref::<PgDatabaseError>());
    let Some(database) = database else {
        let reason = chain(error.source().unwrap_or(error));
        return match error {
            sqlx::Error::Configuration(_) | sqlx::Error::InvalidArgument(_) => {
                CliError::new(USAGE, format!("cannot connect to {}: {reason}", place(options)))
            }
            _ => unreachable(options, &reason),
        };
    };
    let said = format!("{} refused the connection: {}", place(options), database.message());
    match database.code() {
        // Wrong password, unknown user, no entry in pg_hba.conf, no right to connect.
        "28P01" | "28000" | "42501" => CliError::new(USAGE, said).next("check the user name and the password"),
        "3D000" => CliError::new(USAGE, said).next("create the database, for example with `createdb`"),
        // Out of something, starting, stopping, or in trouble of its own or of a pooler.
        code if ["08", "53", "57P", "58", "XX"].iter().any(|class| code.starts_with(class)) => {
            CliError::new(UNREACHABLE, said)
        }
        _ => CliError::new(USAGE, said),
    }
}
