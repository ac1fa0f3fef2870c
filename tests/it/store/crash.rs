//! What is left when a connection is cut, or a caller gives up, in the middle of an operation: all of it or nothing.
//!
//! Each operation that writes is cut at each of its round trips, those that prepare its statements included: before it is
//! sent, and after the server has done it and before its answer is read; alone, and in a transaction of the caller, up
//! to the answer of its COMMIT. And it is dropped at each of its awaits.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use coderdb::{
    sqlx::{self, Connection, PgConnection},
    store::{Error, Result},
};
use tokio::sync::Mutex;

use crate::support::{
    self, Database,
    give_up::give_up,
    operations::{self, Operation},
    proxy::{Cut, Proxied},
};

/// What a caller gets that asks again, because it never learned that it was done: the same answer once more; that there
/// is nothing left to do; a conflict with what it did; that it is no longer the caller's job. Or it is done twice: whoever
/// minds that looks first. What was revoked is not found any more.
///
/// A batch takes all jobs that there are; with a smaller one, there would be some left.
const REPEATED: &str = "
agents::append_logs              : done twice
agents::update_logs_overflowed   : the same answer
api_keys::create                 : conflict
api_keys::revoke                 : not_found
api_keys::touch                  : the same answer
builds::create                   : conflict
builds::update_deadline          : the same answer
builds::update_state             : the same answer
chats::bind                      : the same answer
chats::bind_build_agent          : the same answer
chats::get_with_lock             : the same answer
daemons::delete_old              : nothing left to do
daemons::heartbeat               : the same answer
daemons::upsert                  : the same answer
files::insert                    : the same answer
job_logs::append                 : done twice
job_logs::prune                  : nothing left to do
job_timings::insert              : nothing left to do
jobs::acquire                    : done twice
jobs::acquire_batch              : nothing left to do
jobs::cancel                     : nothing left to do
jobs::cancel_batch               : nothing left to do
jobs::complete                   : nothing left to do
jobs::fail                       : nothing left to do
jobs::fail_insufficient_quota    : nothing left to do
jobs::get_for_update_skip_locked : the same answer
jobs::get_with_lock              : the same answer
jobs::heartbeat                  : the same answer
jobs::insert                     : conflict
jobs::prune                      : nothing left to do
jobs::reap                       : nothing left to do
licenses::delete                 : nothing left to do
licenses::insert                 : conflict
prebuilds::cancel_stale_pending  : conflict
prebuilds::ensure_organization   : nothing left to do
prebuilds::set_status            : nothing left to do
quota::commit                    : the same answer
settings::set_prebuilds          : nothing left to do
workspaces::create               : conflict
workspaces::get_with_lock        : the same answer
runner::commit_quota             : done twice
runner::commit_quota over budget : nothing left to do
transaction::retry               : nothing left to do
";

/// These are several operations in a row. From wherever they were left, they end well when they are repeated.
const SEVERAL: &[&str] = &["runner::commit_quota", "runner::commit_quota over budget"];

/// These leave nothing but a lock.
const LOCKS: &[&str] =
    &["chats::get_with_lock", "jobs::get_for_update_skip_locked", "jobs::get_with_lock", "workspaces::get_with_lock"];

async fn that_write() -> Vec<Operation> {
    operations::all().await.into_iter().filter(|operation| operation.writes).collect()
}

/// The rows of all tables.
type State = Vec<String>;

async fn state(conn: &mut PgConnection) -> State {
    sqlx::query_scalar("SELECT state()").fetch_all(conn).await.expect("the state")
}

fn assert_same(now: &State, expected: &State, what: &str) {
    let only =
        |here: &State, there: &State| -> State { here.iter().filter(|row| !there.contains(row)).cloned().collect() };
    assert!(now == expected, "{what}: {:#?} instead of {:#?}", only(now, expected), only(expected, now));
}

/// The rows without the logs, which may say things twice.
fn without_logs(state: &State) -> BTreeSet<String> {
    let rows = state.iter().filter(|row| !row.starts_with("provisioner_job_logs "));
    rows.map(|row| row.split(", ").filter(|part| !part.contains("\"logs_length\"")).collect()).collect()
}

