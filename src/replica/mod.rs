//! Reading from standbys, without missing what one has written.
//!
//! A [`Cluster`] is a pool of connections to the primary and one for each standby. A write returns a [`Token`]; a read
//! that carries it sees that write on every server: the connection that it gets has proved that its server has replayed
//! so far. A read that would wait too long for that goes to the primary, and so does one that a standby fails.
//!
//! Only reads whose permit is [`ReplicaSafe`] go to a standby. Claims, quota, roles, and everything else that a write
//! depends on are read on the primary: [`Cluster::primary`].
//!
//! ```no_run
//! # async fn example(operator: &coderdb::authz::Actor, job: coderdb::model::JobId) -> Result<(), Box<dyn std::error::Error>> {
//! use coderdb::{authz::{CancelJobs, ReadJobs}, connect::ConnectOptions, model::OrganizationId, pool::{self, Pool}, store};
//! use coderdb::replica::{Cluster, Settings, boxed};
//!
//! let pool = |url: &str| Ok::<_, coderdb::connect::Error>(Pool::new(url.parse::<ConnectOptions>()?, pool::Settings::default()));
//! let standbys = [pool("postgres://coder@db2.example.com/coder")?, pool("postgres://coder@db3.example.com/coder")?];
//! let cluster = Cluster::start(pool("postgres://coder@db1.example.com/coder")?, standbys, Settings::default());
//! # let (organization, now) = (OrganizationId::from(uuid::Uuid::nil()), time::OffsetDateTime::UNIX_EPOCH);
//!
//! let permit = CancelJobs::check(operator, organization)?;
//! let cancel = cluster.write(|conn| boxed(store::jobs::cancel(conn, &permit, job, None, now)));
//! let (_outcome, token) = cancel.await?;
//! // On whichever server this runs, the job is canceled. The token may have come in a cookie: `token.to_string()`.
//! let permit = ReadJobs::check(operator, organization)?;
//! let details = cluster.read(&permit, Some(token), |conn| boxed(store::jobs::get(conn, &permit, job))).await?;
//! # let _ = details;
//! # Ok(())
//! # }
//! ```

mod standby;
mod token;

use std::{
    fmt,
    marker::PhantomData,
    panic::Location,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::PgConnection;
use tokio::{select, task::JoinHandle, time::timeout};

use crate::{
    authz::ReplicaSafe,
    pool::{self, Connection, Pool},
    store,
};
use standby::Standbys;
pub use token::{InvalidToken, Token};

/// How a cluster behaves.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How long a read may wait for a standby, for its replay and for a connection together, before it goes to the
    /// primary.
    pub deadline: Duration,
    /// How often a standby is asked for its replay position while a read waits for it.
    pub poll: Duration,
    /// How often it is asked otherwise, and how long it may take to answer; one that does not gets no reads.
    pub check: Duration,
}

/// Waits for one second at most; asks every 5 milliseconds while a read waits, and every second otherwise.
impl Default for Settings {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(1), poll: Duration::from_millis(5), check: Duration::from_secs(1) }
    }
}

/// Why a read or a write did not come about.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operation failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// There was no connection to the primary.
    #[error(transparent)]
    Pool(#[from] pool::Error),
}

/// An operation on a connection that it is given, from [`boxed`].
#[must_use]
pub struct BoxFuture<'a, 'c, T> {
    future: Pin<Box<dyn Future<Output = store::Result<T>> + Send + 'c>>,
    // What it borrows besides the connection lives at least as long.
    _borrows: PhantomData<&'c &'a ()>,
}

