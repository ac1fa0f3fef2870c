//! A connection that is out, and what happens to it between two borrowers.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    pin::pin,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use deadpool::managed::{self, Object, RecycleError, RecycleResult};
use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};

use super::{Settings, Shared};

/// A connection of a pool; it goes back when this is dropped.
pub struct Connection {
    /// Always there, but for the moment of going back.
    object: Option<Object<Manager>>,
    shared: Arc<Shared>,
    ticket: u64,
}

/// What the pool keeps.
pub(super) struct Pooled {
    connection: PgConnection,
    used: Instant,
    /// The borrower left in the middle of something.
    unsettled: bool,
    /// How many connections had broken when this one was last used.
    broken: u64,
}

impl Connection {
    pub(super) fn new(object: Object<Manager>, shared: Arc<Shared>, ticket: u64) -> Self {
        Self { object: Some(object), shared, ticket }
    }
}

impl Deref for Connection {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.object.as_ref().expect("it goes back once").connection
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.object.as_mut().expect("it goes back once").connection
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.holders().remove(&self.ticket);
        let Some(mut object) = self.object.take() else { return };
        // The driver knows whether it has something to send or an answer to come. What it has to send, say the rollback
        // of a transaction that was dropped, is on its way now, and not only when the connection is used again.
        let flushed = pin!(object.connection.flush()).poll(&mut Context::from_waker(Waker::noop()));
        match flushed {
            Poll::Ready(Ok(())) => object.unsettled = object.connection.is_in_transaction(),
            Poll::Pending => object.unsettled = true,
            Poll::Ready(Err(_)) => {
                self.shared.broken.fetch_add(1, Ordering::Relaxed);
                self.shared.counters.replaced.fetch_add(1, Ordering::Relaxed);
                drop(Object::take(object));
                return;
            }
        }
        object.used = Instant::now();
        object.broken = self.shared.broken.load(Ordering::Relaxed);
    }
}

/// Opens, checks and drops connections.
pub(super) struct Manager {
    pub options: PgConnectOptions,
    pub settings: Settings,
    pub shared: Arc<Shared>,
    pub failure: Mutex<Option<String>>,
}

impl Manager {
    /// Why the last attempt to connect came to nothing, if none has succeeded since.
    pub fn last_failure(&self) -> Option<String> {
        self.failure().clone()
    }

    fn failure(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl managed::Manager for Manager {
    type Type = Pooled;
    type Error = sqlx::Error;

    async fn create(&self) -> sqlx::Result<Pooled> {
        let mut pause = Duration::from_millis(20);
        loop {
            match self.settings.pooler.connect(&self.options).await {
                Ok(connection) => {
                    *self.failure() = None;
                    self.shared.counters.opened.fetch_add(1, Ordering::Relaxed);
                    let broken = self.shared.broken.load(Ordering::Relaxed);
                    return Ok(Pooled { connection, used: Instant::now(), unsettled: false, broken });
                }
                Err(error) if is_passing(&error) => *self.failure() = Some(error.to_string()),
                Err(error) => return Err(error),
            }
            // Bounded by the deadline of whoever waits.
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }

    async fn recycle(&self, pooled: &mut Pooled, metrics: &managed::Metrics) -> RecycleResult<sqlx::Error> {
        let counters = &self.shared.counters;
        let fit = if metrics.age() > self.settings.max_lifetime {
            false
        } else if pooled.unsettled {
            counters.checked.fetch_add(1, Ordering::Relaxed);
            matches!(
                tokio::time::timeout(self.settings.check_timeout, settle(&mut pooled.connection)).await,
                Ok(Ok(()))
            )
        } else if pooled.used.elapsed() > self.settings.check_after
            || pooled.broken != self.shared.broken.load(Ordering::Relaxed)
        {
            counters.checked.fetch_add(1, Ordering::Relaxed);
            matches!(tokio::time::timeout(self.settings.check_timeout, pooled.connection.ping()).await, Ok(Ok(())))
        } else {
            true
        };
        if fit {
            return Ok(());
        }
        counters.replaced.fetch_add(1, Ordering::Relaxed);
        Err(RecycleError::message("replaced"))
    }
}

/// Waits for the end of what the last borrower left, and ends a transaction that is still open.
///
/// The driver does not say what it knows of the server's state, but for this: a statement that should begin a
/// transaction, and after which there is none, is an error of its own.
async fn settle(connection: &mut PgConnection) -> sqlx::Result<()> {
    match connection.begin_with("SELECT 1").await {
        Err(sqlx::Error::BeginFailed) => Ok(()),
        Ok(transaction) => transaction.rollback().await,
        // An aborted transaction refuses every statement: the connection is not worth a second attempt.
        Err(error) => Err(error),
    }
}

/// Whether a server that cannot be reached now may be there soon: it starts, fails over, or has no room.
fn is_passing(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    match (error, code.as_deref()) {
        (sqlx::Error::Io(error), _) => error.kind() != std::io::ErrorKind::NotFound,
        // cannot_connect_now, admin_shutdown, crash_shutdown, too_many_connections; a pooler without a server
        (_, Some(code)) => ["57P01", "57P02", "57P03", "53300", "08P01", "08006"].contains(&code),
        _ => false,
    }
}
