//! Data to try things on: a small organization in which everything has happened once, and a large one to measure with.
//!
//! Both are the same rows on every machine: fixed ids, and times relative to [`DemoOptions::at`]. At that moment the
//! daemons are online, until they are not heard of any more: [`live`] has them go on. Ids that a person may want to
//! type begin with `c0de0000-` and name their kind and number; the jobs, builds, versions and workspaces of the large
//! organization have ids that are spread like random ones.
//!
//! A demo that was loaded once is left as it is: a row in `site_configs` with the key [`NOTE`] remembers it, and a
//! second call changes nothing, even if the demo's rows were changed or deleted since.

mod live;
mod scale;

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Connection, FromRow, PgConnection};
use time::OffsetDateTime;

pub use live::live;
pub use scale::{Regime, Scale};

use crate::store;

/// A moment for demos that are the same whenever they are loaded.
pub const ANCHOR: OffsetDateTime = time::macros::datetime!(2026-05-07 9:00 UTC);

/// The name of the small organization.
pub const ORGANIZATION: &str = "coder";

/// The key in `site_configs` under which a database remembers what was loaded.
pub const NOTE: &str = "coderdb_demo";

/// What to load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DemoOptions {
    /// Load even if the database holds rows of others.
    pub allow_existing: bool,
    /// Load the large organization too.
    pub scale: Option<Scale>,
    /// The moment that the demo calls now, to the second.
    pub at: OffsetDateTime,
}

/// The small organization at [`ANCHOR`], into an empty database.
impl Default for DemoOptions {
    fn default() -> Self {
        Self { allow_existing: false, scale: None, at: ANCHOR }
    }
}

/// How far a load has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What it is doing.
    pub step: Step,
    /// How much of the step is done.
    pub done: u64,
    /// How much there is to do in the step.
    pub total: u64,
}

/// A part of a load, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// The small organization, in scripts.
    Small,
    /// Everything of the large organization but its jobs, in scripts.
    People,
    /// The jobs of the large organization, with their builds and versions, in jobs.
    Jobs,
    /// Indexes and foreign keys that are built anew after the jobs, in indexes and foreign keys.
    Indexes,
    /// Statistics and visibility for the planner, after the commit, in statements.
    Vacuum,
}

/// What became of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// The rows are in.
    Loaded {
        /// How many provisioner jobs were inserted.
        jobs: u64,
        /// How long it took, the commit included.
        elapsed: Duration,
        /// How long `VACUUM (ANALYZE)` took afterwards.
        vacuum: Duration,
        /// The moment that the demo calls now.
        at: OffsetDateTime,
    },
    /// It was loaded before; nothing was changed.
    AlreadyLoaded {
        /// The large organization that is there.
        scale: Option<Scale>,
        /// The moment that the demo calls now.
        at: OffsetDateTime,
    },
}

/// Why a load did not happen. In every case nothing was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database holds rows of others.
    #[error(
        "this database is in use: {organizations} organizations, {users} users and {jobs} jobs are not the demo's; \
         load it into an empty database, or allow existing rows"
    )]
    InUse {
        /// Organizations that are not the demo's.
        organizations: i64,
        /// Users that are neither the demo's nor the prebuilds user.
        users: i64,
        /// Jobs in organizations that are not the demo's.
        jobs: i64,
    },
    /// The database has tables of something else.
    #[error("this database is not coderdb's: it has {tables} tables and no migration history")]
    Foreign {
        /// How many tables.
        tables: i64,
    },
    /// Rows of others have names that the demo needs.
    #[error("the demo needs names that are taken: {}", names.join(", "))]
    NamesTaken {
        /// Each with its kind, such as `username alice`.
        names: Vec<String>,
    },
    /// A large organization of another size or regime is there.
    #[error("a demo of {loaded} is loaded; {asked} needs a database of its own")]
    OtherScale {
        /// What is there.
        loaded: Scale,
        /// What was asked for.
        asked: Scale,
    },
    /// The size is out of range.
    #[error("a demo of {jobs} jobs cannot be made: between {} and {}, please", Scale::MIN_JOBS, Scale::MAX_JOBS)]
    OutOfRange {
        /// How many jobs were asked for.
        jobs: u64,
    },
    /// The demo's rows are there without the note of them, or the note cannot be read.
    #[error("this database holds parts of a demo, but site_configs.{NOTE} does not say of which; use another database")]
    Unknown,
    /// The database refused.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Error {
    /// A name for the kind of failure that stays the same between versions.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Foreign { .. } => "demo_foreign",
            Self::InUse { .. } => "demo_in_use",
            Self::NamesTaken { .. } => "demo_names_taken",
            Self::OtherScale { .. } => "demo_other_scale",
            Self::OutOfRange { .. } => "demo_out_of_range",
            Self::Unknown => "demo_unknown",
            Self::Store(error) => error.code(),
        }
    }
}