fn say(answer: &Result<usize>) -> String {
    match answer {
        Ok(rows) => rows.to_string(),
        Err(error) => error.code().to_owned(),
    }
}

/// What an operation does when nothing goes wrong: what is there before, after it, and after it was asked for again.
struct Clean {
    before: State,
    after: State,
    again: State,
    /// Of the first and of the second time.
    answers: [String; 2],
    /// On a new connection, alone and in a transaction.
    round_trips: [usize; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    Part,
    All,
}

impl Clean {
    async fn of(operation: &Operation) -> Arc<Self> {
        static KNOWN: Mutex<BTreeMap<&str, Arc<Clean>>> = Mutex::const_new(BTreeMap::new());
        let mut known = KNOWN.lock().await;
        if let Some(clean) = known.get(operation.name) {
            return clean.clone();
        }
        let database = operations::world(operation).await;
        let mut observer = database.connect().await;
        let before = state(&mut observer).await;

        let mut proxied = Proxied::connect(&database).await;
        proxied.take();
        let mut tx = proxied.conn.begin().await.unwrap();
        let _taken_back = operation.call(&mut tx).await;
        tx.rollback().await.unwrap();
        let in_transaction = proxied.take();

        let mut proxied = Proxied::connect(&database).await;
        proxied.take();
        let first = say(&operation.call(&mut proxied.conn).await);
        let alone = proxied.take();
        let after = state(&mut observer).await;
        let second = say(&operation.call(&mut proxied.conn).await);
        let again = state(&mut observer).await;

        assert!(first.parse::<usize>().is_ok_and(|rows| rows > 0), "{} does something: {first}", operation.name);
        assert_eq!(before == after, LOCKS.contains(&operation.name), "{} writes", operation.name);
        let (answers, round_trips) = ([first, second], [alone, in_transaction]);
        let clean = Arc::new(Self { before, after, again, answers, round_trips });
        known.insert(operation.name, clean.clone());
        clean
    }

    /// All or nothing, or a part where that may be.
    fn compare(&self, operation: &Operation, now: &State, what: &str) -> Found {
        if *now == self.before {
            return Found::Nothing;
        }
        if SEVERAL.contains(&operation.name) && *now != self.after {
            return Found::Part;
        }
        assert_same(now, &self.after, what);
        Found::All
    }

    fn repeated(&self) -> &str {
        match &self.answers {
            _ if self.again != self.after => "done twice",
            [first, second] if first == second => "the same answer",
            [_, second] if second == "0" => "nothing left to do",
            [_, error] => error,
        }
    }
}

/// A database and somebody who looks at it.
struct World {
    database: Database,
    observer: PgConnection,
}

impl World {
    async fn of(operation: &Operation) -> Self {
        let database = operations::world(operation).await;
        let observer = database.connect().await;
        Self { database, observer }
    }

    /// For a lock that is held as long as the session is there.
    async fn with_sessions(self) -> Self {
        let database = self.database.with_sessions();
        let observer = database.connect().await;
        Self { database, observer }
    }

