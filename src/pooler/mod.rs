//! Working through a pooler that lends a server for one transaction.
//!
//! Such a pooler, PgBouncer with `pool_mode = transaction` say, may give each batch of messages to another server. The
//! driver prepares a statement in one batch and uses it in another. So a task stands between the driver and the pooler,
//! and prepares each statement again in the batch that uses it: see [`Pooler::connect`].

mod statements;
mod tls;

use std::{
    env,
    fs::{self, DirBuilder},
    hash::{BuildHasher, RandomState},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Mutex, PoisonError},
};

use sqlx::{
    Connection, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixListener, UnixStream},
    sync::Notify,
};

use statements::Statements;
pub(crate) use tls::Trust;

/// How much is read at once. Four of these per connection.
const CHUNK: usize = 16 << 10;

/// What lends the server's sessions, if anything does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pooler {
    /// Nothing, or a pooler that lends a session for as long as the connection lasts.
    #[default]
    Session,
    /// A pooler that lends a session for one transaction at a time: what belongs to a session does not work, that is
    /// `LISTEN`, `SET`, `PREPARE`, temporary tables, and advisory locks that outlive a transaction.
    Transaction,
}

impl Pooler {
    /// Connects. Takes one round trip more than the authentication needs, as a connection of the driver does.
    ///
    /// Through [`Pooler::Transaction`], a task of the current runtime stands between the connection and the pooler, and
    /// ends with either. It prepares a statement anew with each use, in the same round trip. Over TCP, `sslmode` must be
    /// `disable` here; `connect::Options` know more, and can do `verify-full`, too. When the columns of a statement have
    /// changed since the connection used it first, the connection ends.
    ///
    /// # Errors
    /// Those of the driver; [`sqlx::Error::Configuration`] for a TLS mode that is not possible.
    pub async fn connect(self, options: &PgConnectOptions) -> sqlx::Result<PgConnection> {
        self.connect_trusting(options, None).await
    }

    /// As [`Self::connect`], and encrypted where the options ask for it and somebody is trusted.
    pub(crate) async fn connect_trusting(
        self,
        options: &PgConnectOptions,
        trust: Option<&Trust>,
    ) -> sqlx::Result<PgConnection> {
        // PgBouncer refuses this parameter, and servers since version 12 do not need it.
        let options = options.clone().extra_float_digits(None);
        match self {
            Self::Session => Box::pin(PgConnection::connect_with(&options)).await,
            Self::Transaction => {
                let (host, mode) = (options.get_host().trim_matches(['[', ']']), options.get_ssl_mode());
                let upstream: Box<dyn Upstream> = match (socket(&options), mode, trust) {
                    (Some(path), ..) => Box::new(UnixStream::connect(path).await?),
                    (None, PgSslMode::Disable, _) => Box::new(tcp(host, &options).await?),
                    (None, PgSslMode::VerifyFull, Some(trust)) => {
                        let upstream = tcp(host, &options).await?;
                        Box::new(Box::pin(tls::encrypt(upstream, host, trust)).await?)
                    }
                    _ => {
                        return Err(sqlx::Error::Configuration(
                            "through a transaction pooler, sslmode must be disable or verify-full, without a client's \
                             certificate, or the pooler reached over a socket"
                                .into(),
                        ));
                    }
                };
                Box::pin(through(upstream, options)).await
            }
        }
    }
}

/// The way to a pooler.
trait Upstream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Upstream for S {}

async fn tcp(host: &str, options: &PgConnectOptions) -> io::Result<TcpStream> {
    let upstream = TcpStream::connect((host, options.get_port())).await?;
    upstream.set_nodelay(true)?;
    Ok(upstream)
}

/// As `CODERDB_POOLER` says it.
impl FromStr for Pooler {
    type Err = UnknownPooler;

    fn from_str(mode: &str) -> Result<Self, UnknownPooler> {
        match mode {
            "session" => Ok(Self::Session),
            "transaction" => Ok(Self::Transaction),
            _ => Err(UnknownPooler),
        }
    }
}

