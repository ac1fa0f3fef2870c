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
use sqlx::{Connection as _, PgConnection};

use super::{Settings, Shared};
use crate::{
    connect::{self, ConnectOptions},
    store,
};

/// How long a server that could not be reached is left alone, by all callers together.
pub(super) const RETRY: Duration = Duration::from_millis(50);

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
    /// How often a statement had been outdated when this one was opened.
    outdated: u64,
    /// How far its server had replayed, timeline and position, when it was last asked.
    #[cfg(feature = "replica")]
    replayed: Option<(u32, u64)>,
}

impl Connection {
    pub(super) fn new(object: Object<Manager>, shared: Arc<Shared>, ticket: u64) -> Self {
        Self { object: Some(object), shared, ticket }
    }

    /// Ends the connection instead of giving it back: after what the pool cannot notice. That is `SET`, and a `COPY`
    /// that was refused, or whose future or stream was dropped before its end: the next borrowers would get each
    /// other's answers.
    pub fn discard(mut self) {
        self.shared.holders().remove(&self.ticket);
        drop(self.object.take().map(Object::take));
    }

    /// What is remembered of this connection for the next borrowers. One that is opened anew has nothing.
    #[cfg(feature = "replica")]
    pub(crate) fn replayed(&mut self) -> &mut Option<(u32, u64)> {
        &mut self.object.as_mut().expect("it goes back once").replayed
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
        let has_to_send = object.connection.should_flush();
        // The driver knows whether it has something to send or an answer to come. What it has to send, say the rollback
        // of a transaction that was dropped, is on its way now, and not only when the connection is used again.
        let flushed = pin!(object.connection.flush()).poll(&mut Context::from_waker(Waker::noop()));
        match flushed {
            Poll::Ready(Ok(())) if !has_to_send => object.unsettled = object.connection.is_in_transaction(),
            Poll::Pending => object.unsettled = true,
            Poll::Ready(sent) => {
                // What is sent without waiting for an answer is the end of a COPY that was dropped, or a rollback that
                // was answered at once. An answer comes to the first as well, and a pooler may deliver it to another
                // client.
                if sent.is_err() {
                    self.shared.broken.fetch_add(1, Ordering::Relaxed);
                }
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
    pub options: ConnectOptions,
    pub settings: Settings,
    pub shared: Arc<Shared>,
    pub failure: Mutex<Option<Failure>>,
}

/// What came of the last attempt to connect.
pub(super) struct Failure {
    why: String,
    /// No new attempt to connect before this time.
    until: Option<Instant>,
}

/// Why a connection was not opened.
pub(super) enum NotOpened {
    Connect(connect::Error),
    /// An attempt failed a moment ago.
    TooSoon,
}

impl Manager {
    /// Why the last attempt to connect came to nothing, if none has succeeded since.
    pub fn last_failure(&self) -> Option<String> {
        self.failure().as_ref().map(|failure| failure.why.clone())
    }

    fn failure(&self) -> std::sync::MutexGuard<'_, Option<Failure>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl managed::Manager for Manager {
    type Type = Pooled;
    type Error = NotOpened;

    async fn create(&self) -> Result<Pooled, NotOpened> {
        match &mut *self.failure() {
            Some(failure) if failure.until.is_some_and(|until| Instant::now() < until) => {
                return Err(NotOpened::TooSoon);
            }
            Some(_) => {}
            // The reason for callers whose time is over before there is an answer.
            none => *none = Some(Failure { why: format!("no answer yet from {}", self.options), until: None }),
        }
        let outdated = store::outdated();
        match self.options.connect().await {
            Ok(connection) => {
                *self.failure() = None;
                self.shared.counters.opened.fetch_add(1, Ordering::Relaxed);
                Ok(Pooled {
                    connection,
                    used: Instant::now(),
                    unsettled: false,
                    broken: self.shared.broken.load(Ordering::Relaxed),
                    outdated,
                    #[cfg(feature = "replica")]
                    replayed: None,
                })
            }
            Err(error) => {
                // A refusal is the answer for all waiting callers.
                let until = error.is_passing().then(|| Instant::now() + RETRY);
                *self.failure() = Some(Failure { why: connect_failure(&error), until });
                Err(NotOpened::Connect(error))
            }
        }
    }

    async fn recycle(&self, pooled: &mut Pooled, metrics: &managed::Metrics) -> RecycleResult<NotOpened> {
        let counters = &self.shared.counters;
        let fit = if metrics.age() > self.settings.max_lifetime || pooled.outdated != store::outdated() {
            false
        } else {
            let is_doubtful = pooled.unsettled
                || pooled.used.elapsed() > self.settings.check_after
                || pooled.broken != self.shared.broken.load(Ordering::Relaxed);
            !is_doubtful || self.answers(pooled).await
        };
        if fit {
            return Ok(());
        }
        counters.replaced.fetch_add(1, Ordering::Relaxed);
        Err(RecycleError::message("replaced"))
    }
}

impl Manager {
    /// Whether the connection answers in time, and is clean then. After one that did not, those that have not been used
    /// since are not asked: to wait for one after the other would take longer than their borrower has.
    async fn answers(&self, pooled: &mut Pooled) -> bool {
        if self.shared.silent().is_some_and(|silent| pooled.used < silent) {
            return false;
        }
        self.shared.counters.checked.fetch_add(1, Ordering::Relaxed);
        let check = async {
            if pooled.unsettled { settle(&mut pooled.connection).await } else { pooled.connection.ping().await }
        };
        let answer = tokio::time::timeout(self.settings.check_timeout, check).await;
        if answer.is_err() {
            *self.shared.silent() = Some(Instant::now());
        }
        matches!(answer, Ok(Ok(())))
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

/// The error and what the driver says of it, in one line.
fn connect_failure(error: &connect::Error) -> String {
    use std::error::Error as _;
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}