    /// Looks at what is there, and that nothing is broken.
    async fn found(&mut self, operation: &Operation, clean: &Clean, what: &str) -> Found {
        let broken =
            sqlx::query_scalar::<_, String>(include_str!("../golden/broken.sql")).fetch_all(&mut self.observer).await;
        assert_eq!(broken.unwrap(), Vec::<String>::new(), "{what}");
        clean.compare(operation, &state(&mut self.observer).await, what)
    }
}

async fn execute(conn: &mut PgConnection, sql: &'static str) {
    sqlx::raw_sql(sql).execute(conn).await.expect("the statement");
}

/// Does it all, up to the answer of COMMIT.
async fn attempt(operation: &Operation, conn: &mut PgConnection, in_transaction: bool) -> Result<usize> {
    if !in_transaction {
        return operation.call(conn).await;
    }
    let mut tx = conn.begin().await.map_err(Error::Unavailable)?;
    let answer = operation.call(&mut tx).await?;
    tx.commit().await.map_err(Error::Unavailable)?;
    Ok(answer)
}

/// Cuts everything everywhere, and says how often.
async fn cut_everywhere(in_transaction: bool) -> usize {
    let mut cuts = 0;
    for operation in &that_write().await {
        let clean = Clean::of(operation).await;
        let (mut seen, mut spare) = (Vec::new(), None);
        let round_trips = clean.round_trips[usize::from(in_transaction)];
        for cut in (1..=round_trips).flat_map(|n| [Cut::BeforeItIsSent(n), Cut::BeforeItsAnswer(n)]) {
            let what = format!("{}, in a transaction: {in_transaction}, {cut:?}", operation.name);
            let mut world = match spare.take() {
                Some(world) => world,
                None => World::of(operation).await.with_sessions().await,
            };
            let mut victim = Proxied::connect(&world.database).await;
            // Held until the server has ended the session.
            execute(&mut victim.conn, "SELECT pg_advisory_lock(0)").await;
            victim.cut(cut);
            let answer = attempt(operation, &mut victim.conn, in_transaction).await;
            assert!(victim.was_cut(), "{what}");
            cuts += 1;
            assert_eq!(say(&answer), "unavailable", "{what}: {answer:?}");
            execute(&mut world.observer, "SET lock_timeout = '20s'; SELECT pg_advisory_lock(0)").await;

            let found = world.found(operation, &clean, &what).await;
            let what = format!("{what}, and again");
            if found == Found::Nothing {
                // Taken back, so that the next cut finds the same.
                let mut tx = world.observer.begin().await.unwrap();
                assert_eq!(say(&operation.call(&mut tx).await), clean.answers[0], "{what}");
                assert_same(&state(&mut tx).await, &clean.after, &what);
                tx.rollback().await.unwrap();
                execute(&mut world.observer, "SELECT pg_advisory_unlock(0)").await;
                spare = Some(world);
            } else {
                let answer = attempt(operation, &mut world.observer, in_transaction).await;
                let now = state(&mut world.observer).await;
                if found == Found::All {
                    assert_eq!(say(&answer), clean.answers[1], "{what}");
                    assert_same(&now, &clean.again, &what);
                } else {
                    assert_eq!(say(&answer), clean.answers[0], "{what}");
                    assert_eq!(without_logs(&now), without_logs(&clean.after), "{what}");
                    let mut lines = clean.after.iter().filter(|row| row.starts_with("provisioner_job_logs "));
                    assert!(lines.all(|line| now.contains(line)), "{what}: every line is there");
                }
            }
            seen.push(found);
        }
        // The further it came, the more is there, and the last answer is lost when all is.
        seen.dedup();
        let expected: &[Found] = match operation.name {
            name if LOCKS.contains(&name) => &[Found::Nothing],
            name if SEVERAL.contains(&name) && !in_transaction => &[Found::Nothing, Found::Part, Found::All],
            _ => &[Found::Nothing, Found::All],
        };
        assert_eq!(seen, expected, "{}, in a transaction: {in_transaction}", operation.name);
    }
    cuts
}

#[tokio::test]
async fn what_a_caller_gets_that_asks_again_is_what_the_table_says() {
    let mut repeated = BTreeMap::new();
    for operation in &that_write().await {
        repeated.insert(operation.name, Clean::of(operation).await.repeated().to_owned());
    }
    operations::assert_table(
        &repeated,
        REPEATED,
        "REPEATED in tests/it/store/crash.rs (for WRITES of tests/it/support/operations/run.rs)",
    );
}

#[tokio::test]
async fn whatever_is_cut_has_happened_or_not() {
    let cuts = cut_everywhere(false).await;
    assert!(cuts >= 2 * 2 * that_write().await.len(), "{cuts} cuts: each is prepared, and executed");
}

#[tokio::test]
async fn whatever_is_cut_in_a_transaction_has_happened_or_not() {
    let cuts = cut_everywhere(true).await;
    assert!(cuts >= 2 * 4 * that_write().await.len(), "{cuts} cuts: BEGIN and COMMIT, too");
}

/// What the server thinks that the other sessions of the database do; a pooler may have given its only one to this.
async fn left_behind(observer: &mut PgConnection) -> String {
    // Serializable transactions are remembered a little longer.
    let left = "SELECT coalesce(string_agg(DISTINCT format('%s, %s locks', a.state, (
                    SELECT count(*) FROM pg_locks AS l WHERE l.pid = a.pid AND l.mode <> 'SIReadLock'
                )), '; '), 'idle, 0 locks') FROM pg_stat_activity AS a
                WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()";
    sqlx::query_scalar(left).fetch_one(observer).await.expect("the sessions")
}

