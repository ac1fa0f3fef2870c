//! A proxy between a test and its server: it counts what crosses the wire, and cuts it, or holds still, where a test says.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
};

use coderdb::{
    connect::Options,
    pooler::Pooler,
    sqlx::{
        PgConnection,
        postgres::{PgConnectOptions, PgSslMode},
    },
};
use tokio::{
    io::{self, AsyncReadExt, AsyncWriteExt},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::oneshot,
};

use super::{Database, environment};

const SOCKET: &str = ".s.PGSQL.5432";

/// Where a connection ends: at a round trip, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The server never sees it.
    BeforeItIsSent(usize),
    /// The server has done it and answered, and the client never learns that.
    BeforeItsAnswer(usize),
}

#[derive(Default)]
struct Wire {
    asked: usize,
    answered: usize,
    cut: Option<Cut>,
    was_cut: bool,
    /// Who is told of the cut, which does not end the connection then: the client does.
    held: Option<oneshot::Sender<()>>,
    is_black_hole: bool,
}

impl Wire {
    /// The cut is here; true for a connection that is held.
    fn end(&mut self) -> bool {
        self.was_cut = true;
        self.held.take().is_some_and(|held| held.send(()).is_ok())
    }
}

/// A way to the server of a database, for any number of connections.
pub struct Proxy {
    options: PgConnectOptions,
    url: String,
    pooler: Pooler,
    wire: Arc<Mutex<Wire>>,
    _socket: tempfile::TempDir,
}

/// A connection through a proxy.
pub struct Proxied {
    pub conn: PgConnection,
    proxy: Proxy,
}

impl Proxied {
    pub async fn connect(database: &Database) -> Self {
        let proxy = Proxy::to(database);
        let conn = database.pooler().connect(proxy.options()).await.expect("the proxy answers");
        Self { conn, proxy }
    }
}

impl std::ops::Deref for Proxied {
    type Target = Proxy;

    fn deref(&self) -> &Proxy {
        &self.proxy
    }
}

impl Proxy {
    pub fn to(database: &Database) -> Self {
        let options = database.options();
        let server: PathBuf = options.get_socket().expect("a private server has a socket").join(SOCKET);
        let socket = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(socket.path().join(SOCKET)).expect("a socket");
        let wire = Arc::new(Mutex::new(Wire::default()));
        let options = options.socket(socket.path()).ssl_mode(PgSslMode::Disable);
        let (url, _) = database.url().split_once('?').expect("a URL that says where the socket is");
        let url = format!("{url}?host={}&sslmode=disable", socket.path().display());
        let of_task = wire.clone();
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.expect("a client");
                let server = UnixStream::connect(&server).await.expect("the server");
                let wire = of_task.clone();
                tokio::spawn(async move {
                    let ((from_client, to_client), (from_server, to_server)) =
                        (client.into_split(), server.into_split());
                    // Whichever ends first, a side that hangs up or a cut, takes all four ends with it.
                    tokio::select! {
                        _ = ask(from_client, to_server, &wire) => {}
                        _ = answer(from_server, to_client, &wire) => {}
                    }
                });
            }
        });
        Self { options, url, pooler: database.pooler(), wire, _socket: socket }
    }

    pub fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// With what is between the tests and the server.
    pub fn connect_options(&self) -> Options {
        Options::from(self.options.clone()).pooler(self.pooler)
    }

    /// The variables that lead a program to it.
    pub fn environment(&self) -> Vec<(&'static str, &str)> {
        environment(&self.url, self.pooler)
    }

    /// The round trips since the last call.
    pub fn take(&self) -> usize {
        std::mem::take(&mut *self.wire()).answered
    }

    /// Ends the connection there, counted from here.
    pub fn cut(&self, cut: Cut) {
        *self.wire() = Wire { cut: Some(cut), ..Wire::default() };
    }

    /// Holds the connection still there, counted from here, until the client ends it; and says when it does.
    pub fn hold(&self, cut: Cut) -> oneshot::Receiver<()> {
        let (held, is_held) = oneshot::channel();
        *self.wire() = Wire { cut: Some(cut), held: Some(held), ..Wire::default() };
        is_held
    }

    pub fn was_cut(&self) -> bool {
        self.wire().was_cut
    }

    /// From now on, whatever is sent is lost, and nobody learns of it; or no longer, for new connections.
    pub fn black_hole(&self, is_one: bool) {
        self.wire().is_black_hole = is_one;
    }

    fn wire(&self) -> MutexGuard<'_, Wire> {
        self.wire.lock().expect("the wire")
    }
}

/// Passes on what the client says.
async fn ask(mut client: OwnedReadHalf, mut server: OwnedWriteHalf, wire: &Mutex<Wire>) -> io::Result<()> {
    // Only the first message has no kind.
    let startup = message(&mut client, false).await?;
    lose(wire).await;
    server.write_all(&startup).await?;
    let mut batch = Vec::new();
    loop {
        let message = message(&mut client, true).await?;
        lose(wire).await;
        batch.extend_from_slice(&message);
        // A Sync or a simple query ends a batch; the server answers each with one ReadyForQuery.
        if matches!(message[0], b'S' | b'Q') {
            let cut = {
                let mut wire = wire.lock().expect("the wire");
                wire.asked += 1;
                (wire.cut == Some(Cut::BeforeItIsSent(wire.asked))).then(|| wire.end())
            };
            if let Some(held) = cut {
                if held {
                    io::copy(&mut client, &mut io::sink()).await?;
                }
                return Ok(());
            }
        } else if message[0] != b'X' {
            continue;
        }
        server.write_all(&batch).await?;
        batch.clear();
    }
}

/// Passes on what the server says.
async fn answer(mut server: OwnedReadHalf, mut client: OwnedWriteHalf, wire: &Mutex<Wire>) -> io::Result<()> {
    loop {
        let message = message(&mut server, true).await?;
        let cut = {
            let mut wire = wire.lock().expect("the wire");
            let withheld = wire.cut == Some(Cut::BeforeItsAnswer(wire.answered + 1));
            wire.answered += usize::from(message[0] == b'Z');
            match (withheld, message[0]) {
                (false, _) => None,
                (true, b'Z') => Some(wire.end()),
                (true, _) => continue,
            }
        };
        match cut {
            Some(true) => std::future::pending().await,
            Some(false) => return Ok(()),
            None => {}
        }
        client.write_all(&message).await?;
    }
}

/// In a black hole, nothing goes on.
async fn lose(wire: &Mutex<Wire>) {
    if wire.lock().expect("the wire").is_black_hole {
        std::future::pending::<()>().await;
    }
}

/// One message, as it is: a kind, the length of the rest, the rest.
async fn message(from: &mut OwnedReadHalf, has_kind: bool) -> io::Result<Vec<u8>> {
    let mut message = vec![0; if has_kind { 5 } else { 4 }];
    from.read_exact(&mut message).await?;
    let length = message.last_chunk().map_or(0, |length| u32::from_be_bytes(*length)) as usize;
    let header = message.len();
    message.resize(header + length - 4, 0);
    from.read_exact(&mut message[header..]).await?;
    Ok(message)
}
