//! A bound on how long a test may take: a test that polls for what never happens must fail, and not hang.

use std::{
    collections::BTreeMap,
    env, process,
    sync::{
        Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// `CODERDB_TEST_BOUND` is another number of seconds, for states by the million.
const SECONDS: u64 = 300;

type Running = BTreeMap<u64, (String, Instant)>;

static RUNNING: Mutex<Running> = Mutex::new(Running::new());

fn running() -> MutexGuard<'static, Running> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A database of the test on this thread. While it is there, the bound holds.
pub struct Bound(u64);

impl Bound {
    pub fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        static WATCH: Once = Once::new();
        WATCH.call_once(|| {
            thread::spawn(watch);
        });
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let test = thread::current().name().unwrap_or("a thread of a test").to_owned();
        running().insert(number, (test, Instant::now()));
        Self(number)
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        running().remove(&self.0);
    }
}

/// A thread cannot be ended from outside, so that the whole program ends.
fn watch() {
    let seconds = env::var("CODERDB_TEST_BOUND").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(SECONDS);
    loop {
        thread::sleep(Duration::from_secs(1));
        for (test, since) in running().values() {
            if since.elapsed() > Duration::from_secs(seconds) {
                eprintln!("{test} has not ended after {seconds} s (CODERDB_TEST_BOUND)");
                process::abort();
            }
        }
    }
}
