//! The large organization: the same shape at every size, made by set-based statements.

use std::fmt;

use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{Error, Progress, Step, definition, script, sql};

/// How large the large organization is, and what its queue looks like.
///
/// 70 % of the jobs are workspace builds, 20 % imports and 10 % dry runs, in 5 organizations, the first of which has
/// about 70 %. There are 2,000 users, 50 daemons with 5 tag sets, and one workspace per 50 jobs, at most 20,000; a
/// twentieth of the workspaces, at most 1,000, belongs to one user and has 200 builds each. In the storm there is one
/// more workspace for each prebuild that waits, because that is what a prebuild is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scale {
    /// How many provisioner jobs, the waiting ones included.
    pub jobs: u64,
    /// What the queue looks like.
    pub regime: Regime,
}

/// What waits in the queue of the large organization.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Regime {
    /// 200 jobs wait, but at most 2 % of all; a tenth of them are prebuilds.
    Calm,
    /// 50,000 jobs wait, but at most 5 % of all; nine of ten are prebuilds.
    Storm,
}

impl Scale {
    /// The smallest size: below it there is not enough to keep the proportions.
    pub const MIN_JOBS: u64 = 1_000;
    /// The largest size.
    pub const MAX_JOBS: u64 = 20_000_000;

    pub(super) const fn is_possible(&self) -> bool {
        Self::MIN_JOBS <= self.jobs && self.jobs <= Self::MAX_JOBS
    }

    /// How many jobs wait.
    #[must_use]
    pub const fn pending(&self) -> u64 {
        let (most, share) = match self.regime {
            Regime::Calm => (200, self.jobs / 50),
            Regime::Storm => (50_000, self.jobs / 20),
        };
        if most < share { most } else { share }
    }

    /// How many of the jobs that wait are builds of prebuilt workspaces.
    #[must_use]
    pub const fn pending_prebuilds(&self) -> u64 {
        match self.regime {
            Regime::Calm => self.pending() / 10,
            Regime::Storm => self.pending() * 9 / 10,
        }
    }
}

impl fmt::Display for Scale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let regime = match self.regime {
            Regime::Calm => "calm",
            Regime::Storm => "storm",
        };
        write!(f, "{} jobs ({regime})", self.jobs)
    }
}

/// Their names.
pub(super) const ORGANIZATIONS: [&str; 5] = ["engineering", "research", "data-platform", "mobile", "field-support"];

/// How many jobs one statement inserts: half a second's worth, so that progress shows and a cancel is heard.
const BATCH: u64 = 25_000;

/// Inserts it. `alone` says that there are no rows but the demo's, whose readers and writers a rebuild would block.
pub(super) async fn load(
    conn: &mut PgConnection,
    scale: Scale,
    at: OffsetDateTime,
    alone: bool,
    progress: &mut impl FnMut(Progress),
) -> Result<(), Error> {
    progress(Progress { step: Step::People, done: 0, total: 1 });
    parameters(conn, scale, at).await?;
    script(conn, "demo/scale/plan", include_str!("scale/plan.sql")).await?;
    progress(Progress { step: Step::People, done: 1, total: 1 });

    let rebuild = alone && may_rebuild(conn).await?;
    if rebuild {
        script(conn, "demo/scale/suspend", include_str!("scale/suspend.sql")).await?;
    }
    let mut done = 0;
    let mut report = |inserted: i64| {
        done += inserted.unsigned_abs();
        progress(Progress { step: Step::Jobs, done, total: scale.jobs });
    };
    report(0);
    let slices = u32::try_from(scale.jobs.div_ceil(BATCH)).expect("a possible scale has few slices");
    for slice in 0..slices {
        let inserted: i64 = sqlx::query_scalar(include_str!("scale/history.sql"))
            // Not kept: the temporary tables in it are gone after this transaction.
            .persistent(false)
            .bind(f64::from(slice) / f64::from(slices))
            .bind(f64::from(slice + 1) / f64::from(slices))
            .fetch_one(&mut *conn)
            .await
            .map_err(sql("demo/scale/history"))?;
        report(inserted);
    }
    let inserted: i64 = sqlx::query_scalar(include_str!("scale/tail.sql"))
        .persistent(false)
        .fetch_one(&mut *conn)
        .await
        .map_err(sql("demo/scale/tail"))?;
    report(inserted);
    if rebuild {
        restore(conn, progress).await?;
    }
    Ok(())
}

/// How many of everything. The proportions are kept in whole numbers, so that each count is exact.
async fn parameters(conn: &mut PgConnection, scale: Scale, at: OffsetDateTime) -> Result<(), Error> {
    let whole = |n: u64| i64::try_from(n).expect("a possible scale fits");
    let jobs = whole(scale.jobs);
    let builds = jobs * 7 / 10;
    let imports = jobs * 2 / 10;
    let dry_runs = jobs - builds - imports;
    let waiting = whole(scale.pending());
    let waiting_prebuilds = whole(scale.pending_prebuilds());
    let by_people = waiting - waiting_prebuilds;
    let (waiting_imports, waiting_dry_runs) = (by_people * 2 / 10, by_people / 10);
    let waiting_builds = by_people - waiting_imports - waiting_dry_runs;
    let workspaces = (jobs / 50).min(20_000);
    let heavy = workspaces / 20;
    // Of the builds that are left, the first organization gets as many as make 70 % together with the heavy owner's.
    let ordinary = builds - waiting_prebuilds - 200 * heavy;
    let big_share = ((builds - waiting_prebuilds) * 7 / 10 - 200 * heavy) * 1000 / ordinary;

    script(conn, "demo/scale/parameters", include_str!("scale/parameters.sql")).await?;
    sqlx::query(include_str!("scale/parameters_insert.sql"))
        .persistent(false)
        .bind(at)
        .bind(builds)
        .bind(imports)
        .bind(dry_runs)
        .bind(imports - waiting_imports)
        .bind(dry_runs - waiting_dry_runs)
        .bind(waiting_builds)
        .bind(waiting_prebuilds)
        .bind(if jobs < 10_000 { 1_i64 } else { 9 })
        .bind(10 * (jobs / 50_000).clamp(2, 20))
        .bind(workspaces)
        .bind(heavy)
        .bind(big_share)
        .execute(conn)
        .await
        .map_err(sql("demo/scale/parameters"))?;
    Ok(())
}

async fn may_rebuild(conn: &mut PgConnection) -> Result<bool, Error> {
    sqlx::query_scalar(include_str!("scale/may_rebuild.sql"))
        .fetch_one(conn)
        .await
        .map_err(sql("demo/scale/may_rebuild"))
}

/// Puts back what `suspend.sql` took off, indexes before the keys that need them.
async fn restore(conn: &mut PgConnection, progress: &mut impl FnMut(Progress)) -> Result<(), Error> {
    let statements: Vec<String> = sqlx::query_scalar(include_str!("scale/restore.sql"))
        .persistent(false)
        .fetch_all(&mut *conn)
        .await
        .map_err(sql("demo/scale/restore"))?;
    let total = statements.len() as u64;
    for (done, statement) in (0..).zip(statements) {
        progress(Progress { step: Step::Indexes, done, total });
        definition(conn, "demo/scale/restore", statement).await?;
    }
    progress(Progress { step: Step::Indexes, done: total, total });
    Ok(())
}
