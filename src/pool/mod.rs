//! A pool of connections that costs no round trip: none to take a connection, and none to give it back.
//!
//! What a borrower leaves behind is found without asking the server. A future that was dropped in the middle of a
//! statement leaves an answer on its way: only then, and after an idle while or an error on another connection, is a
//! connection checked before the next one gets it. Waiting is fair, and has a deadline; the error says who holds the
//! connections.
//!
//! Every operation takes `&mut PgConnection`, so this pool is one of many ways to come by one.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use coderdb::{authz::{Actor, ReadJobs, System}, connect::ConnectOptions, pool::{Pool, Settings}, store};
//!
//! let pool = Pool::new("postgres://coder@db.example.com/coder".parse::<ConnectOptions>()?, Settings::default());
//! let mut connection = pool.get().await?;
//! let organization = store::organizations::default(&mut connection, &coderdb::authz::ReadOrganizations::check(
//!     &Actor::system(System::Operator),
//! ))
//! .await?;
//! # let _ = (organization, ReadJobs::check);
//! # Ok(())
//! # }
//! ```

mod connection;
mod error;

use std::{
    collections::BTreeMap,
    fmt,
    panic::Location,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use deadpool::managed;

use crate::{connect::ConnectOptions, store};
pub use connection::Connection;
use connection::{Manager, NotOpened, RETRY};
pub use error::{Error, Holder};

/// How a pool behaves.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How many connections there are at most.
    pub max_size: usize,
    /// How long one may wait for a connection, everything included.
    pub deadline: Duration,
    /// After how long without use a connection is checked before it is handed out: one round trip.
    pub check_after: Duration,
    /// How long a check may take; a connection that does not answer is replaced.
    pub check_timeout: Duration,
    /// How old a connection may get; then it is replaced, so that a pool follows where its name points to.
    pub max_lifetime: Duration,
}

/// 10 connections, 5 seconds to get one, checked after 30 idle seconds for at most one, replaced after 30 minutes.
impl Default for Settings {
    fn default() -> Self {
        Self {
            max_size: 10,
            deadline: Duration::from_secs(5),
            check_after: Duration::from_secs(30),
            check_timeout: Duration::from_secs(1),
            max_lifetime: Duration::from_mins(30),
        }
    }
}

/// Tells of an error of a statement of your own; the operations of this library tell of theirs. Where the schema has
/// changed below what a connection has prepared, no connection that was opened before is lent again, in any pool of
/// this process.
pub fn tell(error: &sqlx::Error) {
    store::note_outdated(error);
}

/// The pool. A clone is the same pool.
#[derive(Clone)]
pub struct Pool {
    objects: managed::Pool<Manager>,
    shared: Arc<Shared>,
    settings: Settings,
}

/// What the pool and the connections that are out know of each other.
#[derive(Default)]
struct Shared {
    counters: Counters,
    /// Who has connections, by a number that only grows.
    holders: Mutex<BTreeMap<u64, (Instant, &'static Location<'static>)>>,
    /// How many connections broke. One that was idle meanwhile is checked before it is handed out.
    broken: AtomicU64,
    /// When a connection was last found not to answer.
    silent: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Counters {
    taken: AtomicU64,
    timed_out: AtomicU64,
    opened: AtomicU64,
    checked: AtomicU64,
    replaced: AtomicU64,
    waited_nanos: AtomicU64,
}

/// What a pool has done since it was made, and what it holds now. For metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metrics {
    /// Connections that there may be.
    pub max_size: usize,
    /// Connections that there are.
    pub size: usize,
    /// Connections that are in use.
    pub in_use: usize,
    /// Callers that wait for one.
    pub waiting: usize,
    /// How often one was taken.
    pub taken: u64,
    /// How long it took to take them, in all.
    pub waited: Duration,
    /// How often a caller got none in time.
    pub timed_out: u64,
    /// How many connections were opened.
    pub opened: u64,
    /// How often one was checked before it was handed out: a round trip each.
    pub checked: u64,
    /// How many were found broken, in the middle of something that did not end, or too old.
    pub replaced: u64,
}

