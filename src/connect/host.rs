//! One host, and the ways to it.
//!
//! The driver's own TLS parses certificates also if they are not to be verified, and cannot be configured otherwise. So
//! a task of this process encrypts: the driver connects to it over a socket, and it connects to the server.

use std::{io, path::PathBuf};

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::{
    io::{AsyncWriteExt, copy, sink, split},
    net::{TcpStream, UnixListener, UnixStream},
    sync::watch,
    task::JoinHandle,
    try_join,
};
use tokio_rustls::{client::TlsStream, rustls::ClientConfig};

use super::tls::Encryption;

/// How to connect to one host.
#[derive(Clone)]
pub(super) struct Host {
    pub options: PgConnectOptions,
    encryption: Encryption,
}

impl Host {
    pub fn new(options: PgConnectOptions, mut encryption: Encryption) -> Self {
        // As with libpq: nothing is encrypted on a socket, whatever is asked for, and the server would refuse to.
        if options.get_socket().is_some() || options.get_host().starts_with('/') {
            encryption.mode = PgSslMode::Disable;
        }
        // Poolers refuse that parameter; servers since version 12 send the shortest digits that are exact without it.
        Self { options: options.ssl_mode(PgSslMode::Disable).extra_float_digits(None), encryption }
    }

    /// Has the driver connect, to the host itself or to a task that encrypts, as the mode says. The task ends with the
    /// connection; until then it holds a receiver of `tasks`.
    pub async fn connect_by<T, F>(
        &self,
        tasks: &watch::Sender<()>,
        by: impl Fn(PgConnectOptions) -> F,
    ) -> sqlx::Result<T>
    where
        F: Future<Output = sqlx::Result<T>>,
    {
        let plain = || by(self.options.clone());
        if matches!(self.encryption.mode, PgSslMode::Disable) {
            return plain().await;
        }
        let config = self.encryption.config()?;
        match self.encryption.mode {
            PgSslMode::Allow => match plain().await {
                Err(error) if is_refused(&error) => self.encrypted(config, tasks, &by).await?.ok_or(error),
                connected => connected,
            },
            PgSslMode::Prefer => match self.encrypted(config, tasks, &by).await {
                Ok(Some(connected)) => Ok(connected),
                Ok(None) => plain().await,
                // Nothing that both sides know, or not for this user.
                Err(error) if is_of_tls(&error) || is_refused(&error) => {
                    plain().await.map_err(|second| if is_refused(&second) { error } else { second })
                }
                Err(error) => Err(error),
            },
            _ => {
                let connected = self.encrypted(config, tasks, &by).await?;
                connected.ok_or_else(|| sqlx::Error::Tls("the server does not encrypt, and sslmode asks for it".into()))
            }
        }
    }

    /// Has the driver connect to a task that encrypts; `None` if the server cannot.
    async fn encrypted<T, F>(
        &self,
        config: ClientConfig,
        tasks: &watch::Sender<()>,
        by: impl Fn(PgConnectOptions) -> F,
    ) -> sqlx::Result<Option<T>>
    where
        F: Future<Output = sqlx::Result<T>>,
    {
        let stream = TcpStream::connect((self.options.get_host(), self.options.get_port())).await?;
        stream.set_nodelay(true)?;
        let Some(server) = self.encryption.encrypt(stream, config).await? else { return Ok(None) };
        let (listener, directory) = PrivateListener::bind(self.options.get_port())?;
        let mut task = None;
        let accept = async {
            let client = listener.accept().await?;
            let held = tasks.subscribe();
            task = Some(tokio::spawn(async move {
                let _held = held;
                pass_on(client, server).await
            }));
            Ok(())
        };
        match try_join!(accept, by(self.options.clone().socket(directory))) {
            Ok(((), connected)) => Ok(Some(connected)),
            Err(sqlx::Error::Io(error)) => Err(lost(task, error).await.into()),
            Err(error) => Err(error),
        }
    }
}

/// Why the connection was lost: what the task says of it, which knows more than the driver. A server refuses a client's
/// certificate only after it has been connected.
async fn lost(task: Option<JoinHandle<io::Result<()>>>, error: io::Error) -> io::Error {
    match task {
        Some(task) => task.await.ok().and_then(Result::err).unwrap_or(error),
        None => error,
    }
}

/// Until the client hangs up.
async fn pass_on(client: UnixStream, server: TlsStream<TcpStream>) -> io::Result<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = split(server);
    let requests = async {
        copy(&mut from_client, &mut to_server).await?;
        // Says that no more will come, so that the server does not take it for cut off.
        to_server.shutdown().await
    };
    let ended = tokio::select! {
        ended = requests => return ended,
        ended = copy(&mut from_server, &mut to_client) => ended.map(drop),
    };
    // A client that could not send any more would not read why the server has hung up.
    to_client.shutdown().await?;
    copy(&mut from_client, &mut sink()).await?;
    ended
}

/// No entry in `pg_hba.conf`, which may be for connections of one kind.
fn is_refused(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref() == Some("28000")
}

fn is_of_tls(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData)
}

/// A socket that only this process comes in through.
struct PrivateListener {
    listener: UnixListener,
    #[cfg(not(target_os = "linux"))]
    _directory: tempfile::TempDir,
}

#[cfg(target_os = "linux")]
impl PrivateListener {
    /// And what the driver is to take for the socket's directory: a name without a file, because there may be no place
    /// for one.
    fn bind(port: u16) -> io::Result<(Self, PathBuf)> {
        use std::hash::{BuildHasher as _, RandomState};
        loop {
            let random = RandomState::new().hash_one(());
            let directory = PathBuf::from(format!("\0coderdb-{}-{random:016x}", std::process::id()));
            match UnixListener::bind(directory.join(format!(".s.PGSQL.{port}"))) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                listener => return Ok((Self { listener: listener? }, directory)),
            }
        }
    }

    async fn accept(&self) -> io::Result<UnixStream> {
        loop {
            let (client, _) = self.listener.accept().await?;
            // Such a name has no owner and no mode.
            if client.peer_cred()?.pid() == i32::try_from(std::process::id()).ok() {
                return Ok(client);
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl PrivateListener {
    /// And its directory, which no other user may enter.
    fn bind(port: u16) -> io::Result<(Self, PathBuf)> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().to_owned();
        let listener = UnixListener::bind(path.join(format!(".s.PGSQL.{port}")))?;
        Ok((Self { listener, _directory: directory }, path))
    }

    async fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }
}
