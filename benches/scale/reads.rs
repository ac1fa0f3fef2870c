//! What is read: the calls, and the rounds in which both sides and the floors take turns.

use std::time::{Duration, Instant};

use coderdb::{
    authz::{Actor, ReadJobs, ReadQuota, System},
    demo,
    model::{
        Cursor, JobDetails, JobFilter, JobId, JobStatus, JobWithQueue, OrganizationId, PageRequest, Quota, Tags,
        Transition, UserId,
    },
    sqlx::{self, PgConnection},
    store,
};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{
    PAIRS, plain,
    support::{Server, quantile, run},
};

/// How many rows a page has.
const PAGE: u32 = 50;
/// How long a turn takes at least, where a single call takes less; that of a floor a third.
const TURN: Duration = Duration::from_millis(15);
const MOST_CALLS: u32 = 250;
/// How long the rows of both sides are compared, at least twice.
const COMPARED: Duration = Duration::from_secs(2);

/// A call.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "there are a few dozen of them")]
pub enum Read {
    List(JobFilter),
    /// A later page of the whole history; the plain SQL has none.
    Page(Cursor),
    Get(JobId),
    ByIds(Vec<JobId>),
    Quota(UserId),
}

#[derive(Debug, PartialEq)]
enum Answer {
    Jobs(Vec<JobDetails>),
    Queued(Vec<JobWithQueue>),
    Quota(Quota),
}

/// Who has its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Plain,
    Layer,
    /// The floors: one job by its primary key, the newest jobs by their index, and nothing at all.
    PrimaryKey,
    Newest,
    SelectOne,
}

/// A call with several choices of parameters, one per round.
pub struct Work {
    pub name: &'static str,
    pub reads: Vec<Read>,
}

/// Milliseconds per call, one value per round.
#[derive(Default)]
pub struct Times {
    pub plain: Vec<f64>,
    pub layer: Vec<f64>,
    pub primary_key: Vec<f64>,
    pub newest: Vec<f64>,
    pub select_one: Vec<f64>,
}

impl Times {
    /// How many times as long as the layer the plain SQL takes, per round.
    pub fn ratios(&self) -> Vec<f64> {
        self.plain.iter().zip(&self.layer).map(|(plain, layer)| plain / layer).collect()
    }

    /// How many floors the layer takes, per round.
    pub fn floors(&self, floor: &[f64]) -> Vec<f64> {
        self.layer.iter().zip(floor).map(|(layer, floor)| layer / floor).collect()
    }

    pub fn json(&self) -> Value {
        json!({
            "plain": self.plain, "layer": self.layer, "primary_key": self.primary_key, "newest": self.newest,
            "select_one": self.select_one,
        })
    }
}

const NEWEST: &str =
    "SELECT * FROM provisioner_jobs WHERE organization_id = $1 ORDER BY created_at DESC, id DESC LIMIT 50";

/// Both databases of one scale.
pub struct Reader {
    organization: OrganizationId,
    plain: PgConnection,
    /// Plans with the parameters each time: with filters that are switched off in the text, a plan for all is far slower.
    plain_list: PgConnection,
    layer: PgConnection,
    one_job: JobId,
}

impl Reader {
    pub async fn new(server: &Server, plain: &str, layer: &str) -> Self {
        let mut layer = server.connect(layer).await;
        let mut plain_list = server.connect(plain).await;
        run(&mut plain_list, "SET plan_cache_mode = force_custom_plan").await;
        let plain = server.connect(plain).await;
        let organization = one(&mut layer, "SELECT id FROM organizations WHERE name = 'engineering'").await;
        let one_job = one(&mut layer, "SELECT id FROM provisioner_jobs ORDER BY id LIMIT 1").await;
        Self { organization: OrganizationId(organization), plain, plain_list, layer, one_job: JobId(one_job) }
    }

    async fn plain(&mut self, read: &Read) -> Answer {
        let (conn, lists, organization) = (&mut self.plain, &mut self.plain_list, self.organization);
        match read {
            Read::List(filter) => Answer::Jobs(plain::list(lists, organization, filter, PAGE.into()).await),
            Read::Page(_) => unreachable!("the plain SQL has no later pages"),
            Read::Get(id) => {
                let filter = JobFilter { ids: vec![*id], ..JobFilter::default() };
                Answer::Jobs(plain::list(lists, organization, &filter, 1).await)
            }
            Read::ByIds(ids) => Answer::Queued(plain::by_ids(conn, ids).await),
            Read::Quota(user) => Answer::Quota(plain::quota(conn, *user, organization).await),
        }
    }

