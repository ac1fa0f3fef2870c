//! How to connect: where the server is, how to enter, and what holds for the session.
//!
//! [`ConnectOptions`] read what libpq reads (a URL with one host or several, `PG…` variables, a service file, a password
//! file), and more strictly than the driver: what is misspelt is an error, because a connection without the encryption
//! that was asked for is worse than none. No password is shown by any error, and none by `Debug`.
//!
//! ```no_run
//! # async fn example() -> Result<(), coderdb::connect::Error> {
//! use std::time::Duration;
//! use coderdb::connect::ConnectOptions;
//!
//! let url = "postgres://coder@db1.example.com,db2.example.com/coder?sslmode=verify-full&target_session_attrs=read-write";
//! let options: ConnectOptions = url.parse()?;
//! let connection = options.application_name("reaper").lock_timeout(Duration::from_secs(5)).connect().await?;
//! # drop(connection);
//! # Ok(())
//! # }
//! ```

mod error;
mod host;
mod parameters;
mod password_file;
mod pooler;
mod tls;

use std::{
    collections::VecDeque,
    fmt::{self, Write as _},
    fs,
    path::Path,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::stream::{FuturesUnordered, StreamExt};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sqlx::{
    PgConnection, Row as _,
    postgres::{PgConnectOptions, PgSslMode},
};
use tokio::sync::watch;

pub use error::Error;
use error::invalid;
use host::Host;
pub use parameters::configured;
use parameters::{Parameters, Value, read};
pub use pooler::{Pooler, UnknownPooler};
use tls::Encryption;

/// How long an attempt to reach one host may take, unless `connect_timeout` says something else.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

const POOLER: &str = "CODERDB_POOLER";

/// After so long without an answer of one host, the next one is tried beside it.
const HEAD_START: Duration = Duration::from_millis(250);

/// Where and how to connect. A clone shares the knowledge of which host was the right one.
#[derive(Clone)]
pub struct ConnectOptions {
    hosts: Vec<Host>,
    /// The host that was the right one last time.
    last: Arc<AtomicUsize>,
    target: Target,
    timeout: Duration,
    session: Session,
    pooler: Pooler,
    /// The tasks of encrypted connections have receivers of this.
    tasks: Arc<watch::Sender<()>>,
}

/// What is set for the session after it has begun, in milliseconds or seconds as the server counts them.
#[derive(Debug, Clone, Copy, Default)]
struct Session {
    statement_timeout: Option<Duration>,
    lock_timeout: Option<Duration>,
    idle_in_transaction_timeout: Option<Duration>,
    keepalive: Option<Duration>,
}

/// Which of several servers is the right one: libpq's `target_session_attrs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Target {
    /// Any that answers.
    #[default]
    Any,
    /// One that takes writes.
    ReadWrite,
    /// One that takes none.
    ReadOnly,
    /// One that is not in recovery.
    Primary,
    /// One that is in recovery.
    Standby,
}

impl Target {
    const ALL: [Self; 5] = [Self::Any, Self::ReadWrite, Self::ReadOnly, Self::Primary, Self::Standby];

    /// libpq's word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::ReadWrite => "read-write",
            Self::ReadOnly => "read-only",
            Self::Primary => "primary",
            Self::Standby => "standby",
        }
    }

    const fn fits(self, in_recovery: bool, read_only: bool) -> bool {
        match self {
            Self::Any => true,
            Self::ReadWrite => !read_only,
            Self::ReadOnly => read_only,
            Self::Primary => !in_recovery,
            Self::Standby => in_recovery,
        }
    }
}

impl ConnectOptions {
    /// What `DATABASE_URL` says, or the file that `DATABASE_URL_FILE` names, and libpq's variables and service file for
    /// what it leaves out; `None` when nothing of this is set. `CODERDB_POOLER` is `session` or `transaction`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything that is there and cannot be understood.
    pub fn from_environment() -> Result<Option<Self>, Error> {
        if configured().is_none() {
            // A database is configured: no other may be used instead.
            return match (parameters::variable("DATABASE_URL")?, parameters::variable("DATABASE_URL_FILE")?) {
                (Some(_), _) => Err(invalid("DATABASE_URL", "is set and empty: set it to a URL, or unset it")),
                (_, Some(_)) => Err(invalid("DATABASE_URL_FILE", "is set and empty: name a file, or unset it")),
                (None, None) => Ok(None),
            };
        }
        let url = parameters::secret("DATABASE_URL")?.filter(|url| !url.is_empty());
        let options = Self::read(url.as_deref(), "DATABASE_URL")?;
        let options = match parameters::variable(POOLER)?.filter(|mode| !mode.is_empty()) {
            Some(mode) => options.pooler(mode.parse().map_err(|_| invalid(POOLER, "is not session or transaction"))?),
            None => options,
        };
        Ok(Some(options))
    }