impl Pool {
    /// A pool of connections with these options. It opens them when they are asked for.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "only time-outs of the pool below need a runtime, and it has none")]
    pub fn new(options: impl Into<ConnectOptions>, settings: Settings) -> Self {
        let shared = Arc::new(Shared::default());
        let manager = Manager { options: options.into(), settings, shared: shared.clone(), failure: Mutex::default() };
        let builder = managed::Pool::builder(manager).max_size(settings.max_size.max(1));
        let objects = builder.build().expect("no time-outs");
        Self { objects, shared, settings }
    }

    /// A connection, for as long as it is held. The caller's place in the code is kept for the error of others.
    ///
    /// Costs no round trip while connections are in use. A server that does not answer is tried again until the
    /// deadline, one that refuses is not.
    ///
    /// # Errors
    /// [`Error::Timeout`] when there was none in time, [`Error::Connect`] when the server refuses, [`Error::Closed`]
    /// after [`Pool::close`].
    #[track_caller]
    pub fn get(&self) -> impl Future<Output = Result<Connection, Error>> + Send + '_ {
        self.get_at(Location::caller())
    }

    /// As [`Self::get`], for that place in the code.
    pub(crate) async fn get_at(&self, caller: &'static Location<'static>) -> Result<Connection, Error> {
        let began = Instant::now();
        let counters = &self.shared.counters;
        let Ok(object) = tokio::time::timeout(self.settings.deadline, self.object()).await else {
            counters.timed_out.fetch_add(1, Ordering::Relaxed);
            return Err(self.timeout());
        };
        let object = object?;
        let now = Instant::now();
        let waited = u64::try_from((now - began).as_nanos()).unwrap_or(u64::MAX);
        counters.waited_nanos.fetch_add(waited, Ordering::Relaxed);
        let ticket = counters.taken.fetch_add(1, Ordering::Relaxed);
        self.shared.holders().insert(ticket, (now, caller));
        Ok(Connection::new(object, self.shared.clone(), ticket))
    }

    /// An idle connection, or a new one. If the server has no room for new ones, the caller waits for one that is
    /// returned.
    async fn object(&self) -> Result<managed::Object<Manager>, Error> {
        loop {
            match self.objects.get().await {
                Ok(object) => return Ok(object),
                Err(managed::PoolError::Backend(NotOpened::Connect(error))) if !error.is_passing() => {
                    return Err(Error::Connect(error));
                }
                Err(managed::PoolError::Backend(_)) => tokio::time::sleep(RETRY).await,
                // Time-outs and hooks of the pool below are not used.
                Err(_) => return Err(Error::Closed),
            }
        }
    }

    fn timeout(&self) -> Error {
        let holders = self.shared.holders();
        let holders = holders.values().map(|(since, at)| Holder { at, held: since.elapsed() }).collect();
        Error::Timeout {
            waited: self.settings.deadline,
            max_size: self.settings.max_size,
            holders,
            last: self.objects.manager().last_failure(),
        }
    }

    #[cfg(any(feature = "watch", feature = "replica"))]
    pub(crate) fn options(&self) -> &ConnectOptions {
        &self.objects.manager().options
    }

    /// What it has done, and what it holds.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        let (status, counters) = (self.objects.status(), &self.shared.counters);
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Metrics {
            max_size: status.max_size,
            size: status.size,
            in_use: self.shared.holders().len(),
            waiting: status.waiting,
            taken: count(&counters.taken),
            waited: Duration::from_nanos(count(&counters.waited_nanos)),
            timed_out: count(&counters.timed_out),
            opened: count(&counters.opened),
            checked: count(&counters.checked),
            replaced: count(&counters.replaced),
        }
    }

    /// Closes idle connections at once, and the others when they are returned. Waiting callers get [`Error::Closed`].
    pub fn close(&self) {
        self.objects.close();
    }
}

impl Shared {
    fn holders(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, (Instant, &'static Location<'static>)>> {
        // Nothing that holds it can panic half-way.
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn silent(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Without its options: they may hold a password.
impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("settings", &self.settings)
            .field("metrics", &self.metrics())
            .finish_non_exhaustive()
    }
}
