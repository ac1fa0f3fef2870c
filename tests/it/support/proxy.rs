//! A proxy between a test and its server, which counts what crosses the wire.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use coderdb::sqlx::{
    Connection, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

use super::Database;

const SOCKET: &str = ".s.PGSQL.5432";

/// A connection through a proxy that counts the round trips on it.
pub struct Counted {
    pub conn: PgConnection,
    round_trips: Arc<AtomicUsize>,
    _socket: tempfile::TempDir,
}

impl Counted {
    pub async fn connect(database: &Database) -> Self {
        let options = PgConnectOptions::from_str(database.url()).expect("a URL");
        let server: PathBuf = options.get_socket().expect("a private server has a socket").join(SOCKET);
        let socket = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(socket.path().join(SOCKET)).expect("a socket");
        let round_trips = Arc::new(AtomicUsize::new(0));
        tokio::spawn(forward(listener, server, round_trips.clone()));
        let conn = PgConnection::connect_with(&options.socket(socket.path()).ssl_mode(PgSslMode::Disable))
            .await
            .expect("the proxy answers");
        Self { conn, round_trips, _socket: socket }
    }

    /// The round trips since the last call.
    pub fn take(&self) -> usize {
        self.round_trips.swap(0, Ordering::SeqCst)
    }
}

async fn forward(listener: UnixListener, server: impl AsRef<Path>, round_trips: Arc<AtomicUsize>) {
    let (client, _) = listener.accept().await.expect("the client");
    let server = UnixStream::connect(server).await.expect("the server");
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    // Either side may hang up at any time: the other one sees it through the test.
    tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    let mut header = [0; 5];
    while from_server.read_exact(&mut header).await.is_ok() {
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
        let mut body = vec![0; length - 4];
        if from_server.read_exact(&mut body).await.is_err() {
            break;
        }
        // ReadyForQuery ends every round trip.
        if header[0] == b'Z' {
            round_trips.fetch_add(1, Ordering::SeqCst);
        }
        if to_client.write_all(&header).await.is_err() || to_client.write_all(&body).await.is_err() {
            break;
        }
    }
}