    fn read(url: Option<&str>, origin: &str) -> Result<Self, Error> {
        let mut parameters = Parameters::default();
        if let Some(url) = url {
            parameters.add_url(url, origin)?;
        }
        parameters.add_service()?;
        parameters.add_environment()?;
        Self::from_parameters(&parameters)
    }

    fn from_parameters(parameters: &Parameters) -> Result<Self, Error> {
        let seconds = |value: &Value| {
            let seconds = read(value, "connect_timeout", "a number of seconds", |text| text.parse::<i64>().ok())?;
            // As with libpq: 0 and less mean no time-out.
            let some = u64::try_from(seconds).ok().filter(|seconds| *seconds > 0);
            Ok(some.map_or(Duration::MAX, Duration::from_secs))
        };
        let target = |value: &Value| {
            let words = Target::ALL.map(Target::as_str).join(", ");
            let find = |text: &str| Target::ALL.into_iter().find(|target| target.as_str() == text);
            read(value, "target_session_attrs", format!("one of {words}"), find)
        };
        Ok(Self {
            hosts: hosts(parameters)?,
            last: Arc::default(),
            target: parameters.get("target_session_attrs").map_or(Ok(Target::Any), target)?,
            timeout: parameters.get("connect_timeout").map_or(Ok(CONNECT_TIMEOUT), seconds)?,
            session: Session::default(),
            pooler: Pooler::default(),
            tasks: Arc::default(),
        })
    }

    /// What the server shows as the name of the program, 63 bytes at most: `coderdb` if nothing is said.
    #[must_use]
    pub fn application_name(self, name: &str) -> Self {
        self.map_hosts(|options| options.application_name(name))
    }

    /// How long one statement may take; the server cancels it with SQLSTATE 57014.
    #[must_use]
    pub const fn statement_timeout(mut self, timeout: Duration) -> Self {
        self.session.statement_timeout = Some(timeout);
        self
    }