/// The value under [`NOTE`].
#[derive(Serialize, Deserialize)]
struct Note {
    scale: Option<Scale>,
    /// What was loaded before there was a choice is of that moment.
    #[serde(default = "anchor", with = "time::serde::timestamp")]
    at: OffsetDateTime,
}

const fn anchor() -> OffsetDateTime {
    ANCHOR
}

#[derive(FromRow)]
struct Others {
    organizations: i64,
    users: i64,
    jobs: i64,
    small: bool,
    large: bool,
}

const SMALL: [&str; 3] =
    [include_str!("small/people.sql"), include_str!("small/work.sql"), include_str!("small/traces.sql")];

/// The usernames of the small organization; those of the large one are `dev-0001` to `dev-2000`.
const USERNAMES: [&str; 11] =
    ["alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy", "ci-runner"];

/// Refuses a database that is not for a demo, before anything is written to it, the schema included.
///
/// # Errors
/// [`Error::Foreign`] when there are tables and no migration history, [`Error::InUse`] when there are rows of others.
pub async fn check(conn: &mut PgConnection) -> Result<(), Error> {
    let (migrated, tables): (bool, i64) =
        sqlx::query_as(include_str!("tables.sql")).fetch_one(&mut *conn).await.map_err(sql("demo/tables"))?;
    match (migrated, tables) {
        (false, 0) => Ok(()),
        (false, tables) => Err(Error::Foreign { tables }),
        (true, _) => others(conn).await?.none(),
    }
}

async fn others(conn: &mut PgConnection) -> Result<Others, Error> {
    sqlx::query_as(include_str!("others.sql")).fetch_one(conn).await.map_err(sql("demo/others"))
}

impl Others {
    fn none(&self) -> Result<(), Error> {
        let Self { organizations, users, jobs, .. } = *self;
        if (organizations, users, jobs) == (0, 0, 0) {
            return Ok(());
        }
        Err(Error::InUse { organizations, users, jobs })
    }
}

/// Loads the small organization, and the large one if the options ask for it, in one transaction.
///
/// A load that is cancelled or fails leaves no row behind. `conn` must not be in a transaction: at the end, outside of
/// it, comes a `VACUUM (ANALYZE)`. Where another organization is the default one, it stays so.
///
/// # Errors
/// [`Error::InUse`] when there are rows of others and the options do not allow them; see the other variants too.
pub async fn load(
    conn: &mut PgConnection,
    options: &DemoOptions,
    mut progress: impl FnMut(Progress),
) -> Result<Outcome, Error> {
    let started = Instant::now();
    if let Some(Scale { jobs, .. }) = options.scale.filter(|scale| !scale.is_possible()) {
        return Err(Error::OutOfRange { jobs });
    }
    let mut tx = conn.begin().await.map_err(sql("demo/begin"))?;
    script(&mut tx, "demo/session", include_str!("session.sql")).await?;
    // Two loads at once: the second waits, and then finds the first one's note.
    script(&mut tx, "demo/lock", "SELECT pg_advisory_xact_lock(7163384753)").await?;
    let note = note(&mut tx).await?;
    // What comes later is of the same moment.
    let at = note.as_ref().map_or(options.at, |note| note.at);
    let wanted = options.scale;
    match (&note, wanted) {
        (Some(Note { scale: Some(loaded), .. }), Some(asked)) if *loaded != asked => {
            return Err(Error::OtherScale { loaded: *loaded, asked });
        }
        (Some(Note { scale: None, .. }), Some(_)) | (None, _) => {}
        (Some(Note { scale, at }), _) => return Ok(Outcome::AlreadyLoaded { scale: *scale, at: *at }),
    }
    let small = note.is_none();

    let others = others(&mut tx).await?;
    if (small && others.small) || others.large {
        return Err(Error::Unknown);
    }
    if !options.allow_existing {
        others.none()?;
    }
    let alone = others.none().is_ok();
    names_free(&mut tx, small, wanted.is_some()).await?;

    script(&mut tx, "demo/ids", include_str!("ids.sql")).await?;
    if small {
        load_small(&mut tx, at, &mut progress).await?;
    }
    if let Some(scale) = wanted {
        scale::load(&mut tx, scale, at, alone, &mut progress).await?;
    }
    script(&mut tx, "demo/settle", include_str!("settle.sql")).await?;
    let note = serde_json::json!(Note { scale: wanted, at }).to_string();
    sqlx::query(
        "INSERT INTO site_configs (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
    )
    .bind(NOTE)
    .bind(note)
    .execute(&mut *tx)
    .await
    .map_err(sql("demo/note"))?;
    tx.commit().await.map_err(sql("demo/commit"))?;
    let elapsed = started.elapsed();

    let vacuum = Instant::now();
    progress(Progress { step: Step::Vacuum, done: 0, total: 1 });
    script(conn, "demo/vacuum", include_str!("vacuum.sql")).await?;
    progress(Progress { step: Step::Vacuum, done: 1, total: 1 });
    let jobs = if small { SMALL_JOBS } else { 0 } + wanted.map_or(0, |scale| scale.jobs);
    Ok(Outcome::Loaded { jobs, elapsed, vacuum: vacuum.elapsed(), at })
}

