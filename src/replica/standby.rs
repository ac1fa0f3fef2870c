//! What is known of the standbys, and who waits for one of them to come further.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use tokio::{
    sync::{Notify, oneshot},
    time::{sleep, timeout},
};

use super::{Settings, Token};
use crate::pool::{self, Pool};

/// One server that may answer reads.
pub(super) struct Standby {
    pub pool: Pool,
    /// One connection beside the pool, so that one that is used up is not taken for one that is down.
    probe: Pool,
    /// A read waits for it, or has failed on it.
    pub look: Notify,
    /// It does not answer, or is a standby no more.
    pub down: Notify,
}

/// All of them, and their tasks' common ground.
pub(super) struct Standbys {
    pub all: Vec<Standby>,
    settings: Settings,
    state: Mutex<State>,
    next: AtomicUsize,
    tickets: AtomicU64,
}

struct State {
    /// Where each was last seen; `None` for one that does not answer, or is no standby. A hint: what one connection saw
    /// proves nothing of another one, whose server may have been restored, or be another one.
    seen: Vec<Option<Token>>,
    /// Those who wait, by what they wait for. They look again when their sender is dropped.
    waiting: BTreeMap<(Token, u64), oneshot::Sender<()>>,
}

/// No standby can answer the read.
pub(super) struct NoStandby;

impl Standbys {
    pub fn new(pools: impl IntoIterator<Item = Pool>, settings: Settings) -> Self {
        let probe = pool::Settings { max_size: 1, ..pool::Settings::default() };
        let standby = |pool: Pool| Standby {
            probe: Pool::new(pool.options().clone(), probe),
            pool,
            look: Notify::new(),
            down: Notify::new(),
        };
        let all: Vec<_> = pools.into_iter().map(standby).collect();
        let state = Mutex::new(State { seen: vec![None; all.len()], waiting: BTreeMap::new() });
        Self { all, settings, state, next: AtomicUsize::new(0), tickets: AtomicU64::new(0) }
    }

    /// One that seems to have come so far, in turn; waits for it without holding a connection.
    pub async fn that_reached(&self, token: Option<Token>, waited: &mut bool) -> Result<usize, NoStandby> {
        let from = self.next.fetch_add(1, Ordering::Relaxed);
        loop {
            let (place, told) = {
                let mut state = self.state();
                let in_turn = (0..self.all.len()).map(|n| (from.wrapping_add(n)) % self.all.len());
                let mut up = in_turn.filter_map(|index| Some((index, state.seen[index]?))).peekable();
                if up.peek().is_none() {
                    return Err(NoStandby);
                }
                if let Some((index, _)) = up.find(|(_, seen)| token.is_none_or(|token| *seen >= token)) {
                    return Ok(index);
                }
                let Some(token) = token else { return Err(NoStandby) };
                let (tell, told) = oneshot::channel();
                let key = (token, self.tickets.fetch_add(1, Ordering::Relaxed));
                state.waiting.insert(key, tell);
                (Waiter { standbys: self, key }, told)
            };
            self.all.iter().for_each(|standby| standby.look.notify_one());
            *waited = true;
            let _ = told.await;
            drop(place);
        }
    }

    /// Records the replay position of the standby, and wakes the reads that waited for it or cannot be answered by it.
    pub fn learn(&self, index: usize, seen: Option<Token>) {
        let mut state = self.state();
        state.seen[index] = seen;
        let reached = match seen {
            Some(seen) => {
                let rest = state.waiting.split_off(&(seen, u64::MAX));
                std::mem::replace(&mut state.waiting, rest)
            }
            None if state.seen.iter().all(Option::is_none) => std::mem::take(&mut state.waiting),
            None => BTreeMap::new(),
        };
        drop(state);
        drop(reached);
        if seen.is_none() {
            self.all[index].down.notify_waiters();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that holds it can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes a waiter when it is dropped.
struct Waiter<'a> {
    standbys: &'a Standbys,
    key: (Token, u64),
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.standbys.state().waiting.remove(&self.key);
    }
}

/// Asks one standby for its replay position: every `check`, and every `poll` while a read waits.
pub(super) async fn follow(standbys: Arc<Standbys>, index: usize) {
    let (standby, settings) = (&standbys.all[index], standbys.settings);
    loop {
        let ask = async { Token::replayed(&mut *standby.probe.get().await.ok()?).await.ok().flatten() };
        let seen = timeout(settings.check, ask).await.ok().flatten();
        standbys.learn(index, seen);
        if seen.is_none() {
            sleep(settings.check).await;
        } else if standbys.state().waiting.is_empty() {
            let _ = timeout(settings.check, standby.look.notified()).await;
        } else {
            sleep(settings.poll).await;
        }
    }
}