    /// How long one statement may wait for one lock; the server cancels it with SQLSTATE 55P03.
    #[must_use]
    pub const fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.session.lock_timeout = Some(timeout);
        self
    }

    /// How long a transaction may wait for its next statement; the server ends the session.
    #[must_use]
    pub const fn idle_in_transaction_timeout(mut self, timeout: Duration) -> Self {
        self.session.idle_in_transaction_timeout = Some(timeout);
        self
    }

    /// After how long without a sign of this client the server asks whether it is still there, three times. It ends the
    /// session, and frees its locks, after four times as long. Of TCP connections; the driver cannot ask the other way
    /// round.
    #[must_use]
    pub const fn keepalive(mut self, idle: Duration) -> Self {
        self.session.keepalive = Some(idle);
        self
    }

    /// How long an attempt to reach one host may take: [`CONNECT_TIMEOUT`] if nothing is said.
    #[must_use]
    pub const fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Which of several servers is the right one.
    #[must_use]
    pub const fn target(mut self, target: Target) -> Self {
        self.target = target;
        self
    }

    /// What lends the server's sessions: [`Pooler::Session`] if nothing is said. Through [`Pooler::Transaction`] there
    /// is no session to set a time-out for: set them for the role.
    #[must_use]
    pub const fn pooler(mut self, pooler: Pooler) -> Self {
        self.pooler = pooler;
        self
    }

    /// What lends the server's sessions.
    #[must_use]
    pub const fn get_pooler(&self) -> Pooler {
        self.pooler
    }

    /// Logs no statements, also not slow ones.
    #[must_use]
    pub fn disable_statement_logging(self) -> Self {
        self.map_hosts(sqlx::ConnectOptions::disable_statement_logging)
    }

    fn map_hosts(mut self, change: impl Fn(PgConnectOptions) -> PgConnectOptions) -> Self {
        for host in &mut self.hosts {
            host.options = change(host.options.clone());
        }
        self
    }

    /// Connects to the host that was the right one last time, for what connects by itself: the listening connection.
    #[cfg(feature = "watch")]
    pub(crate) async fn connect_by<T, F>(&self, by: impl Fn(PgConnectOptions) -> F) -> sqlx::Result<T>
    where
        F: Future<Output = sqlx::Result<T>>,
    {
        let host = &self.hosts[self.last.load(Ordering::Relaxed) % self.hosts.len()];
        let connected = tokio::time::timeout(self.timeout, host.connect_by(&self.tasks, by)).await;
        connected.unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
    }

    /// Waits until the encrypted connections that were closed have passed on everything; not long, if others are left.
    #[cfg(feature = "cli")]
    pub(crate) async fn passed_on(&self) {
        let _ = tokio::time::timeout(Duration::from_millis(100), self.tasks.closed()).await;
    }

    /// Connects: to the host that was the right one last time, and to the others when that one fails, is not the right
    /// one any more, or has not answered within 250 ms. As long as one is silent, the others are asked again, until the
    /// time-out for one host is over: one of them may be about to take over.
    ///
    /// One round trip more than the server asks for, which sets the time-outs, finds the kind of server, and lets one
    /// whose database has the encoding `SQL_ASCII` send texts as they are; three more through a transaction pooler, to
    /// find out that it keeps prepared statements.
    ///
    /// # Errors
    /// The error of the last host that failed; [`Error::Invalid`] for time-outs through a transaction pooler.
    pub async fn connect(&self) -> Result<PgConnection, Error> {
        if self.pooler == Pooler::Transaction && !self.session.statements().is_empty() {
            let instead = "cannot be set through a transaction pooler: use ALTER ROLE … SET";
            return Err(invalid("a time-out of the session", instead));
        }
        let began = Instant::now();
        let last = self.last.load(Ordering::Relaxed);
        let mut waiting: VecDeque<_> = (last..last + self.hosts.len()).map(|index| index % self.hosts.len()).collect();
        let mut attempts = FuturesUnordered::new();
        let (mut again, mut failure) = (Vec::new(), None);
        loop {
            if let Some(index) = waiting.pop_front() {
                attempts.push(async move { (index, self.connect_to(&self.hosts[index]).await) });
            }
            let Ok(answer) = tokio::time::timeout(HEAD_START, attempts.next()).await else {
                // Two slow hosts would otherwise be tried again and again.
                if began.elapsed() < self.timeout {
                    waiting.extend(again.drain(..));
                }
                continue;
            };
            match answer {
                Some((index, Ok(connection))) => {
                    self.last.store(index, Ordering::Relaxed);
                    return Ok(connection);
                }
                Some((index, Err(error))) => {
                    if error.is_passing() {
                        again.push(index);
                    }
                    // That a host is not the primary says less than that another one refuses the password.
                    let is_weak = matches!(error, Error::OtherTarget { .. });
                    let error = failure.take().filter(|_| is_weak).unwrap_or(error);
                    if attempts.is_empty() && waiting.is_empty() {
                        return Err(error);
                    }
                    failure = Some(error);
                }
                None => {}
            }
        }
    }

    async fn connect_to(&self, host: &Host) -> Result<PgConnection, Error> {
        let failed = |source| Error::Failed { server: server(host), source };
        let attempt = async {
            let by = |options| async move { <PgConnection as sqlx::Connection>::connect_with(&options).await };
            let mut connection = host.connect_by(&self.tasks, by).await.map_err(failed)?;
            let (settings, is_pooled) = (self.session.statements(), self.pooler == Pooler::Transaction);
            let begin = if is_pooled { "BEGIN;" } else { "" };
            // Where texts may be any bytes, the server would fail a statement rather than send them as UTF-8.
            let ask = "SELECT pg_is_in_recovery()::text, current_setting('transaction_read_only'), \
                       CASE current_setting('server_encoding') \
                       WHEN 'SQL_ASCII' THEN set_config('client_encoding', 'SQL_ASCII', false) END";
            // A standby answers no other isolation level, and the role's may be another.
            let level = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED;";
            let ask = sqlx::AssertSqlSafe(format!("{begin}{level}{settings}{ask}"));
            let row = sqlx::raw_sql(ask).fetch_one(&mut connection).await.map_err(failed)?;
            let is_on = |column, on| row.try_get::<&str, _>(column).map(|value| value == on).map_err(failed);
            let fits = self.target.fits(is_on(0, "true")?, is_on(1, "on")?);
            if is_pooled && !pooler::keeps_statements(&mut connection).await.map_err(failed)? {
                return Err(Error::ForgetsStatements { server: server(host) });
            }
            if fits {
                Ok(connection)
            } else {
                Err(Error::OtherTarget { server: server(host), wanted: self.target.as_str() })
            }
        };
        let no_answer = |_| Err(Error::NoAnswer { server: server(host), waited: self.timeout });
        tokio::time::timeout(self.timeout, attempt).await.unwrap_or_else(no_answer)
    }
}