/// There are two modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a pooler is `session` or `transaction`")]
pub struct UnknownPooler;

/// The path of the socket, where there is one.
fn socket(options: &PgConnectOptions) -> Option<PathBuf> {
    let host = Path::new(options.get_host());
    let directory = options.get_socket().map(PathBuf::as_path).or_else(|| host.is_absolute().then_some(host))?;
    Some(directory.join(socket_name(options)))
}

fn socket_name(options: &PgConnectOptions) -> String {
    format!(".s.PGSQL.{}", options.get_port())
}

/// A connection of the driver to a task that passes its messages on.
///
/// The driver takes a path, and no stream: the socket is in a directory of our own, and gone once it is connected.
async fn through(upstream: Box<dyn Upstream>, options: PgConnectOptions) -> sqlx::Result<PgConnection> {
    let private = PrivateDir::create()?;
    let listener = UnixListener::bind(private.0.join(socket_name(&options)))?;
    let options = options.socket(&private.0).ssl_mode(PgSslMode::Disable);
    let accept = async {
        let (client, _) = listener.accept().await?;
        drop(private);
        tokio::spawn(pass_on(client, upstream));
        Ok(())
    };
    let ((), connection) = tokio::try_join!(accept, PgConnection::connect_with(&options))?;
    Ok(connection)
}

/// Until one of them hangs up; then the other is, too.
async fn pass_on(client: UnixStream, upstream: Box<dyn Upstream>) {
    let statements = Mutex::new(Statements::default());
    let locked = || statements.lock().unwrap_or_else(PoisonError::into_inner);
    let (answered, nothing) = (Notify::new(), Notify::new());
    let requests = |input: &[u8], output: &mut Vec<u8>| locked().requests(input, output);
    let answers = |input: &[u8], output: &mut Vec<u8>| {
        let mut statements = locked();
        let done = statements.answers(input, output)?;
        if statements.is_free() {
            answered.notify_one();
        }
        Ok(done)
    };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = tokio::io::split(upstream);
    let ended = tokio::select! {
        ended = pump(from_client, to_server, &answered, requests) => ended,
        ended = pump(from_server, to_client, &nothing, answers) => ended,
    };
    // A connection that breaks is the driver's to tell.
    if let Err(error) = ended
        && error.kind() == io::ErrorKind::InvalidData
    {
        tracing::warn!(name: "pooler.connection_ended", error = %error, "ends a connection through a pooler");
    }
}

/// Passes on what `rewrite` makes of what comes, until there is no more. What it leaves, it sees again with what comes
/// next, or once it is `free` to go on.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    free: &Notify,
    rewrite: impl Fn(&[u8], &mut Vec<u8>) -> io::Result<usize>,
) -> io::Result<()> {
    let (mut input, mut output) = (Vec::new(), Vec::new());
    loop {
        input.reserve(CHUNK);
        tokio::select! {
            read = from.read_buf(&mut input) => if read? == 0 { return Ok(()) },
            () = free.notified() => {}
        }
        let done = rewrite(&input, &mut output)?;
        input.drain(..done);
        to.write_all(&output).await?;
        to.flush().await?;
        output.clear();
        // One long statement is no reason to keep its room.
        output.shrink_to(2 * CHUNK);
        input.shrink_to(2 * CHUNK);
    }
}

/// A directory that nobody else may enter, removed with this value.
struct PrivateDir(PathBuf);

impl PrivateDir {
    fn create() -> io::Result<Self> {
        loop {
            let random = RandomState::new().hash_one(());
            let path = env::temp_dir().join(format!("coderdb-{}-{random:016x}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for PrivateDir {
    fn drop(&mut self) {
        // What cannot be removed is empty but for a socket that nobody listens at.
        let _ = fs::remove_dir_all(&self.0);
    }
}
