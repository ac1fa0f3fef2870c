//! What is read: the calls, and the rounds in which the sides take turns.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use coderdb::{
    authz::{Actor, ReadJobs, ReadQuota, System},
    demo::{self, Regime, Scale},
    model::{
        Cursor, JobDetails, JobFilter, JobId, JobStatus, JobWithQueue, OrganizationId, PageRequest, Quota, Tags,
        TemplateId, Transition, UserId,
    },
    sqlx::{self, PgConnection},
    store,
};
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    PAIRS, plain,
    report::{LAYER, Row, SIDES},
    server::{Schema, Server, run},
};

/// How many rows a page has.
const PAGE: u32 = 50;
/// How long a turn takes at least, where a single call takes less.
const TURN: Duration = Duration::from_millis(15);
const MOST_CALLS: u32 = 250;
/// How long the rows of all sides are compared, at least twice.
const COMPARED: Duration = Duration::from_secs(2);

/// One job by its primary key.
pub const FLOOR: &str = "one row by primary key";

/// For each question the one index that helps the plain SQL most. There are others for pending jobs and for the newest
/// build of a workspace in the plain schema.
pub const INDEXES: [&str; 6] = [
    // In order, so that a limit ends the search. Tags, templates and transitions are asked of each job anyway; a status
    // is a list in the text, behind which no index is in order before PostgreSQL 17.
    "provisioner_jobs (organization_id, created_at DESC, id DESC)",
    "provisioner_jobs (organization_id, initiator_id, created_at DESC, id DESC)",
    // From the builds of a workspace to their jobs.
    "provisioner_jobs ((CASE WHEN input ? 'workspace_build_id' THEN (input ->> 'workspace_build_id')::uuid END))",
    // The queue in its order, without a look at the table: it is numbered from one end to the other.
    "provisioner_jobs ((initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0'), created_at, id) INCLUDE (initiator_id) \
     WHERE started_at IS NULL AND canceled_at IS NULL AND completed_at IS NULL AND error IS NULL",
    "provisioner_jobs ((initiator_id = 'c42fdf75-3097-471c-8c33-fb52454d81c0'), created_at, id) \
     INCLUDE (initiator_id, tags) WHERE job_status = 'pending'",
    "workspace_builds (workspace_id, build_number DESC) INCLUDE (daily_cost)",
];
const NEWEST: usize = 1;
const BY_INITIATOR: usize = 2;
const BY_BUILD: usize = 3;
const IN_ORDER: usize = 4;
const PENDING: usize = 5;
const COST: usize = 6;

/// A call.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "there are a few dozen of them")]
pub enum Read {
    List(JobFilter),
    Get(JobId),
    ByIds(Vec<JobId>),
    Quota(UserId),
}

#[derive(Debug, PartialEq)]
enum Answer {
    Jobs(Vec<JobDetails>),
    Queued(Vec<JobWithQueue>),
    Quota(Quota),
    Nothing,
}

/// A call with several choices of parameters, one per round.
pub struct Work {
    pub name: &'static str,
    /// The access path of a listing.
    path: &'static str,
    /// Which of [`INDEXES`] the plain SQL gets, counted from 1; 0 where the layer is alone.
    index: usize,
    /// How many workspaces an owner has.
    workspaces: i64,
    reads: Vec<Read>,
}

impl Work {
    pub fn new(name: &'static str, reads: Vec<Read>) -> Self {
        Self { name, path: "", index: 0, workspaces: 0, reads }
    }
}

/// Who calls.
enum How {
    /// Listings are planned with their parameters each time: with filters that are switched off in the text, a plan for
    /// all parameters is far slower.
    Plain {
        lists: PgConnection,
    },
    Layer,
    /// A later page of what is asked.
    Page(Cursor),
    /// One job by its primary key, whatever is asked.
    Floor(JobId),
}

pub struct Caller {
    name: &'static str,
    organization: OrganizationId,
    conn: PgConnection,
    how: How,
}

impl Caller {
    pub async fn layer(server: &Server, database: &str, name: &'static str) -> Self {
        let mut conn = server.connect(database).await;
        let organization = organization(&mut conn).await;
        Self { name, organization, conn, how: How::Layer }
    }