/// What [`Cluster::read`] and [`Cluster::write`] take: futures that are `Send`, which the type of an async closure
/// cannot express yet.
pub fn boxed<'a, 'c, T>(operation: impl Future<Output = store::Result<T>> + Send + 'c) -> BoxFuture<'a, 'c, T>
where
    'a: 'c,
{
    BoxFuture { future: Box::pin(operation), _borrows: PhantomData }
}

/// One primary and its standbys. A clone is the same cluster; its tasks end with the last one.
#[derive(Clone)]
pub struct Cluster {
    primary: Pool,
    standbys: Arc<Standbys>,
    deadline: Duration,
    /// The latest timeline that the primary was seen on.
    timeline: Arc<AtomicU32>,
    counters: Arc<Counters>,
    _tasks: Arc<Tasks>,
}

/// One per standby; they end with the cluster.
struct Tasks(Vec<JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

#[derive(Default)]
struct Counters {
    standby: AtomicU64,
    late: AtomicU64,
    absent: AtomicU64,
    failed: AtomicU64,
    waits: AtomicU64,
    waited_nanos: AtomicU64,
}

/// Where reads were answered, since the cluster was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metrics {
    /// Reads that a standby answered.
    pub standby: u64,
    /// Reads that went to the primary because no standby had come far enough, or had a connection, in time.
    pub late: u64,
    /// Reads that went to the primary because there was no standby.
    pub absent: u64,
    /// Reads that went to the primary because a standby failed.
    pub failed: u64,
    /// How often a read waited for a standby.
    pub waits: u64,
    /// For how long, in all.
    pub waited: Duration,
}

/// Why a read goes to the primary.
#[derive(Clone, Copy)]
enum Reason {
    Late,
    Absent,
    Failed,
}

impl Cluster {
    /// Begins to ask the standbys how far they have come, on one connection each beside those of the pools.
    ///
    /// Each pool of `standbys` leads to one server, and not through a pooler that lends connections per transaction.
    /// Servers that are no standbys get no reads, so that all servers of a cluster may be named, the primary included.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    #[must_use]
    pub fn start(primary: Pool, standbys: impl IntoIterator<Item = Pool>, settings: Settings) -> Self {
        let standbys = Arc::new(Standbys::new(standbys, settings));
        let follow = |index| tokio::spawn(standby::follow(standbys.clone(), index));
        let tasks = (0..standbys.all.len()).map(follow).collect();
        Self {
            primary,
            standbys,
            deadline: settings.deadline,
            timeline: Arc::default(),
            counters: Arc::default(),
            _tasks: Arc::new(Tasks(tasks)),
        }
    }

    /// The pool of the primary, for what must not lag. After a write on a connection of it, [`Token::current`] gives
    /// the token.
    #[must_use]
    pub const fn primary(&self) -> &Pool {
        &self.primary
    }

    /// Does `operation` on the primary, and returns a token for what it has committed. One round trip more than the
    /// operation. When the primary is lost after the operation and before it told the token, that is
    /// [`Token::LATEST`].
    ///
    /// # Errors
    /// [`Error::Pool`] without a connection, [`Error::Store`] when the operation failed. What it had committed before is
    /// seen by a read with [`Token::LATEST`].
    #[track_caller]
    pub fn write<'a, T>(
        &self,
        operation: impl for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'a, 'c, T>,
    ) -> impl Future<Output = Result<(T, Token), Error>> {
        let caller = Location::caller();
        async move {
            let mut connection = self.primary.get_at(caller).await?;
            let done = operation(&mut connection).future.await?;
            Ok((done, Token::current(&mut connection).await.unwrap_or(Token::LATEST)))
        }
    }

    /// Does `operation`, which only reads, on a standby that has replayed up to the token, or else on the primary.
    ///
    /// Waits for a standby up to the deadline in the settings, without holding a connection meanwhile. On a standby
    /// that costs one round trip more than the operation, unless the connection has seen so far before; without a token
    /// it costs none. When the standby is stopped or falls silent in the middle, cancels it because of a conflict with
    /// recovery, or lacks what it reads, `operation` is done once more, on the primary.
    ///
    /// # Errors
    /// [`Error::Pool`] without a connection to the primary, [`Error::Store`] when the operation failed.
    #[track_caller]
    pub fn read<'a, T>(
        &self,
        _permit: &impl ReplicaSafe,
        token: Option<Token>,
        mut operation: impl for<'c> FnMut(&'c mut PgConnection) -> BoxFuture<'a, 'c, T>,
    ) -> impl Future<Output = Result<T, Error>> {
        let caller = Location::caller();
        async move {
            let reason = match self.standby(token, caller).await {
                Ok((index, mut connection)) => {
                    let standby = &self.standbys.all[index];
                    let down = standby.down.notified();
                    let answer = select! {
                        answer = operation(&mut connection).future => Some(answer),
                        // The standby answers no read, so it would not answer this one.
                        () = down => None,
                    };
                    if let Some(answer) = answer.filter(|answer| !answer.as_ref().is_err_and(is_of_the_standby)) {
                        self.counters.standby.fetch_add(1, Ordering::Relaxed);
                        return Ok(answer?);
                    }
                    standby.look.notify_one();
                    Reason::Failed
                }
                Err(reason) => reason,
            };
            self.counters.of(reason).fetch_add(1, Ordering::Relaxed);
            let mut connection = self.primary.get_at(caller).await?;
            Ok(operation(&mut connection).future.await?)
        }
    }

    /// A connection to a standby that has proved to have come so far.
    async fn standby(
        &self,
        token: Option<Token>,
        caller: &'static Location<'static>,
    ) -> Result<(usize, Connection), Reason> {
        if token == Some(Token::LATEST) {
            return Err(Reason::Late);
        }
        let began = Instant::now();
        let mut waited = false;
        let found = timeout(self.deadline, async {
            loop {
                let Ok(index) = self.standbys.that_reached(token, &mut waited).await else {
                    return Err(Reason::Absent);
                };
                let standby = &self.standbys.all[index];
                let Ok(mut connection) = standby.pool.get_at(caller).await else {
                    standby.look.notify_one();
                    return Err(Reason::Failed);
                };
                let Some(token) = token else { return Ok((index, connection)) };
                let seen = connection.replayed().map(Token::from_parts);
                if let Some(seen) = seen
                    && self.covers(seen, token).await
                {
                    return Ok((index, connection));
                }
                let Ok(replayed) = Token::replayed(&mut connection).await else {
                    standby.look.notify_one();
                    return Err(Reason::Failed);
                };
                *connection.replayed() = replayed.map(Token::into_parts);
                match replayed {
                    Some(replayed) if self.covers(replayed, token).await => return Ok((index, connection)),
                    // On a timeline of its own, for which it is of no use to wait.
                    Some(replayed) if replayed >= token => return Err(Reason::Late),
                    _ => {}
                }
                // It is not what it was thought to be: restarted, promoted, or another one.
                self.standbys.learn(index, replayed);
            }
        });
        let found = found.await.unwrap_or(Err(Reason::Late));
        if waited {
            self.counters.waits.fetch_add(1, Ordering::Relaxed);
            let nanos = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.counters.waited_nanos.fetch_add(nanos, Ordering::Relaxed);
        }
        found
    }

    /// Whether a standby that has replayed so far has all that the token stands for.
    async fn covers(&self, replayed: Token, token: Token) -> bool {
        if replayed < token || replayed.timeline() == token.timeline() {
            return replayed >= token;
        }
        // A later timeline has what is left of the earlier ones if it is that of the primary, and not one of a standby
        // that was promoted by mistake.
        if self.timeline.load(Ordering::Relaxed) < replayed.timeline()
            && let Ok(mut connection) = self.primary.get().await
            && let Ok(current) = Token::current(&mut connection).await
        {
            self.timeline.fetch_max(current.timeline(), Ordering::Relaxed);
        }
        self.timeline.load(Ordering::Relaxed) == replayed.timeline()
    }

    /// Where reads were answered, and how long they waited.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Metrics {
            standby: count(&self.counters.standby),
            late: count(&self.counters.late),
            absent: count(&self.counters.absent),
            failed: count(&self.counters.failed),
            waits: count(&self.counters.waits),
            waited: Duration::from_nanos(count(&self.counters.waited_nanos)),
        }
    }
}

/// Whether the primary may answer where a standby fails like this.
fn is_of_the_standby(error: &store::Error) -> bool {
    match error {
        // A conflict with recovery is a serialization failure. What lacks a table may lack a migration.
        store::Error::Unavailable(_) | store::Error::Serialization(_) | store::Error::Schema(_) => true,
        // feature_not_supported: an unlogged table is empty on a standby, and says so.
        store::Error::Sql { source, .. } => {
            source.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref() == Some("0A000")
        }
        _ => false,
    }
}

impl Counters {
    fn of(&self, reason: Reason) -> &AtomicU64 {
        match reason {
            Reason::Late => &self.late,
            Reason::Absent => &self.absent,
            Reason::Failed => &self.failed,
        }
    }
}

/// Without the options of its pools: they may hold a password.
impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("metrics", &self.metrics()).finish_non_exhaustive()
    }
}