impl Session {
    /// As a message before the first statement of the caller, not as a parameter of the startup, which poolers refuse.
    fn statements(self) -> String {
        // 0 would switch a time-out off.
        let millis = |duration: Duration| duration.as_millis().clamp(1, i32::MAX as u128);
        let seconds = |duration: Duration| duration.as_secs().clamp(1, i32::MAX as u64);
        let mut sql = String::new();
        for (name, duration) in [
            ("statement_timeout", self.statement_timeout),
            ("lock_timeout", self.lock_timeout),
            ("idle_in_transaction_session_timeout", self.idle_in_transaction_timeout),
        ] {
            if let Some(duration) = duration {
                let _ = write!(sql, "SET {name} = {};", millis(duration));
            }
        }
        if let Some(idle) = self.keepalive.map(seconds) {
            let _ = write!(
                sql,
                "SET tcp_keepalives_idle = {idle}; SET tcp_keepalives_interval = {idle}; SET tcp_keepalives_count = 3;"
            );
        }
        sql
    }
}

/// A URL, as libpq reads it, with its variables and files for what the URL leaves out.
impl FromStr for ConnectOptions {
    type Err = Error;

    fn from_str(url: &str) -> Result<Self, Error> {
        Self::read(Some(url), "the URL")
    }
}

/// What the caller has read elsewhere. The files of certificates cannot be read out of it: encrypted connections trust
/// the authorities of the operating system, and have no certificate of their own. A URL can name them.
impl From<PgConnectOptions> for ConnectOptions {
    fn from(options: PgConnectOptions) -> Self {
        let name = options.get_host().trim_matches(['[', ']']).to_owned();
        let encryption = Encryption { mode: options.get_ssl_mode(), name, roots: None, identity: None };
        Self {
            hosts: vec![Host::new(options, encryption)],
            last: Arc::default(),
            target: Target::Any,
            timeout: CONNECT_TIMEOUT,
            session: Session::default(),
            pooler: Pooler::default(),
            tasks: Arc::default(),
        }
    }
}

/// Where it connects to: databases, hosts and ports, and nothing secret.
impl fmt::Display for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hosts.iter().map(server).collect::<Vec<_>>().join(", "))
    }
}

impl fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<_> = self.hosts.iter().map(server).collect();
        f.debug_struct("ConnectOptions")
            .field("hosts", &hosts)
            .field("last", &self.last)
            .field("target", &self.target)
            .field("timeout", &self.timeout)
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

/// Each host, and how to connect to it.
fn hosts(parameters: &Parameters) -> Result<Vec<Host>, Error> {
    let (names, addresses, ports) = (parameters.list("host"), parameters.list("hostaddr"), parameters.list("port"));
    let count = names.len().max(addresses.len()).max(1);
    let port = |index: usize| -> Result<u16, Error> {
        let Some(value) = parameters.get("port") else { return Ok(5432) };
        if ports.len() != 1 && ports.len() != count {
            return read(value, "port", format!("one port or {count}"), |_| None);
        }
        match ports[index % ports.len()] {
            "" => Ok(5432),
            port => read(value, "port", "a port", |_| port.parse().ok().filter(|port| *port > 0)),
        }
    };
    if let (Some(value), true) = (parameters.get("hostaddr"), names.len() > 1 && names.len() != addresses.len()) {
        return read(value, "hostaddr", format!("a list of {} addresses", names.len()), |_| None);
    }
    let at = |list: &[&str], index: usize| list.get(index).copied().filter(|host| !host.is_empty()).map(str::to_owned);
    (0..count)
        .map(|index| {
            let port = port(index)?;
            let (address, name) = (at(&addresses, index), at(&names, index));
            let host = address.clone().or_else(|| name.clone()).unwrap_or_else(|| default_host(port));
            let name = name.or(address).unwrap_or_else(|| host.clone());
            let options = driver_options(parameters, &host, &name, port)?;
            Ok(Host::new(options, encryption(parameters, &host, name)?))
        })
        .collect()
}