    /// The page behind so many jobs of the whole history: an expression over them.
    pub async fn page(server: &Server, database: &str, name: &'static str, skipped: &str) -> Self {
        let mut page = Self::layer(server, database, name).await;
        let organization = format!("organization_id = '{}'", page.organization);
        let (created_at, id): (OffsetDateTime, JobId) = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "SELECT created_at, id FROM provisioner_jobs WHERE {organization} ORDER BY created_at DESC, id DESC
             OFFSET (SELECT {skipped} FROM provisioner_jobs WHERE {organization}) LIMIT 1"
        )))
        .fetch_one(&mut page.conn)
        .await
        .expect("a position");
        Self { how: How::Page(Cursor { created_at, id }), ..page }
    }

    async fn plain(server: &Server, database: &str, name: &'static str) -> Self {
        let mut lists = server.connect(database).await;
        run(&mut lists, "SET plan_cache_mode = force_custom_plan").await;
        Self { how: How::Plain { lists }, ..Self::layer(server, database, name).await }
    }

    async fn floor(server: &Server, database: &str) -> Self {
        let mut floor = Self::layer(server, database, FLOOR).await;
        let job = one(&mut floor.conn, "SELECT id FROM provisioner_jobs ORDER BY id LIMIT 1").await;
        Self { how: How::Floor(JobId(job)), ..floor }
    }

    async fn call(&mut self, read: &Read) -> Answer {
        let (conn, organization) = (&mut self.conn, self.organization);
        match &mut self.how {
            How::Plain { lists } => match read {
                Read::List(filter) => Answer::Jobs(plain::list(lists, organization, filter, PAGE.into()).await),
                Read::Get(id) => {
                    let filter = JobFilter { ids: vec![*id], ..JobFilter::default() };
                    Answer::Jobs(plain::list(lists, organization, &filter, 1).await)
                }
                Read::ByIds(ids) => Answer::Queued(plain::by_ids(conn, ids).await),
                Read::Quota(user) => Answer::Quota(plain::quota(conn, *user, organization).await),
            },
            How::Layer => layer(conn, organization, read, PageRequest::first(PAGE)).await,
            How::Page(cursor) => layer(conn, organization, read, PageRequest::after(*cursor, PAGE)).await,
            How::Floor(job) => {
                let job = sqlx::query("SELECT * FROM provisioner_jobs WHERE id = $1").bind(*job);
                drop(job.fetch_one(conn).await.expect("the job"));
                Answer::Nothing
            }
        }
    }
}

async fn layer(conn: &mut PgConnection, organization: OrganizationId, read: &Read, page: PageRequest) -> Answer {
    let actor = Actor::system(System::Operator);
    let permit = ReadJobs::check(&actor, organization).expect("an operator");
    match read {
        Read::List(filter) => Answer::Jobs(store::jobs::list(conn, &permit, filter, page).await.expect("a page").rows),
        Read::Get(id) => Answer::Jobs(vec![store::jobs::get(conn, &permit, *id).await.expect("the job")]),
        Read::ByIds(ids) => {
            let stale = store::jobs::STALE_INTERVAL;
            let jobs = store::jobs::by_ids_with_queue_position(conn, &permit, ids, demo::ANCHOR, stale).await;
            Answer::Queued(jobs.expect("the jobs"))
        }
        Read::Quota(user) => {
            let permit = ReadQuota::check(&actor, *user, organization).expect("an operator");
            Answer::Quota(store::quota::usage(conn, &permit).await.expect("the quota"))
        }
    }
}

/// Panics unless all sides give the same answers.
async fn compare(sides: &mut [Caller], work: &Work) {
    let began = Instant::now();
    let [rest @ .., ours] = sides else { unreachable!("there are sides") };
    for (n, read) in work.reads.iter().enumerate() {
        if n >= 2 && began.elapsed() > COMPARED {
            return;
        }
        let our = ours.call(read).await;
        for side in rest.iter_mut() {
            let their = side.call(read).await;
            assert!(
                their == our || their == Answer::Nothing,
                "{}: not the same rows for {read:?}:\n{our:?}\n{their:?}",
                work.name
            );
        }
    }
}