    async fn layer(&mut self, read: &Read) -> Answer {
        let actor = Actor::system(System::Operator);
        let permit = ReadJobs::check(&actor, self.organization).expect("an operator");
        let conn = &mut self.layer;
        let first = PageRequest::first(PAGE);
        match read {
            Read::List(filter) => {
                Answer::Jobs(store::jobs::list(conn, &permit, filter, first).await.expect("a page").rows)
            }
            Read::Page(cursor) => {
                let page = PageRequest::after(*cursor, PAGE);
                let filter = JobFilter::default();
                Answer::Jobs(store::jobs::list(conn, &permit, &filter, page).await.expect("a page").rows)
            }
            Read::Get(id) => Answer::Jobs(vec![store::jobs::get(conn, &permit, *id).await.expect("the job")]),
            Read::ByIds(ids) => {
                let stale = store::jobs::STALE_INTERVAL;
                let jobs = store::jobs::by_ids_with_queue_position(conn, &permit, ids, demo::ANCHOR, stale).await;
                Answer::Queued(jobs.expect("the jobs"))
            }
            Read::Quota(user) => {
                let permit = ReadQuota::check(&actor, *user, self.organization).expect("an operator");
                Answer::Quota(store::quota::usage(conn, &permit).await.expect("the quota"))
            }
        }
    }

    async fn call(&mut self, side: Side, read: &Read) {
        let conn = &mut self.layer;
        match side {
            Side::Plain => drop(self.plain(read).await),
            Side::Layer => drop(self.layer(read).await),
            Side::PrimaryKey => {
                let job = sqlx::query("SELECT * FROM provisioner_jobs WHERE id = $1").bind(self.one_job);
                drop(job.fetch_one(conn).await.expect("the job"));
            }
            Side::Newest => drop(sqlx::query(NEWEST).bind(self.organization).fetch_all(conn).await.expect("the jobs")),
            Side::SelectOne => drop(sqlx::query("SELECT 1").fetch_one(conn).await.expect("a row")),
        }
    }

    /// Panics unless both sides give the same answers.
    pub async fn compare(&mut self, work: &Work) {
        let began = Instant::now();
        for (n, read) in work.reads.iter().enumerate() {
            if matches!(read, Read::Page(_)) || (n >= 2 && began.elapsed() > COMPARED) {
                return;
            }
            let (theirs, ours) = (self.plain(read).await, self.layer(read).await);
            assert_eq!(ours, theirs, "{}: not the same rows for {read:?}", work.name);
        }
    }

    /// All sides in turn, [`PAIRS`] times.
    pub async fn time(&mut self, work: &Work) -> Times {
        let mut sides = vec![Side::Plain, Side::Layer, Side::PrimaryKey, Side::Newest, Side::SelectOne];
        sides.retain(|side| *side != Side::Plain || !matches!(work.reads[0], Read::Page(_)));
        let mut calls = Vec::new();
        for side in &sides {
            let mut once = Duration::MAX;
            // A statement has its plan after some calls; what takes longer than that is not called in vain.
            for _ in 0..8 {
                let began = Instant::now();
                self.call(*side, &work.reads[0]).await;
                once = once.min(began.elapsed());
                if once > TURN {
                    break;
                }
            }
            let turn = if matches!(side, Side::Plain | Side::Layer) { TURN } else { TURN / 3 };
            let fit = turn.as_secs_f64() / once.as_secs_f64();
            calls.push((1..=MOST_CALLS).find(|calls| f64::from(*calls) >= fit).unwrap_or(MOST_CALLS));
        }
        let mut times = Times::default();
        for round in 0..PAIRS {
            let read = &work.reads[round % work.reads.len()];
            for (side, calls) in sides.iter().zip(&calls) {
                let began = Instant::now();
                for _ in 0..*calls {
                    self.call(*side, read).await;
                }
                let time = began.elapsed().as_secs_f64() * 1e3 / f64::from(*calls);
                match side {
                    Side::Plain => times.plain.push(time),
                    Side::Layer => times.layer.push(time),
                    Side::PrimaryKey => times.primary_key.push(time),
                    Side::Newest => times.newest.push(time),
                    Side::SelectOne => times.select_one.push(time),
                }
            }
        }
        times
    }