/// Drops everything everywhere, and says what was found then.
async fn drop_everywhere(in_transaction: bool) -> Vec<Found> {
    let mut seen = Vec::new();
    for operation in &that_write().await {
        let clean = Clean::of(operation).await;
        let mut spare = None;
        for (polls, at_once) in (1..).flat_map(|polls| [(polls, true), (polls, false)]) {
            let what = format!(
                "{}, in a transaction: {in_transaction}, dropped after {polls} polls, at once: {at_once}",
                operation.name
            );
            let mut world = match spare.take() {
                Some(world) => world,
                None => World::of(operation).await,
            };
            let mut conn = world.database.connect().await;
            let answer = if in_transaction {
                let mut tx = conn.begin().await.unwrap();
                let answer = give_up(operation.call(&mut tx), polls, at_once).await;
                // The caller may go on in its transaction, and here drops that, too.
                if answer.is_none() {
                    seen.push(clean.compare(operation, &state(&mut tx).await, &what));
                }
                answer
            } else {
                give_up(operation.call(&mut conn), polls, at_once).await
            };
            if answer.is_some() {
                break;
            }

            // The next user of the connection gets the answer to its own question, and nobody's transaction.
            let question = i32::try_from(seen.len()).unwrap();
            let (answer, level): (i32, String) = sqlx::query_as("SELECT $1, current_setting('transaction_isolation')")
                .bind(question)
                .fetch_one(&mut conn)
                .await
                .expect(&what);
            assert_eq!((answer, level.as_str()), (question, "read committed"), "{what}");
            assert_eq!(left_behind(&mut world.observer).await, "idle, 0 locks", "{what}");

            let found = world.found(operation, &clean, &what).await;
            if in_transaction {
                assert_eq!(found, Found::Nothing, "{what}");
            } else {
                seen.push(found);
            }
            if found == Found::Nothing {
                // Taken back, so that the next one finds the same.
                let mut tx = conn.begin().await.unwrap();
                assert_eq!(say(&operation.call(&mut tx).await), clean.answers[0], "{what}, and again");
                tx.rollback().await.unwrap();
                spare = Some(world);
            }
        }
    }
    seen
}

#[tokio::test]
async fn whoever_drops_an_operation_leaves_a_clean_session() {
    let seen = drop_everywhere(false).await;
    assert!([Found::Nothing, Found::Part, Found::All].iter().all(|found| seen.contains(found)), "{seen:?}");
}

#[tokio::test]
async fn whoever_drops_an_operation_may_go_on_in_the_transaction_and_leaves_a_clean_session() {
    let seen = drop_everywhere(true).await;
    assert!([Found::Nothing, Found::All].iter().all(|found| seen.contains(found)), "{seen:?}");
}

/// The reason why no operation begins a transaction by itself. When this fails, the warning in `src/store/mod.rs` can go.
#[tokio::test]
async fn a_begin_of_the_driver_that_is_dropped_leaves_a_transaction_or_ends_the_one_around_it() {
    let database = support::database().await;
    let (mut conn, mut observer) = (database.connect().await, database.connect().await);
    // Where the server is faster than the first poll, there is nothing to drop, and another one is begun.
    while give_up(conn.begin(), 1, true).await.is_some() {}
    execute(&mut conn, "SELECT").await;
    assert!(left_behind(&mut observer).await.contains("idle in transaction"));
    execute(&mut conn, "ROLLBACK").await;

    let mut outer = conn.begin().await.unwrap();
    execute(&mut outer, "CREATE TABLE written ()").await;
    while give_up(outer.begin(), 1, true).await.is_some() {}
    outer.commit().await.expect("it says that all is well");
    let written = sqlx::query("SELECT FROM written").fetch_optional(&mut observer).await;
    assert!(written.is_err(), "nothing was committed");
}