/// All sides in turn, [`PAIRS`] times, but a side whose call takes more than a second three times: milliseconds per call.
pub async fn time(sides: &mut [Caller], work: &Work) -> Row {
    let mut calls = Vec::new();
    for side in &mut *sides {
        let mut once = Duration::MAX;
        // A statement has its plan after some calls; what takes longer than a turn is not called in vain.
        for _ in 0..8 {
            let began = Instant::now();
            side.call(&work.reads[0]).await;
            once = once.min(began.elapsed());
            if once > TURN {
                break;
            }
        }
        let rounds = if once > Duration::from_secs(1) { 3 } else { PAIRS };
        let fit = TURN.as_secs_f64() / once.as_secs_f64();
        let fit = (1..=MOST_CALLS).find(|calls| f64::from(*calls) >= fit).unwrap_or(MOST_CALLS);
        calls.push((fit, rounds));
    }
    let names: Vec<_> = sides.iter().map(|side| side.name).collect();
    let mut row = Row::new(work.name, "ms", &names);
    for round in 0..PAIRS {
        let read = &work.reads[round % work.reads.len()];
        let turns = sides.iter_mut().zip(&calls).zip(&mut row.sides).filter(|((_, (_, rounds)), _)| round < *rounds);
        for ((side, (calls, _)), (_, times)) in turns {
            let began = Instant::now();
            for _ in 0..*calls {
                side.call(read).await;
            }
            times.push(began.elapsed().as_secs_f64() * 1e3 / f64::from(*calls));
        }
    }
    row
}

/// Everything that is read, on databases of one scale.
pub async fn measure(server: &Server, scale: Scale) -> Vec<Row> {
    let plain = server.database(Schema::Plain, scale).await;
    let layer = server.database(Schema::Whole, scale).await;
    let indexed = server.copy(&plain, "indexed").await;
    let mut maker = server.connect(&indexed).await;
    let mut alone = [Caller::layer(server, &layer, LAYER).await];
    let mut all = vec![
        Caller::floor(server, &layer).await,
        Caller::plain(server, &plain, SIDES[0]).await,
        Caller::plain(server, &indexed, SIDES[1]).await,
        Caller::layer(server, &layer, LAYER).await,
    ];
    let (mut rows, mut made) = (Vec::new(), 0);
    for work in &works(&mut all[3], scale).await {
        let mut row = if work.index == 0 {
            time(&mut alone, work).await
        } else {
            if work.index != made {
                run(&mut maker, "DROP INDEX IF EXISTS best").await;
                run(&mut maker, &format!("CREATE INDEX best ON {}", INDEXES[work.index - 1])).await;
                run(&mut maker, "ANALYZE provisioner_jobs, workspace_builds").await;
                made = work.index;
            }
            let floor = usize::from(!matches!(work.reads[0], Read::Quota(_)));
            compare(&mut all[floor..], work).await;
            time(&mut all[floor..], work).await
        };
        let index = (work.index > 0).then(|| work.index.to_string());
        let path = Some(work.path.to_owned()).filter(|path| !path.is_empty());
        let workspaces = (work.workspaces > 0).then(|| format!("{} workspaces", work.workspaces));
        row.note = [path, workspaces, index].into_iter().flatten().collect::<Vec<_>>().join("; ");
        row.things = f64::from(i32::try_from(work.workspaces).expect("few").max(1));
        rows.push(row);
    }
    drop((maker, all));
    server.drop(&indexed).await;
    rows
}