    /// The calls, with parameters out of the data.
    pub async fn works(&mut self) -> Vec<Work> {
        let organization = format!("organization_id = '{}'", self.organization);
        let prebuilds = UserId::PREBUILDS;
        let conn = &mut self.layer;
        let pending: Vec<JobId> = all(
            conn,
            &format!("SELECT id FROM provisioner_jobs WHERE {organization} AND job_status = 'pending' ORDER BY md5(id::text) LIMIT 500"),
        )
        .await;
        let busy: Vec<UserId> = all(
            conn,
            &format!(
                "SELECT initiator_id FROM provisioner_jobs WHERE {organization} AND initiator_id <> '{prebuilds}'
                 GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT {PAIRS}"
            ),
        )
        .await;
        let templates = format!("SELECT id FROM templates WHERE {organization} ORDER BY md5(id::text) LIMIT {PAIRS}");
        let templates = all(conn, &templates).await;
        let workspaces = format!(
            "SELECT id FROM workspaces WHERE {organization} AND owner_id <> '{prebuilds}' ORDER BY md5(id::text) LIMIT {PAIRS}"
        );
        let workspaces = all(conn, &workspaces).await;
        let owners: Vec<UserId> = all(
            conn,
            &format!(
                "SELECT owner_id FROM workspaces WHERE {organization} AND owner_id <> '{prebuilds}'
                 GROUP BY 1 HAVING count(*) <= 20 ORDER BY md5(owner_id::text) LIMIT {PAIRS}"
            ),
        )
        .await;
        let heavy = one(conn, "SELECT id FROM users WHERE username = 'dev-0001'").await;
        let tags: Vec<Value> = all(
            conn,
            &format!("SELECT DISTINCT tags FROM provisioner_daemons WHERE {organization} AND tags::text ~ 'env'"),
        )
        .await;
        let tags: Vec<Tags> = tags.into_iter().map(Tags::from).collect();
        let mut cursors = Vec::new();
        // The last page begins so far before the end.
        for skipped in ["count(*) / 2", "count(*) - 51"] {
            let place: (OffsetDateTime, JobId) = sqlx::query_as(sqlx::AssertSqlSafe(format!(
                "SELECT created_at, id FROM provisioner_jobs WHERE {organization} ORDER BY created_at DESC, id DESC
                 OFFSET (SELECT {skipped} FROM provisioner_jobs WHERE {organization}) LIMIT 1"
            )))
            .fetch_one(&mut *conn)
            .await
            .expect("a place");
            cursors.push(Cursor { created_at: place.0, id: place.1 });
        }
        let list = |name, filters: Vec<JobFilter>| Work { name, reads: filters.into_iter().map(Read::List).collect() };
        let any = JobFilter::default;
        let one_pending = |n: usize| pending[n % pending.len()];
        let fifty = |n: usize| (0..50).map(|k| one_pending(n * 50 + k)).collect::<std::collections::BTreeSet<_>>();
        vec![
            list("list", vec![any()]),
            list("list, failed", vec![JobFilter { status: vec![JobStatus::Failed], ..any() }]),
            list("list, busy initiator", busy.iter().map(|id| JobFilter { initiator: Some(*id), ..any() }).collect()),
            list("list, prebuilds", vec![JobFilter { initiator: Some(prebuilds), ..any() }]),
            list("list, pending", vec![JobFilter { status: vec![JobStatus::Pending], ..any() }]),
            list(
                "list, pending prebuilds",
                vec![JobFilter { status: vec![JobStatus::Pending], initiator: Some(prebuilds), ..any() }],
            ),
            list("list, tags", tags.iter().map(|tags| JobFilter { tags: Some(tags.clone()), ..any() }).collect()),
            list(
                "list, tags of no job",
                vec![JobFilter { tags: Some([("env", "nowhere")].into_iter().collect()), ..any() }],
            ),
            list(
                "list, one pending id",
                (0..PAIRS).map(|n| JobFilter { ids: vec![one_pending(n)], ..any() }).collect(),
            ),
            list("list, template", templates.into_iter().map(|id| JobFilter { template: Some(id), ..any() }).collect()),
            list(
                "list, workspace",
                workspaces.into_iter().map(|id| JobFilter { workspace: Some(id), ..any() }).collect(),
            ),
            list("list, deletes", vec![JobFilter { transition: Some(Transition::Delete), ..any() }]),
            Work { name: "page, middle", reads: vec![Read::Page(cursors[0])] },
            Work { name: "page, last", reads: vec![Read::Page(cursors[1])] },
            Work { name: "get, pending", reads: (0..PAIRS).map(|n| Read::Get(one_pending(n))).collect() },
            Work { name: "by ids, 1 pending", reads: (0..PAIRS).map(|n| Read::ByIds(vec![one_pending(n)])).collect() },
            Work {
                name: "by ids, 50 pending",
                reads: (0..PAIRS).map(|n| Read::ByIds(fifty(n).into_iter().collect())).collect(),
            },
            Work { name: "quota, ordinary owner", reads: owners.into_iter().map(Read::Quota).collect() },
            Work { name: "quota, heavy owner", reads: vec![Read::Quota(UserId(heavy))] },
            Work { name: "quota, prebuilds", reads: vec![Read::Quota(prebuilds)] },
        ]
    }
}

async fn all<T>(conn: &mut PgConnection, sql: &str) -> Vec<T>
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
{
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_all(conn).await.expect("the parameters")
}

async fn one(conn: &mut PgConnection, sql: &str) -> uuid::Uuid {
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(conn).await.expect("the parameter")
}

pub fn median(values: &[f64]) -> f64 {
    quantile(values, 500)
}