/// How many jobs the small organization has: a default page shows them all.
pub const SMALL_JOBS: u64 = 42;

async fn note(conn: &mut PgConnection) -> Result<Option<Note>, Error> {
    let stored: Option<String> = sqlx::query_scalar("SELECT value FROM site_configs WHERE key = $1")
        .bind(NOTE)
        .fetch_optional(conn)
        .await
        .map_err(sql("demo/note"))?;
    stored.map(|text| serde_json::from_str(&text).map_err(|_| Error::Unknown)).transpose()
}

async fn names_free(conn: &mut PgConnection, small: bool, large: bool) -> Result<(), Error> {
    let (mut users, mut organizations) = (Vec::new(), Vec::new());
    if small {
        users.extend(USERNAMES.map(str::to_owned));
        organizations.push("coder");
    }
    if large {
        users.extend((1..=2000).map(|n| format!("dev-{n:04}")));
        organizations.extend(scale::ORGANIZATIONS);
    }
    let taken: Vec<(String, String)> = sqlx::query_as(include_str!("taken.sql"))
        .bind(users)
        .bind(organizations)
        .fetch_all(conn)
        .await
        .map_err(sql("demo/taken"))?;
    if taken.is_empty() {
        return Ok(());
    }
    Err(Error::NamesTaken { names: taken.into_iter().map(|(kind, name)| format!("{kind} {name}")).collect() })
}

async fn load_small(
    conn: &mut PgConnection,
    at: OffsetDateTime,
    progress: &mut impl FnMut(Progress),
) -> Result<(), Error> {
    script(conn, "demo/small", "CREATE TEMPORARY TABLE demo_anchor (anchor timestamptz NOT NULL) ON COMMIT DROP")
        .await?;
    sqlx::query("INSERT INTO demo_anchor VALUES ($1)")
        .persistent(false)
        .bind(at)
        .execute(&mut *conn)
        .await
        .map_err(sql("demo/small"))?;
    let encoding: String = sqlx::query_scalar("SELECT pg_catalog.current_setting('server_encoding')")
        .persistent(false)
        .fetch_one(&mut *conn)
        .await
        .map_err(sql("demo/small"))?;
    let total = SMALL.len() as u64;
    for (done, text) in (0..).zip(SMALL) {
        progress(Progress { step: Step::Small, done, total });
        // Other encodings lack some of its characters.
        let text = if encoding == "UTF8" { text.to_owned() } else { text.replace(|c: char| !c.is_ascii(), "?") };
        definition(conn, "demo/small", text).await?;
    }
    progress(Progress { step: Step::Small, done: total, total });
    Ok(())
}

/// Runs a file that holds several statements.
async fn script(conn: &mut PgConnection, name: &'static str, text: &'static str) -> Result<(), Error> {
    sqlx::raw_sql(text).execute(conn).await.map_err(sql(name))?;
    Ok(())
}

/// Runs statements that were spelled at run time.
async fn definition(conn: &mut PgConnection, name: &'static str, text: String) -> Result<(), Error> {
    sqlx::raw_sql(AssertSqlSafe(text)).execute(conn).await.map_err(sql(name))?;
    Ok(())
}

fn sql(name: &'static str) -> impl Fn(sqlx::Error) -> Error {
    move |error| Error::Store(store::Error::from_sqlx(name, error))
}
