//! A proxy between a test and its server: it counts what crosses the wire, and cuts it, or holds still, where a test says.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
};

use coderdb::{
    connect::{ConnectOptions, Pooler},
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
    sync::watch,
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
    /// What the message says that is held.
    text: Option<&'static str>,
    was_cut: bool,
    is_black_hole: bool,
    /// Whether a cut waits for the test.
    holds: bool,
    /// How many of the connections to come are counted and cut; `None` for all.
    counted: Option<usize>,
}

/// A way to the server of a database, for any number of connections.
pub struct Proxy {
    options: PgConnectOptions,
    url: String,
    pooler: Pooler,
    wire: Arc<Mutex<Wire>>,
    /// Whether a cut that waits has come to its place, and whether the test lets it go on.
    held: watch::Sender<Held>,
    _socket: tempfile::TempDir,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    NotYet,
    Here,
    ToBeCut,
    ToGoOn,
}

/// A connection through a proxy.
pub struct Proxied {
    pub conn: PgConnection,
    proxy: Proxy,
}

impl Proxied {
    pub async fn connect(database: &Database) -> Self {
        let proxy = Proxy::to(database);
        let conn = proxy.connect_options().connect().await.expect("the proxy answers");
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
        let held = watch::Sender::new(Held::NotYet);
        let of_task = (wire.clone(), held.clone());
        tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.expect("a client");
                let mut server = UnixStream::connect(&server).await.expect("the server");
                let (wire, held) = of_task.clone();
                let is_counted = match &mut wire.lock().expect("the wire").counted {
                    None => true,
                    Some(more) => std::mem::replace(more, more.saturating_sub(1)) > 0,
                };
                tokio::spawn(async move {
                    if !is_counted {
                        let _ = io::copy_bidirectional(&mut client, &mut server).await;
                        return;
                    }
                    let ((from_client, to_client), (from_server, to_server)) =
                        (client.into_split(), server.into_split());
                    // Whichever ends first, a side that hangs up or a cut, takes all four ends with it.
                    tokio::select! {
                        _ = ask(from_client, to_server, &wire, &held) => {}
                        _ = answer(from_server, to_client, &wire, &held) => {}
                    }
                });
            }
        });
        Self { options, url, pooler: database.pooler(), wire, held, _socket: socket }
    }

    /// The way through it, for a program.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// From now on, counts and cuts nothing but the next connection.
    pub fn only_the_next(&self) {
        *self.wire() = Wire { counted: Some(1), ..Wire::default() };
    }

    /// Holds the connection still there, counted from here, until the client ends it, or the test says how it goes on.
    pub fn hold(&self, cut: Cut) {
        self.held.send_replace(Held::NotYet);
        let mut wire = self.wire();
        *wire = Wire { cut: Some(cut), holds: true, counted: wire.counted, ..Wire::default() };
    }

    /// Holds the connection before the first message that says this.
    pub fn hold_before(&self, text: &'static str) {
        self.held.send_replace(Held::NotYet);
        let mut wire = self.wire();
        *wire = Wire { text: Some(text), holds: true, counted: wire.counted, ..Wire::default() };
    }

    /// Until it is stopped there.
    pub async fn held(&self) {
        // The sender is there as long as this is.
        let _ = self.held.subscribe().wait_for(|held| *held == Held::Here).await;
    }

    /// Cuts what is held, or lets it go on.
    pub fn release(&self, is_cut: bool) {
        self.held.send_replace(if is_cut { Held::ToBeCut } else { Held::ToGoOn });
    }

    pub fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// With what is between the tests and the server.
    pub fn connect_options(&self) -> ConnectOptions {
        ConnectOptions::from(self.options.clone()).pooler(self.pooler)
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
async fn ask(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    wire: &Mutex<Wire>,
    held: &watch::Sender<Held>,
) -> io::Result<()> {
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
            let holds = {
                let mut wire = wire.lock().expect("the wire");
                wire.asked += 1;
                let says = |text: &str| batch.windows(text.len()).any(|window| window == text.as_bytes());
                let is_here =
                    wire.cut == Some(Cut::BeforeItIsSent(wire.asked)) || wire.text.take_if(|text| says(text)).is_some();
                wire.was_cut |= is_here;
                is_here.then_some(wire.holds)
            };
            let is_cut = match holds {
                None => false,
                Some(false) => true,
                Some(true) => {
                    let mut nowhere = io::sink();
                    tokio::select! {
                        is_cut = is_to_be_cut(held) => is_cut,
                        _ = io::copy(&mut client, &mut nowhere) => true,
                    }
                }
            };
            if is_cut {
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
async fn answer(
    mut server: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    wire: &Mutex<Wire>,
    held: &watch::Sender<Held>,
) -> io::Result<()> {
    let mut withheld = Vec::new();
    loop {
        let message = message(&mut server, true).await?;
        let (is_withheld, is_here, holds) = {
            let mut wire = wire.lock().expect("the wire");
            let is_withheld = wire.cut == Some(Cut::BeforeItsAnswer(wire.answered + 1));
            let is_last = message[0] == b'Z';
            wire.answered += usize::from(is_last);
            wire.was_cut |= is_withheld && is_last;
            (is_withheld, is_withheld && is_last, wire.holds)
        };
        if is_withheld {
            withheld.extend_from_slice(&message);
            if !is_here {
                continue;
            }
            if !holds || is_to_be_cut(held).await {
                return Ok(());
            }
            client.write_all(&withheld).await?;
            continue;
        }
        client.write_all(&message).await?;
    }
}

/// Says that the wire is held, and waits for what the test says.
async fn is_to_be_cut(held: &watch::Sender<Held>) -> bool {
    held.send_replace(Held::Here);
    let mut said = held.subscribe();
    !said.wait_for(|held| matches!(held, Held::ToBeCut | Held::ToGoOn)).await.is_ok_and(|held| *held == Held::ToGoOn)
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