/// The calls, with parameters out of the data.
#[expect(clippy::too_many_lines, reason = "a list")]
pub async fn works(layer: &mut Caller, scale: Scale) -> Vec<Work> {
    let id = layer.organization;
    let organization = format!("organization_id = '{id}'");
    let prebuilds = UserId::PREBUILDS;
    let conn = &mut layer.conn;
    let ids = |table: &str, more: &str| {
        format!("SELECT id FROM {table} WHERE {organization} {more} ORDER BY md5(id::text) LIMIT {PAIRS}")
    };
    let pending = format!(
        "SELECT id FROM provisioner_jobs WHERE {organization} AND job_status = 'pending' ORDER BY md5(id::text) LIMIT 500"
    );
    let pending: Vec<JobId> = all(conn, &pending).await;
    let by_count = |order: &str| {
        format!(
            "SELECT initiator_id FROM provisioner_jobs WHERE {organization} AND initiator_id <> '{prebuilds}'
             GROUP BY 1 ORDER BY {order}, 1 LIMIT {PAIRS}"
        )
    };
    let busy: Vec<UserId> = all(conn, &by_count("count(*) DESC")).await;
    let quiet: Vec<UserId> = all(conn, &by_count("max(created_at)")).await;
    let templates: Vec<TemplateId> = all(conn, &ids("templates", "")).await;
    let workspaces = all(conn, &ids("workspaces", &format!("AND owner_id <> '{prebuilds}'"))).await;
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
    let mut owned = async |users: &[UserId]| {
        let count =
            format!("SELECT count(*) FROM workspaces WHERE {organization} AND owner_id = ANY ($1) AND deleted = false");
        let users: Vec<_> = users.iter().map(|user| user.0).collect();
        let count = sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(count)).bind(&users).fetch_one(&mut *conn);
        count.await.expect("a count") / i64::try_from(users.len().max(1)).expect("few")
    };
    let owned = [owned(&owners).await, owned(&[UserId(heavy)]).await, owned(&[prebuilds]).await];

    let list = |name, path, index, filters: Vec<JobFilter>| {
        let reads = filters.into_iter().map(Read::List).collect();
        Work { path, index, ..Work::new(name, reads) }
    };
    let call = |name, index, reads| Work { index, ..Work::new(name, reads) };
    let any = JobFilter::default;
    let by_initiators = |ids: &[UserId]| ids.iter().map(|id| JobFilter { initiator: Some(*id), ..any() }).collect();
    let status = |status| JobFilter { status: vec![status], ..any() };
    let nowhere = Some(Tags::from_iter([("env", "nowhere")]));
    let tagged = |tags: Value| JobFilter { tags: Some(tags.into()), ..any() };
    let one_pending = |n: usize| pending[n % pending.len()];
    let fifty = |n: usize| (0..50).map(|k| one_pending(n * 50 + k)).collect::<BTreeSet<_>>().into_iter().collect();
    let each = |read: &dyn Fn(usize) -> Read| (0..PAIRS).map(read).collect::<Vec<_>>();
    let mut works = vec![
        // In the order of their indexes, each of which is made once.
        list("list", "organization", NEWEST, vec![any()]),
        list("list, tags", "organization", NEWEST, tags.into_iter().map(tagged).collect()),
        list(
            "list, template",
            "organization",
            NEWEST,
            templates.into_iter().map(|id| JobFilter { template: Some(id), ..any() }).collect(),
        ),
        list(
            "list, deletes",
            "organization",
            NEWEST,
            vec![JobFilter { transition: Some(Transition::Delete), ..any() }],
        ),
        list("list, failed", "organization", NEWEST, vec![status(JobStatus::Failed)]),
        list("list, pending", "unfinished", NEWEST, vec![status(JobStatus::Pending)]),
        list("list, busy initiator", "initiator", BY_INITIATOR, by_initiators(&busy)),
        list("list, quiet initiator", "initiator", BY_INITIATOR, by_initiators(&quiet)),
        list(
            "list, workspace",
            "workspace",
            BY_BUILD,
            workspaces.into_iter().map(|id| JobFilter { workspace: Some(id), ..any() }).collect(),
        ),
        list(
            "list, one pending id",
            "ids",
            IN_ORDER,
            (0..PAIRS).map(|n| JobFilter { ids: vec![one_pending(n)], ..any() }).collect(),
        ),
        call("get, pending", IN_ORDER, each(&|n| Read::Get(one_pending(n)))),
        call("by ids, 1 pending", PENDING, each(&|n| Read::ByIds(vec![one_pending(n)]))),
        call("by ids, 50 pending", PENDING, each(&|n| Read::ByIds(fifty(n)))),
        Work {
            workspaces: owned[0],
            ..call("quota, ordinary owner", COST, owners.into_iter().map(Read::Quota).collect())
        },
        Work { workspaces: owned[1], ..call("quota, heavy owner", COST, vec![Read::Quota(UserId(heavy))]) },
        Work { workspaces: owned[2], ..call("quota, prebuilds", COST, vec![Read::Quota(prebuilds)]) },
    ];
    // What a path costs when no job of it passes.
    if scale.regime == Regime::Storm {
        works.extend([
            list("list, tags of no job", "organization", 0, vec![JobFilter { tags: nowhere.clone(), ..any() }]),
            list(
                "list, template of no job",
                "organization",
                0,
                vec![JobFilter { template: Some(TemplateId(Uuid::nil())), ..any() }],
            ),
            list(
                "list, pending, tags of no job",
                "unfinished",
                0,
                vec![JobFilter { tags: nowhere.clone(), ..status(JobStatus::Pending) }],
            ),
            list(
                "list, prebuilds, tags of no job",
                "initiator",
                0,
                vec![JobFilter { tags: nowhere, initiator: Some(prebuilds), ..any() }],
            ),
        ]);
    }
    works
}

pub async fn organization(conn: &mut PgConnection) -> OrganizationId {
    OrganizationId(one(conn, "SELECT id FROM organizations WHERE name = 'engineering'").await)
}

async fn all<T>(conn: &mut PgConnection, sql: &str) -> Vec<T>
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
{
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_all(conn).await.expect("the parameters")
}

async fn one(conn: &mut PgConnection, sql: &str) -> Uuid {
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(conn).await.expect("the parameter")
}