/// What is asked for of the way to this host, whose name is not that of a socket's directory.
fn encryption(parameters: &Parameters, host: &str, name: String) -> Result<Encryption, Error> {
    let modes = "disable, allow, prefer, require, verify-ca or verify-full";
    let mode = |value| read(value, "sslmode", modes, |text| text.parse::<PgSslMode>().ok());
    let mode = parameters.get("sslmode").map(mode).transpose()?;
    let roots = parameters.get("sslrootcert");
    let mode = match (mode, roots) {
        (None | Some(PgSslMode::VerifyFull), Some(roots)) if roots.text == "system" => PgSslMode::VerifyFull,
        (Some(_), Some(roots)) if roots.text == "system" => {
            return Err(invalid(&roots.origin, "has sslrootcert=system, and sslmode is weaker than verify-full"));
        }
        // As with libpq: with a root certificate, `require` verifies the authority.
        (Some(PgSslMode::Require), Some(_)) => PgSslMode::VerifyCa,
        (mode, _) => mode.unwrap_or_default(),
    };
    let is_plain = host.starts_with('/') || matches!(mode, PgSslMode::Disable);
    let file = |keyword: &str| match parameters.get(keyword) {
        Some(value) if !is_plain && value.text != "system" => match fs::File::open(&value.text) {
            Ok(_) => Ok(Some(value.text.clone().into())),
            Err(error) => Err(value.wrong(keyword, format!("names {}, which cannot be read: {error}", value.text))),
        },
        _ => Ok(None),
    };
    let identity = match (file("sslcert")?, file("sslkey")?) {
        (Some(certificate), Some(key)) => Some([certificate, key]),
        (None, None) => None,
        (certificate, _) => {
            let (one, other) = if certificate.is_some() { ("sslcert", "sslkey") } else { ("sslkey", "sslcert") };
            let value = parameters.get(one).expect("the file that was found");
            return Err(value.wrong(one, format!("needs {other}, too")));
        }
    };
    Ok(Encryption { mode, name, roots: file("sslrootcert")?, identity })
}

/// Where servers have their sockets, if nothing is said.
const SOCKETS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// Where a server listens on this machine, if nothing is said.
fn default_host(port: u16) -> String {
    let socket = format!(".s.PGSQL.{port}");
    let mut directories = SOCKETS.into_iter();
    directories.find(|directory| Path::new(directory).join(&socket).exists()).unwrap_or("localhost").to_owned()
}

/// Through the driver's own parser: for some settings there is no other way in. The name is that of the password file.
fn driver_options(parameters: &Parameters, host: &str, name: &str, port: u16) -> Result<PgConnectOptions, Error> {
    let port = port.to_string();
    // As with libpq: that of the operating system.
    let user = match parameters.text("user") {
        Some(user) => user.to_owned(),
        None => whoami::username().map_err(|error| {
            invalid("PGUSER", format!("is not set, and the operating system has no name for this process: {error}"))
        })?,
    };
    let database = parameters.text("dbname").unwrap_or(&user);
    // libpq looks for these under this name, and for other sockets under their directory.
    let name = if SOCKETS.contains(&name) { "localhost" } else { name };
    let password = parameters.text("password").map(str::to_owned);
    let password = password
        .or_else(|| password_file::password(parameters.text("passfile"), [name, &port, database, &user]))
        .unwrap_or_default();
    let mut url = "postgres:///?".to_owned();
    let mut add = |keyword: &str, text: &str| {
        let _ = write!(url, "{keyword}={}&", utf8_percent_encode(text, NON_ALPHANUMERIC));
    };
    // The password in any case, if only an empty one: else the driver looks for it, and logs lines that it cannot read.
    for (keyword, text) in
        [("host", host), ("port", &port), ("user", &user), ("dbname", database), ("password", &password)]
    {
        add(keyword, text);
    }
    add("application_name", parameters.text("application_name").unwrap_or("coderdb"));
    // The driver reads the variable itself.
    if let Some(options) = parameters.get("options").filter(|options| options.origin != "PGOPTIONS") {
        add("options", &options.text);
    }
    PgConnectOptions::from_str(&url)
        .map_err(|source| Error::Failed { server: format!("port {port} of {host}"), source })
}

/// The host, port and database, and nothing secret.
fn server(host: &Host) -> String {
    let options = &host.options;
    let at = match options.get_socket() {
        Some(socket) => socket.display().to_string(),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    };
    format!("database {:?} at {at}", options.get_database().unwrap_or(options.get_username()))
}
