//! The listings and the quota: random databases against the model, and the cases that the domain names.

use std::{sync::Arc, time::Duration};

use coderdb::{
    model::{
        Cursor, Job, JobDetails, JobErrorCode, JobFilter, JobId, JobInput, JobStatus, JobType, JobWithQueue, Label,
        Page, PageRequest, Quota, Tags, TemplateId, Transition, UserId, WorkspaceId, tags_serve,
    },
    store::{self, Error},
};
use fastrand::Rng;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{
    job_json,
    model::{JobRow, ListedJob, Model, PREBUILDS, QueuedJob, Reached, tagset_contains},
    random_database::{self as rows, NOW, STALE, at, pick, with},
    support::{
        self,
        states::{Seed, VACUUM, all_seeds, seeds},
    },
};

// Random databases -----------------------------------------------------------------------------------------------------

const CASES: u64 = 300;
const TASKS: u64 = 4;

/// `CODERDB_TEST_CASES` multiplies the number of databases; `CODERDB_TEST_SEED` picks one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_databases_are_listed_as_the_model_says() {
    let seeds = seeds(CASES);
    let reached = Arc::new(Reached::default());
    let mut tasks: JoinSet<()> = (0..TASKS)
        .map(|task| {
            let (reached, seeds) = (Arc::clone(&reached), seeds.clone());
            async move {
                let database = support::database().await;
                let mut conn = database.connect().await;
                for seed in seeds.filter(|seed| seed % TASKS == task) {
                    let _seed = Seed(seed);
                    let mut rng = Rng::with_seed(seed);
                    let mut transaction = conn.begin().await.unwrap();
                    // What a statement answers must not depend on how it is planned; planning anew takes the longest.
                    let plans = if seed % 17 == 0 { "force_custom_plan" } else { "force_generic_plan" };
                    sqlx::query("SELECT set_config('plan_cache_mode', $1, true)")
                        .bind(plans)
                        .execute(&mut *transaction)
                        .await
                        .unwrap();
                    rows::fill(&mut transaction, &mut rng).await;
                    compare(&mut transaction, &mut rng, &reached).await;
                    transaction.rollback().await.unwrap();
                    if seed / TASKS % 100 == 99 {
                        sqlx::raw_sql(VACUUM).execute(&mut conn).await.unwrap();
                    }
                }
            }
        })
        .collect();
    while let Some(outcome) = tasks.join_next().await {
        if let Err(error) = outcome {
            std::panic::resume_unwind(error.into_panic());
        }
    }
    let counts: Vec<_> = reached.counts().collect();
    for (count, sentence) in &counts {
        println!("{count:>9}  {sentence}");
    }
    if all_seeds() {
        let missed: Vec<_> = counts.iter().filter(|(count, _)| *count == 0).map(|(_, sentence)| sentence).collect();
        assert!(missed.is_empty(), "no random database made these sentences true: {missed:#?}");
    }
}

pub async fn compare(conn: &mut PgConnection, rng: &mut Rng, reached: &Reached) {
    let model = Model::read(conn).await;
    let mut organizations: Vec<Uuid> = model.organizations.iter().map(|organization| organization.id).collect();
    organizations.push(rows::uuid(rng));
    let listings: Vec<(Uuid, Vec<ListedJob<'_>>)> =
        organizations.iter().map(|organization| (*organization, model.organization(*organization))).collect();

    for (organization, expected) in &listings {
        let page =
            store::jobs::list(conn, &support::read_jobs(*organization), &JobFilter::default(), PageRequest::default())
                .await;
        let page = page.unwrap();
        same_rows(expected, &page.rows, &"no filter");
        assert_eq!(page.next, None, "everything was asked for");
    }
    for _ in 0..4 {
        let (organization, listing) = pick(rng, &listings).unwrap();
        let filter = random_filter(rng, &model, &listings);
        let request = random_request(rng, &listings);
        let kept = model.filtered(&listing, &filter);
        let (expected, next) = model.page(&kept, request);
        let page = store::jobs::list(conn, &support::read_jobs(organization), &filter, request).await.unwrap();
        same_rows(&expected, &page.rows, &(&filter, request));
        assert_eq!(page.next, next, "{filter:#?} {request:#?}");
        let ids = store::jobs::ids(conn, &support::read_jobs(organization), &filter, request).await.unwrap();
        assert_eq!(ids.rows, page.rows.iter().map(|row| row.job.id).collect::<Vec<_>>(), "{filter:#?} {request:#?}");
        assert_eq!(ids.next, next, "{filter:#?} {request:#?}");
    }
    walk(conn, rng, &model, &listings).await;

    for (organization, listing) in &listings {
        for expected in listing {
            let id = JobId(expected.job.id);
            let details = store::jobs::get(conn, &support::read_jobs(*organization), id).await.unwrap();
            same_rows(std::slice::from_ref(expected), &[details], &"one job");
            let elsewhere = organizations[rng.usize(..organizations.len())];
            if elsewhere != *organization {
                let outcome = store::jobs::get(conn, &support::read_jobs(elsewhere), id).await;
                assert!(matches!(outcome, Err(Error::NotFound { .. })), "{id} is not of {elsewhere}: {outcome:?}");
            }
        }
    }
    for _ in 0..3 {
        compare_queue(conn, rng, &model).await;
    }
    for user in model.users.iter().map(|user| user.id) {
        for organization in &organizations {
            let quota = store::quota::usage(conn, &support::read_quota(user, *organization)).await.unwrap();
            let expected = Quota {
                credits_consumed: model.quota_consumed(user, *organization),
                budget: model.quota_allowance(user, *organization),
            };
            assert_eq!(quota, expected, "user {user}, organization {organization}");
            let parts = store::quota::explain(conn, &support::read_quota(user, *organization)).await.unwrap();
            assert_eq!(parts.quota, expected, "the parts for user {user}, organization {organization}");
            let groups: std::collections::BTreeSet<_> = parts.groups.iter().map(|group| group.id).collect();
            let workspaces: std::collections::BTreeSet<_> =
                parts.workspaces.iter().map(|workspace| workspace.id).collect();
            assert_eq!((groups.len(), workspaces.len()), (parts.groups.len(), parts.workspaces.len()), "none twice");
        }
    }
    reached.add(&model.reached);
}

/// Pages of a random size, one after the other, are the listing.
async fn walk(conn: &mut PgConnection, rng: &mut Rng, model: &Model, listings: &[(Uuid, Vec<ListedJob<'_>>)]) {
    let (organization, listing) = pick(rng, listings).unwrap();
    let filter = if rng.bool() { JobFilter::default() } else { random_filter(rng, model, listings) };
    let expected = model.filtered(&listing, &filter);
    let size = rng.u32(1..5);
    let mut walked = Vec::new();
    let mut request = PageRequest::first(size);
    loop {
        let (_, next) = model.page(&expected, request);
        let page: Page<JobDetails> =
            store::jobs::list(conn, &support::read_jobs(organization), &filter, request).await.unwrap();
        assert!(page.rows.len() <= size as usize, "{} rows in a page of {size}", page.rows.len());
        assert_eq!(page.next, next, "{filter:#?} {request:#?}");
        walked.extend(page.rows);
        let Some(next) = page.next else { break };
        request = PageRequest::after(next, size);
    }
    same_rows(&expected, &walked, &("in pages", size, &filter));
}

async fn compare_queue(conn: &mut PgConnection, rng: &mut Rng, model: &Model) {
    let probability = rng.f64();
    let mut ids: Vec<Uuid> =
        model.provisioner_jobs.iter().map(|job| job.id).filter(|_| rng.f64() < probability).collect();
    if rng.bool() {
        ids.push(rows::uuid(rng));
        ids.extend(ids.first().copied());
    }
    let year = 365 * 24;
    let stale = [
        STALE.unsigned_abs(),
        STALE.unsigned_abs(),
        Duration::ZERO,
        Duration::from_hours(4 * 24),
        Duration::from_hours(1_000 * year),
        Duration::from_hours(8_000 * year),
        Duration::MAX,
    ][rng.usize(..7)];
    let expected = model.by_ids_with_queue_position(&ids, NOW, stale);
    let ids: Vec<JobId> = ids.into_iter().map(JobId).collect();
    let queued = by_ids(conn, &ids, stale).await;
    assert_eq!(queued.len(), expected.len(), "{ids:#?} {queued:#?}");
    for (expected, actual) in expected.iter().zip(&queued) {
        let job = expected_job(expected.job, &actual.job.input);
        let QueuedJob { queue_position, queue_size, .. } = *expected;
        same(actual, &JobWithQueue { job, queue_position, queue_size }, &(&ids, stale));
        same(&job_json::actual(actual), &job_json::of_queued(expected), expected);
    }
}

/// What the jobs of all organizations say, one permit after the other: each reaches one organization.
async fn by_ids(conn: &mut PgConnection, ids: &[JobId], stale: Duration) -> Vec<JobWithQueue> {
    let organizations: Vec<Uuid> =
        sqlx::query_scalar("SELECT id FROM organizations").fetch_all(&mut *conn).await.unwrap();
    let mut rows = Vec::new();
    for organization in organizations {
        let permit = support::read_jobs(organization);
        rows.extend(store::jobs::by_ids_with_queue_position(conn, &permit, ids, NOW, stale).await.unwrap());
    }
    rows.sort_by_key(|row| (row.job.created_at, row.job.id));
    rows
}

fn same_rows(expected: &[ListedJob<'_>], actual: &[JobDetails], context: &dyn std::fmt::Debug) {
    for (expected, actual) in expected.iter().zip(actual) {
        same(actual, &expected_details(expected, &actual.job.input), context);
        same(&job_json::actual(actual), &job_json::of_listed(expected), expected);
    }
    assert_eq!(actual.len(), expected.len(), "{context:#?}");
}

/// Like `assert_eq`, but of big rows it shows the lines that differ.
fn same<T: std::fmt::Debug + PartialEq>(actual: &T, expected: &T, context: &dyn std::fmt::Debug) {
    if actual == expected {
        return;
    }
    let (left, right) = (format!("{actual:#?}"), format!("{expected:#?}"));
    let lines: Vec<String> = left
        .lines()
        .zip(right.lines())
        .filter(|(actual, expected)| actual != expected)
        .map(|(actual, expected)| format!("{}   instead of   {}", actual.trim(), expected.trim()))
        .collect();
    panic!("{}\nin {left}\nof {context:#?}", lines.join("\n"));
}

fn expected_details(row: &ListedJob<'_>, input: &JobInput) -> JobDetails {
    JobDetails {
        job: expected_job(row.job, input),
        queue_position: row.queue_position,
        queue_size: row.queue_size,
        available_workers: row.available_workers.iter().copied().map(Into::into).collect(),
        worker_name: row.worker_name.clone(),
        workspace_build_transition: row.workspace_build_transition.clone().map(Label::of),
        workspace_id: row.workspace_id.map(Into::into),
        workspace_name: row.workspace_name.clone(),
        template_version_name: row.template_version_name.clone(),
        template_id: row.template_id.map(Into::into),
        template_name: row.template_name.clone(),
        template_display_name: row.template_display_name.clone(),
        template_icon: row.template_icon.clone(),
    }
}

/// Of the error of an input the domain only knows how it begins, so the rest of it is taken from the actual one.
pub fn expected_job(row: &JobRow, input: &JobInput) -> Job {
    let decoded = row.decoded_input();
    let error = input.error.clone().filter(|text| text.starts_with("decode input"));
    let pairs = row.tags.as_object().into_iter().flatten();
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    Job {
        id: row.id.into(),
        created_at: row.created_at,
        updated_at: row.updated_at,
        started_at: row.started_at,
        canceled_at: row.canceled_at,
        completed_at: row.completed_at,
        error: row.error.clone(),
        error_code: row.error_code.as_deref().map(|code| match code {
            "MISSING_TEMPLATE_PARAMETER" => JobErrorCode::MissingTemplateParameter,
            "REQUIRED_TEMPLATE_VARIABLES" => JobErrorCode::RequiredTemplateVariables,
            "INSUFFICIENT_QUOTA" => JobErrorCode::InsufficientQuota,
            other => panic!("{other} got past the CHECK"),
        }),
        organization_id: row.organization_id.into(),
        initiator_id: row.initiator_id.into(),
        provisioner: Label::of(row.provisioner.clone()),
        storage_method: Label::of(row.storage_method.clone()),
        job_type: Label::of(row.job_type.clone()),
        input: JobInput {
            template_version_id: decoded.template_version_id.map(Into::into),
            workspace_build_id: decoded.workspace_build_id.map(Into::into),
            error: decoded.broken.then(|| error.unwrap_or_else(|| "decode input …".to_owned())),
        },
        worker_id: row.worker_id.map(Into::into),
        file_id: row.file_id.into(),
        tags: pairs.map(|(key, value)| (key.clone(), text(value))).collect(),
        trace_metadata: row.trace_metadata.clone(),
        status: row.status().parse().unwrap(),
        logs_length: row.logs_length,
        logs_overflowed: row.logs_overflowed,
    }
}

/// One filter alone, or several at once, with values that some rows have.
#[expect(clippy::too_many_lines, reason = "one condition per filter")]
fn random_filter(rng: &mut Rng, model: &Model, listings: &[(Uuid, Vec<ListedJob<'_>>)]) -> JobFilter {
    let alone = rng.bool().then(|| rng.usize(..23));
    let probability = rng.f64() * 0.7;
    let on: Vec<bool> = (0..23).map(|n| alone.map_or_else(|| rng.f64() < probability, |alone| alone == n)).collect();
    let jobs = &model.provisioner_jobs;
    let unknown = rows::uuid(rng);
    let time = |rng: &mut Rng| {
        let time = rng.choice(jobs).map_or(NOW, |job| job.created_at);
        time + time::Duration::microseconds([0, 0, 0, 1, -1][rng.usize(..5)])
    };
    let mut filter = JobFilter::default();
    if on[0] {
        let amount = [1, 1, 2, 3, 7][rng.usize(..5)];
        filter.status = rng.choose_multiple(JobStatus::ALL.iter().copied(), amount);
    }
    if on[1] {
        let amount = rng.usize(..6);
        filter.ids = rng.choose_multiple(jobs.iter().map(|job| JobId(job.id)), amount);
        if filter.ids.is_empty() || rng.bool() {
            filter.ids.push(JobId(unknown));
        }
    }
    if on[2] {
        let pools: [&[(&str, &str)]; 8] = [
            &[],
            &[("scope", "organization")],
            &[("scope", "organization"), ("owner", "")],
            &[("owner", "")],
            &[("env", "on-prem")],
            &[("scope", "organization"), ("owner", ""), ("env", "on-prem")],
            &[("scope", "user"), ("owner", "aaa")],
            &[("n", "1")],
        ];
        filter.tags = Some(pools[rng.usize(..8)].iter().copied().collect::<Tags>());
    }
    if on[3] {
        let known = rng.choice(jobs).map_or(unknown, |job| job.initiator_id);
        filter.initiator = Some(UserId([known, known, PREBUILDS, Uuid::nil(), unknown][rng.usize(..5)]));
    }
    if on[4] {
        filter.transition = pick(rng, Transition::ALL);
    }
    let shown: Vec<&ListedJob<'_>> = listings.iter().flat_map(|(_, rows)| rows).collect();
    if on[5] {
        let templates: Vec<Uuid> = shown.iter().filter_map(|row| row.template_id).collect();
        let any = rng.choice(&model.templates).map_or(unknown, |template| template.id);
        let shown = pick(rng, &templates).unwrap_or(any);
        filter.template = Some(TemplateId([shown, shown, any, unknown][rng.usize(..4)]));
    }
    if on[6] {
        let workspaces: Vec<Uuid> = shown.iter().filter_map(|row| row.workspace_id).collect();
        let any = rng.choice(&model.workspaces).map_or(unknown, |workspace| workspace.id);
        let shown = pick(rng, &workspaces).unwrap_or(any);
        filter.workspace = Some(WorkspaceId([shown, shown, any, unknown][rng.usize(..4)]));
    }
    if on[7] {
        filter.created_after = Some(time(rng));
    }
    if on[8] {
        filter.created_before = Some(time(rng));
    }
    let codes = ["INSUFFICIENT_QUOTA", "REQUIRED_TEMPLATE_VARIABLES", "MISSING_TEMPLATE_PARAMETER"];
    let codes = codes.map(|code| JobErrorCode::from(code.to_owned()));
    let tag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let amount = [1, 1, 2, 3][rng.usize(..4)];
    if on[9] {
        filter.types = rng.choose_multiple(JobType::ALL.iter().copied(), amount);
    }
    if on[10] {
        filter.error_codes = rng.choose_multiple(codes.iter().cloned(), amount);
    }
    let exclude = &mut filter.exclude;
    if on[11] {
        exclude.status = rng.choose_multiple(JobStatus::ALL.iter().copied(), amount);
    }
    if on[12] {
        exclude.ids = rng.choose_multiple(jobs.iter().map(|job| JobId(job.id)), amount);
    }
    if on[13] {
        let tags = [tag("env", "on-prem"), tag("owner", ""), tag("n", "1"), tag("scope", "user")];
        exclude.tags = rng.choose_multiple(tags, amount);
    }
    if on[14] {
        exclude.initiators = rng.choose_multiple(jobs.iter().map(|job| UserId(job.initiator_id)), amount);
    }
    if on[15] {
        exclude.transitions = rng.choose_multiple(Transition::ALL.iter().copied(), amount);
    }
    if on[16] {
        exclude.templates = rng.choose_multiple(shown.iter().filter_map(|row| row.template_id.map(TemplateId)), amount);
    }
    if on[17] {
        let workspaces = shown.iter().filter_map(|row| row.workspace_id.map(WorkspaceId));
        exclude.workspaces = rng.choose_multiple(workspaces, amount);
    }
    if on[18] {
        exclude.types = rng.choose_multiple(JobType::ALL.iter().copied(), 1);
    }
    if on[19] {
        exclude.error_codes = rng.choose_multiple(codes.iter().cloned(), amount);
    }
    exclude.untagged = on[20];
    if on[21] {
        let tags = [tag("env", "on-prem"), tag("owner", ""), tag("scope", "organization"), tag("n", "1")];
        filter.has_tags = rng.choose_multiple(tags, amount);
    }
    filter.untagged = on[22];
    filter
}

fn random_request(rng: &mut Rng, listings: &[(Uuid, Vec<ListedJob<'_>>)]) -> PageRequest {
    let shown: Vec<&JobRow> = listings.iter().flat_map(|(_, rows)| rows).map(|row| row.job).collect();
    let limit = [None, None, None, Some(0), Some(1), Some(2), Some(3), Some(1000), Some(u32::MAX)][rng.usize(..9)];
    // Also a place that no row has: the row of a cursor may be gone by the time that it is used.
    let after = pick(rng, &shown).filter(|_| rng.u8(..3) == 0).map(|job| Cursor {
        created_at: job.created_at,
        id: JobId([job.id, Uuid::nil(), Uuid::max()][rng.usize(..3)]),
    });
    PageRequest { limit, after }
}

// Hand-made databases --------------------------------------------------------------------------------------------------

const ORGANIZATION: Uuid = Uuid::from_u128(0xa);
const ELSEWHERE: Uuid = Uuid::from_u128(0xb);
const USER: Uuid = Uuid::from_u128(0xc);
const TEMPLATE: Uuid = Uuid::from_u128(0xd);
const VERSION: Uuid = Uuid::from_u128(0xe);
const WORKSPACE: Uuid = Uuid::from_u128(0xf);

const fn n(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn minutes_ago(minutes: i64) -> String {
    at(NOW - time::Duration::minutes(minutes))
}

/// Two organizations; in the first one a user with a workspace made from a template.
struct World {
    conn: PgConnection,
    database: support::Database,
}

impl World {
    async fn new() -> Self {
        let database = support::database().await;
        let mut conn = database.connect().await;
        let organizations = [rows::organization(ORGANIZATION, "here"), rows::organization(ELSEWHERE, "elsewhere")];
        rows::insert(&mut conn, "organizations", &organizations).await;
        rows::insert(&mut conn, "provisioner_keys", &[rows::key(ORGANIZATION), rows::key(ELSEWHERE)]).await;
        rows::insert(&mut conn, "users", &[rows::user(USER, "somebody")]).await;
        let template = rows::template(TEMPLATE, ORGANIZATION, USER, "template");
        let template = with(template, json!({"display_name": "A Template", "icon": "/icon/k8s.svg"}));
        rows::insert(&mut conn, "templates", &[template]).await;
        let version = rows::version(VERSION, ORGANIZATION, USER, Some(TEMPLATE), "v1");
        rows::insert(&mut conn, "template_versions", &[version]).await;
        let workspace = rows::workspace(WORKSPACE, ORGANIZATION, USER, TEMPLATE, "workspace");
        rows::insert(&mut conn, "workspaces", &[workspace]).await;
        Self { conn, database }
    }

    async fn insert(&mut self, table: &str, row: Value) {
        rows::insert(&mut self.conn, table, &[row]).await;
    }

    /// A job of the organization; by default it waits, and is the user's.
    async fn job(&mut self, id: u128, changes: Value) {
        self.insert("provisioner_jobs", with(rows::job(n(id), ORGANIZATION, USER), changes)).await;
    }

    /// A build of a workspace with a finished job; both have the same id.
    async fn build(&mut self, id: u128, workspace: Uuid, number: i32, changes: Value) {
        let done = json!({
            "started_at": at(NOW), "completed_at": at(NOW), "created_at": minutes_ago(1000),
            "input": {"workspace_build_id": n(id)},
        });
        self.job(id, done).await;
        let build = with(rows::build(n(id), workspace, VERSION, n(id), number), changes);
        self.insert("workspace_builds", build).await;
    }

    async fn daemon(&mut self, id: u128, organization: Uuid, tags: Value, changes: Value) {
        let daemon = rows::daemon(n(id), organization, &format!("daemon-{id}"), &tags);
        self.insert("provisioner_daemons", with(daemon, changes)).await;
    }

    async fn list(&mut self, filter: &JobFilter) -> Vec<JobDetails> {
        let page =
            store::jobs::list(&mut self.conn, &support::read_jobs(ORGANIZATION), filter, PageRequest::default()).await;
        page.unwrap().rows
    }

    /// The ids of the jobs that pass a filter.
    async fn ids(&mut self, filter: &JobFilter) -> Vec<u128> {
        self.list(filter).await.iter().map(|row| row.job.id.0.as_u128()).collect()
    }

    async fn get(&mut self, id: u128) -> JobDetails {
        store::jobs::get(&mut self.conn, &support::read_jobs(ORGANIZATION), n(id).into()).await.unwrap()
    }

    /// Id, position and size of each job.
    async fn queued(&mut self, ids: &[u128]) -> Vec<(u128, i64, i64)> {
        let ids: Vec<JobId> = ids.iter().map(|id| n(*id).into()).collect();
        by_ids(&mut self.conn, &ids, store::jobs::STALE_INTERVAL)
            .await
            .iter()
            .map(|row| (row.job.id.0.as_u128(), row.queue_position, row.queue_size))
            .collect()
    }

    async fn quota(&mut self, user: Uuid, organization: Uuid) -> (i64, i64) {
        let quota = store::quota::usage(&mut self.conn, &support::read_quota(user, organization)).await.unwrap();
        (quota.credits_consumed, quota.budget)
    }
}

fn untagged() -> Value {
    json!({"scope": "organization", "owner": ""})
}

fn on_prem() -> Value {
    json!({"scope": "organization", "owner": "", "env": "on-prem"})
}

#[tokio::test]
async fn tags_match_as_the_table_of_the_domain_says() {
    let database = support::database().await;
    let mut conn = database.connect().await;
    let chicago = json!({"scope": "organization", "owner": "", "env": "on-prem", "dc": "chi"});
    let aaa = json!({"scope": "user", "owner": "aaa"});
    let bbb = json!({"scope": "user", "owner": "bbb"});
    let default = json!({"scope": "organization"});
    for (daemon, job, expected) in [
        (untagged(), untagged(), true),
        (on_prem(), untagged(), false),
        (on_prem(), on_prem(), true),
        (chicago.clone(), on_prem(), true),
        (on_prem(), chicago.clone(), false),
        (aaa.clone(), aaa.clone(), true),
        (aaa.clone(), bbb, false),
        (untagged(), json!({}), true),
        (chicago.clone(), json!({}), true),
        (json!({}), json!({}), true),
        (untagged(), default.clone(), true),
        (on_prem(), default.clone(), true),
        (aaa, default.clone(), false),
        (json!({}), default, false),
        (json!({}), untagged(), false),
        // What containment in jsonb means where a value is not a string or not an object.
        (json!({"n": 1}), json!({"n": 1.0}), true),
        (json!({"n": 9_007_199_254_740_993_u64}), json!({"n": 9_007_199_254_740_992_u64}), false),
        (json!({"n": "1"}), json!({"n": 1}), false),
        (json!({"n": null}), json!({"n": null}), true),
        (json!({}), json!({"n": null}), false),
        (json!({"l": ["a", "b"]}), json!({"l": ["b", "a", "b"]}), true),
        (json!({"l": ["a"]}), json!({"l": "a"}), false),
        (json!({"o": {"a": 1, "b": 2}}), json!({"o": {"a": 1}}), true),
        (json!(["a", "b"]), json!("a"), true),
        (json!("a"), json!(["a"]), false),
        (json!("a"), json!("a"), true),
        (json!(["a", ["b"]]), json!([["b"]]), true),
        (json!(["a", ["b"]]), json!("b"), false),
        (json!([]), json!({}), false),
        (json!({}), json!([]), false),
        (json!(null), json!(null), true),
        (json!([null]), json!(null), true),
    ] {
        let actual: Option<bool> = sqlx::query_scalar("SELECT provisioner_tagset_contains($1::jsonb, $2::jsonb)")
            .bind(&daemon)
            .bind(&job)
            .fetch_one(&mut conn)
            .await
            .unwrap();
        assert_eq!(actual, Some(expected), "daemon {daemon}, job {job}");
        assert_eq!(tagset_contains(&daemon, &job), expected, "the model: daemon {daemon}, job {job}");
        assert_eq!(tags_serve(&daemon, &job), expected, "the library: daemon {daemon}, job {job}");
    }
    for (daemon, job) in [(None, Some(untagged())), (Some(untagged()), None), (None, Some(json!({}))), (None, None)] {
        let actual: Option<bool> = sqlx::query_scalar("SELECT provisioner_tagset_contains($1::jsonb, $2::jsonb)")
            .bind(&daemon)
            .bind(&job)
            .fetch_one(&mut conn)
            .await
            .unwrap();
        assert_ne!(actual, Some(true), "NULL is no match: daemon {daemon:?}, job {job:?}");
    }
}

#[tokio::test]
async fn the_status_is_the_truth_table_of_completed_canceled_started_and_error() {
    let mut world = World::new().await;
    let table = [
        // completed, canceled, started, error
        (false, false, false, false, JobStatus::Pending),
        (false, false, false, true, JobStatus::Failed),
        (false, false, true, false, JobStatus::Running),
        (false, false, true, true, JobStatus::Failed),
        (false, true, false, false, JobStatus::Canceling),
        (false, true, false, true, JobStatus::Failed),
        (false, true, true, false, JobStatus::Canceling),
        (false, true, true, true, JobStatus::Failed),
        (true, false, false, false, JobStatus::Succeeded),
        (true, false, false, true, JobStatus::Failed),
        (true, false, true, false, JobStatus::Succeeded),
        (true, false, true, true, JobStatus::Failed),
        (true, true, false, false, JobStatus::Canceled),
        (true, true, false, true, JobStatus::Failed),
        (true, true, true, false, JobStatus::Canceled),
        (true, true, true, true, JobStatus::Failed),
    ];
    for (id, (completed, canceled, started, error, status)) in (1..).step_by(2).zip(table) {
        let columns = json!({
            "completed_at": completed.then(|| at(NOW)), "canceled_at": canceled.then(|| at(NOW)),
            "started_at": started.then(|| at(NOW)), "error": error.then_some("boom"),
        });
        world.job(id, columns.clone()).await;
        assert_eq!(world.get(id).await.job.status, status, "{columns}");
        // An empty error is no error.
        let columns = with(columns, json!({"error": if error { "boom" } else { "" }}));
        world.job(id + 1, columns.clone()).await;
        assert_eq!(world.get(id + 1).await.job.status, status, "{columns}");
    }
    for status in JobStatus::ALL {
        let rows = world.list(&JobFilter { status: vec![*status], ..JobFilter::default() }).await;
        assert_eq!(rows.len(), 2 * table.iter().filter(|row| row.4 == *status).count(), "{status}");
    }
}

#[tokio::test]
async fn a_filtered_list_shows_real_queue_positions() {
    let mut world = World::new().await;
    world.job(1, json!({"created_at": minutes_ago(9), "initiator_id": PREBUILDS})).await;
    world.job(2, json!({"created_at": minutes_ago(8), "organization_id": ELSEWHERE})).await;
    world.job(3, json!({"created_at": minutes_ago(7), "tags": on_prem()})).await;
    world.job(4, json!({"created_at": minutes_ago(6)})).await;
    let queue = |rows: Vec<JobDetails>| -> Vec<_> {
        rows.iter().map(|row| (row.job.id.0.as_u128(), row.queue_position, row.queue_size)).collect()
    };
    let all = world.list(&JobFilter::default()).await;
    assert_eq!(queue(all), [(4, 3, 4), (3, 2, 4), (1, 4, 4)], "people first, other organizations included");
    let prebuilds = JobFilter { initiator: Some(UserId::PREBUILDS), ..JobFilter::default() };
    assert_eq!(queue(world.list(&prebuilds).await), [(1, 4, 4)]);
    let page = store::jobs::list(
        &mut world.conn,
        &support::read_jobs(ORGANIZATION),
        &JobFilter::default(),
        PageRequest::first(1),
    )
    .await;
    assert_eq!(queue(page.unwrap().rows), [(4, 3, 4)]);
    let one = world.get(3).await;
    assert_eq!(queue(vec![one]), [(3, 2, 4)]);
}

#[tokio::test]
async fn every_row_shows_the_size_of_the_queue_also_one_that_does_not_wait() {
    let mut world = World::new().await;
    world.job(1, json!({"started_at": at(NOW)})).await;
    world.job(2, json!({"organization_id": ELSEWHERE})).await;
    let row = world.get(1).await;
    assert_eq!((row.queue_position, row.queue_size), (0, 1));
}

#[tokio::test]
async fn a_job_with_an_empty_error_waits_for_tags_but_not_in_the_list() {
    let mut world = World::new().await;
    world.daemon(100, ORGANIZATION, untagged(), json!({})).await;
    world.job(1, json!({"error": ""})).await;
    let row = world.get(1).await;
    assert_eq!((row.job.status, row.queue_position, row.queue_size), (JobStatus::Pending, 0, 0));
    assert_eq!(world.queued(&[1]).await, [(1, 1, 1)]);
}

#[tokio::test]
async fn jobs_of_one_moment_queue_by_id_and_list_by_id_from_the_last() {
    let mut world = World::new().await;
    world.daemon(100, ORGANIZATION, untagged(), json!({})).await;
    for id in [2, 3, 1] {
        world.job(id, json!({})).await;
    }
    let rows = world.list(&JobFilter::default()).await;
    let positions: Vec<_> = rows.iter().map(|row| (row.job.id.0.as_u128(), row.queue_position)).collect();
    assert_eq!(positions, [(3, 3), (2, 2), (1, 1)]);
    assert_eq!(world.queued(&[3, 2, 1]).await, [(1, 1, 3), (2, 2, 3), (3, 3, 3)]);
}

#[tokio::test]
async fn an_untagged_job_never_gets_a_tagged_worker() {
    let mut world = World::new().await;
    world.daemon(100, ORGANIZATION, on_prem(), json!({})).await;
    world.job(1, json!({"created_at": minutes_ago(2)})).await;
    world.job(2, json!({"created_at": minutes_ago(1), "tags": on_prem()})).await;
    assert!(world.get(1).await.available_workers.is_empty());
    assert_eq!(world.get(2).await.available_workers, [n(100).into()]);
    assert_eq!(world.queued(&[1, 2]).await, [(1, 0, 0), (2, 1, 1)]);

    world.daemon(101, ORGANIZATION, untagged(), json!({})).await;
    assert_eq!(world.get(1).await.available_workers, [n(101).into()]);
    assert_eq!(world.get(2).await.available_workers, [n(100).into()], "nor a tagged job an untagged worker");
    assert_eq!(world.queued(&[1, 2]).await, [(1, 1, 1), (2, 1, 1)]);
}

#[tokio::test]
async fn available_workers_are_the_organizations_own_oldest_first_fresh_or_not() {
    let mut world = World::new().await;
    world.daemon(103, ORGANIZATION, untagged(), json!({"last_seen_at": null})).await;
    world.daemon(102, ORGANIZATION, untagged(), json!({"created_at": minutes_ago(-1)})).await;
    world.daemon(101, ORGANIZATION, untagged(), json!({"last_seen_at": minutes_ago(100_000)})).await;
    world.daemon(104, ORGANIZATION, untagged(), json!({"created_at": minutes_ago(1)})).await;
    world.daemon(105, ELSEWHERE, untagged(), json!({})).await;
    world.daemon(106, ORGANIZATION, untagged(), json!({"provisioners": ["echo"]})).await;
    world.daemon(107, ORGANIZATION, untagged(), json!({"provisioners": []})).await;
    world.job(1, json!({})).await;
    let workers = [104, 101, 103, 102].map(|id| n(id).into());
    assert_eq!(world.get(1).await.available_workers, workers);
    world.job(2, json!({"canceled_at": at(NOW), "completed_at": at(NOW)})).await;
    assert_eq!(world.get(2).await.available_workers, workers, "only started_at is tested");
    world.job(3, json!({"started_at": at(NOW)})).await;
    assert!(world.get(3).await.available_workers.is_empty());
}

#[tokio::test]
async fn a_daemon_is_online_up_to_the_very_boundary() {
    let mut world = World::new().await;
    world.job(1, json!({})).await;
    for (id, seen, expected) in [
        (100, None, 0),
        (101, Some(NOW - STALE - time::Duration::microseconds(1)), 0),
        (102, Some(NOW - STALE), 1),
        (103, Some(NOW + STALE), 1),
    ] {
        world.daemon(id, ELSEWHERE, untagged(), json!({"last_seen_at": seen.map(at), "provisioners": []})).await;
        assert_eq!(world.queued(&[1]).await, [(1, expected, expected)], "seen at {seen:?}");
        sqlx::query("DELETE FROM provisioner_daemons").execute(&mut world.conn).await.unwrap();
    }
}

#[tokio::test]
async fn by_ids_takes_the_best_position_and_the_largest_queue_over_tag_sets() {
    let mut world = World::new().await;
    let gpu = json!({"scope": "organization", "owner": "", "gpu": "yes"});
    let both = json!({"scope": "organization", "owner": "", "gpu": "yes", "env": "on-prem"});
    // Of the first kind of daemon the job is third of three; of the second kind it is first of two.
    let chicago = json!({"scope": "organization", "owner": "", "env": "on-prem", "dc": "chi"});
    world.daemon(100, ORGANIZATION, both, json!({})).await;
    world.daemon(101, ORGANIZATION, chicago.clone(), json!({})).await;
    world.job(1, json!({"created_at": minutes_ago(9), "tags": gpu})).await;
    world.job(2, json!({"created_at": minutes_ago(8), "tags": gpu})).await;
    world.job(3, json!({"created_at": minutes_ago(7), "tags": on_prem()})).await;
    world.job(4, json!({"created_at": minutes_ago(6), "tags": chicago})).await;
    assert_eq!(world.queued(&[3]).await, [(3, 1, 3)]);
    assert_eq!(world.queued(&[4, 3, 2, 1]).await, [(1, 1, 3), (2, 2, 3), (3, 1, 3), (4, 2, 2)]);
    world
        .daemon(102, ELSEWHERE, json!({"dc": "chi", "env": "on-prem", "owner": "", "scope": "organization"}), json!({}))
        .await;
    assert_eq!(world.queued(&[3]).await, [(3, 1, 3)], "two daemons with one tag set have one queue");
    world.job(5, json!({"created_at": minutes_ago(10), "tags": on_prem(), "initiator_id": PREBUILDS})).await;
    assert_eq!(world.queued(&[3, 5]).await, [(5, 3, 4), (3, 1, 4)], "prebuilds wait behind people");
}

#[tokio::test]
async fn by_ids_leaves_unknown_ids_out_and_answers_each_id_once() {
    let mut world = World::new().await;
    world.job(1, json!({"created_at": minutes_ago(1)})).await;
    world.job(2, json!({"created_at": minutes_ago(2), "organization_id": ELSEWHERE})).await;
    assert_eq!(world.queued(&[]).await, []);
    assert_eq!(world.queued(&[7]).await, []);
    assert_eq!(world.queued(&[1, 7, 2, 1]).await, [(2, 0, 0), (1, 0, 0)]);
}

#[tokio::test]
async fn a_build_shows_its_workspace_version_template_and_transition() {
    let mut world = World::new().await;
    world.daemon(100, ORGANIZATION, untagged(), json!({})).await;
    world.build(1, WORKSPACE, 1, json!({"transition": "stop"})).await;
    sqlx::query("UPDATE provisioner_jobs SET worker_id = $1").bind(n(100)).execute(&mut world.conn).await.unwrap();
    let row = world.get(1).await;
    assert_eq!(row.workspace_build_transition, Some(Transition::Stop.into()));
    assert_eq!((row.workspace_id, row.workspace_name.as_str()), (Some(WORKSPACE.into()), "workspace"));
    assert_eq!((row.template_id, row.template_name.as_str()), (Some(TEMPLATE.into()), "template"));
    assert_eq!((row.template_display_name.as_str(), row.template_icon.as_str()), ("A Template", "/icon/k8s.svg"));
    assert_eq!(row.template_version_name, "v1");
    assert_eq!((row.job.worker_id, row.worker_name.as_str()), (Some(n(100).into()), "daemon-100"));

    // Soft deletion hides nothing; the deletion of a daemon leaves its id.
    for sql in [
        "UPDATE workspaces SET deleted = true",
        "UPDATE templates SET deleted = true",
        "DELETE FROM provisioner_daemons",
    ] {
        sqlx::query(sql).execute(&mut world.conn).await.unwrap();
    }
    let later = world.get(1).await;
    assert_eq!(later, JobDetails { worker_name: String::new(), ..row });
}

#[tokio::test]
async fn an_import_shows_its_version_and_template_and_no_workspace() {
    let mut world = World::new().await;
    world.job(1, json!({"type": "template_version_import", "input": {"template_version_id": VERSION}})).await;
    let row = world.get(1).await;
    assert_eq!((row.template_version_name.as_str(), row.template_name.as_str()), ("v1", "template"));
    assert_eq!((row.workspace_id, row.workspace_name.as_str(), row.workspace_build_transition), (None, "", None));

    world.insert("template_versions", rows::version(n(50), ORGANIZATION, USER, None, "draft")).await;
    world.job(2, json!({"input": {"template_version_id": n(50)}})).await;
    let row = world.get(2).await;
    assert_eq!(
        (row.template_version_name.as_str(), row.template_id),
        ("draft", None),
        "a version may have no template yet"
    );
}

#[tokio::test]
async fn a_version_in_the_input_outranks_the_version_of_the_build() {
    let mut world = World::new().await;
    world.insert("template_versions", rows::version(n(50), ORGANIZATION, USER, None, "v2")).await;
    world.build(1, WORKSPACE, 1, json!({})).await;
    for (id, version, name) in
        [(2, json!(n(50)), "v2"), (3, json!(null), ""), (4, json!(n(51)), ""), (5, json!("v2"), "")]
    {
        world.job(id, json!({"input": {"workspace_build_id": n(1), "template_version_id": version}})).await;
        let row = world.get(id).await;
        assert_eq!((row.template_version_name.as_str(), row.workspace_name.as_str()), (name, "workspace"));
    }
}

#[tokio::test]
async fn a_name_of_another_organization_never_leaks() {
    let mut world = World::new().await;
    let theirs = json!({"organization_id": ELSEWHERE});
    world.build(1, WORKSPACE, 1, json!({})).await;
    world.job(2, with(json!({"organization_id": null, "input": {"workspace_build_id": n(1)}}), theirs.clone())).await;
    world.job(3, with(json!({"organization_id": null, "input": {"template_version_id": VERSION}}), theirs)).await;
    for id in [2, 3] {
        let row = store::jobs::get(&mut world.conn, &support::read_jobs(ELSEWHERE), n(id).into()).await.unwrap();
        let names = [&row.workspace_name, &row.template_version_name, &row.template_name, &row.template_icon];
        assert_eq!(names, [""; 4], "job {id}");
        assert_eq!(
            (row.workspace_id, row.template_id, row.template_display_name.as_str()),
            (None, None, ""),
            "job {id}"
        );
    }
    // A version of ours of a template of theirs shows its own name alone.
    world.insert("templates", rows::template(n(60), ELSEWHERE, USER, "secret")).await;
    world.insert("template_versions", rows::version(n(61), ORGANIZATION, USER, Some(n(60)), "v1")).await;
    world.job(4, json!({"input": {"template_version_id": n(61)}})).await;
    let row = world.get(4).await;
    assert_eq!((row.template_version_name.as_str(), row.template_name.as_str(), row.template_id), ("v1", "", None));
    assert_eq!(world.ids(&JobFilter { template: Some(n(60).into()), ..JobFilter::default() }).await, []);
    // Nor does a filter tell that a job has to do with something of theirs.
    for filter in [
        JobFilter { template: Some(TEMPLATE.into()), ..JobFilter::default() },
        JobFilter { workspace: Some(WORKSPACE.into()), ..JobFilter::default() },
    ] {
        let page = store::jobs::list(&mut world.conn, &support::read_jobs(ELSEWHERE), &filter, PageRequest::default())
            .await
            .unwrap();
        assert_eq!(page.rows, []);
    }
}

#[tokio::test]
async fn a_job_of_another_organization_is_not_found() {
    let mut world = World::new().await;
    world.job(1, json!({})).await;
    for (organization, id) in [(ELSEWHERE, 1), (n(70), 1), (ORGANIZATION, 2)] {
        let outcome = store::jobs::get(&mut world.conn, &support::read_jobs(organization), n(id).into()).await;
        assert!(matches!(outcome, Err(Error::NotFound { .. })), "{outcome:?}");
    }
    let ids = JobFilter { ids: vec![n(1).into()], ..JobFilter::default() };
    let page =
        store::jobs::list(&mut world.conn, &support::read_jobs(ELSEWHERE), &ids, PageRequest::default()).await.unwrap();
    assert_eq!(page.rows, []);
}

#[tokio::test]
async fn a_broken_input_fails_its_row_only() {
    let mut world = World::new().await;
    world.build(1, WORKSPACE, 1, json!({})).await;
    let deep = format!(r#"{{"workspace_build_id": {}1{}}}"#, "[".repeat(500), "]".repeat(500));
    let broken = [
        r#"{"workspace_build_id": "not-a-uuid"}"#,
        r#"{"workspace_build_id": 7}"#,
        r#"{"workspace_build_id": ["00000000-0000-0000-0000-000000000001"]}"#,
        r#"{"template_version_id": ""}"#,
        r#"["workspace_build_id"]"#,
        r#""workspace_build_id""#,
        "7",
        // JSON that the database keeps, and that not every decoder reads.
        r#"{"workspace_build_id": 1e400}"#,
        r#"{"workspace_build_id": "not-a-uuid", "n": 1e400}"#,
        &deep,
    ];
    for (id, input) in (2..).zip(broken) {
        world.job(id, json!({})).await;
        sqlx::query("UPDATE provisioner_jobs SET input = $1::text::jsonb WHERE id = $2")
            .bind(input)
            .bind(n(id))
            .execute(&mut world.conn)
            .await
            .unwrap();
        let rows = world.list(&JobFilter::default()).await;
        assert_eq!(rows.len(), usize::try_from(id).unwrap(), "{input}");
        for row in rows {
            let error = row.job.input.error.as_deref().unwrap_or_default();
            assert_eq!(error.starts_with("decode input"), row.job.id != n(1).into(), "{input}: {error:?}");
            let workspace = if row.job.id == n(1).into() { "workspace" } else { "" };
            assert_eq!(row.workspace_name, workspace, "{input}");
        }
        world.queued(&[1, id]).await;
    }
}

#[tokio::test]
async fn what_a_listing_joins_is_what_the_input_shows_however_the_id_is_spelled() {
    let mut world = World::new().await;
    let build = Uuid::from_u128(0xabcd_ef01_2345_6789_abcd_ef01_2345_6789);
    world.build(build.as_u128(), WORKSPACE, 1, json!({})).await;
    let simple = build.simple().to_string();
    for (id, (text, known)) in (1..).zip([
        (build.to_string(), true),
        (build.to_string().to_uppercase(), true),
        (build.braced().to_string(), true),
        (format!("{{{simple}}}"), true),
        (format!("{}-{}", &simple[..4], &simple[4..]), true),
        (simple.clone(), true),
        (build.urn().to_string(), false),
        (format!("{build}-"), false),
        (format!("{build}\n"), false),
        (format!("{{{build}"), false),
        (format!("{build}}}"), false),
        (format!("{}-{}", &simple[..2], &simple[2..]), false),
    ]) {
        world.job(id, json!({"input": {"workspace_build_id": text}})).await;
        let row = world.get(id).await;
        assert_eq!(row.workspace_name, if known { "workspace" } else { "" }, "{text:?}");
        assert_eq!(row.job.input.workspace_build_id, known.then_some(build.into()), "{text:?}");
        assert_eq!(row.job.input.error.is_some(), !known, "{text:?}");
    }
}

#[tokio::test]
async fn odd_tags_and_traces_fail_no_row_at_all() {
    let mut world = World::new().await;
    world.job(1, json!({})).await;
    let deep = format!(r#"{{"a": {}1{}}}"#, "[".repeat(500), "]".repeat(500));
    for odd in ["7", "null", "[]", r#""x""#, r#"{"n": 1, "o": {}}"#, r#"{"n": 1e400}"#, &deep] {
        sqlx::query("UPDATE provisioner_jobs SET tags = $1::text::jsonb, trace_metadata = $1::text::jsonb")
            .bind(odd)
            .execute(&mut world.conn)
            .await
            .unwrap();
        let row = world.get(1).await;
        assert_eq!(row.job.id, n(1).into(), "{odd}");
        world.queued(&[1]).await;
    }
}

#[tokio::test]
async fn filters_combine_by_and() {
    let mut world = World::new().await;
    world.build(1, WORKSPACE, 1, json!({"transition": "start"})).await;
    world.build(2, WORKSPACE, 2, json!({"transition": "stop"})).await;
    let count = json!({"scope": "organization", "owner": "", "count": "1"});
    world.job(3, json!({"created_at": minutes_ago(3), "started_at": at(NOW)})).await;
    world.job(4, json!({"created_at": minutes_ago(2), "tags": count, "initiator_id": PREBUILDS})).await;
    world.job(5, json!({"created_at": minutes_ago(1), "tags": count})).await;
    let none = JobFilter::default;
    let tags = |pairs: &[(&str, &str)]| Some(pairs.iter().copied().collect::<Tags>());
    let user = Some(UserId(USER));
    let time = |minutes| Some(NOW - time::Duration::minutes(minutes));
    let cases: Vec<(JobFilter, &[u128])> = vec![
        (none(), &[5, 4, 3, 2, 1]),
        (JobFilter { status: vec![JobStatus::Running], ..none() }, &[3]),
        (JobFilter { status: vec![JobStatus::Running, JobStatus::Pending], ..none() }, &[5, 4, 3]),
        (JobFilter { status: vec![JobStatus::Running, JobStatus::Running], ..none() }, &[3]),
        (JobFilter { status: vec![JobStatus::Unknown], ..none() }, &[]),
        (JobFilter { ids: vec![n(4).into(), n(2).into(), n(99).into()], ..none() }, &[4, 2]),
        (JobFilter { ids: vec![n(99).into()], ..none() }, &[]),
        (JobFilter { tags: tags(&[("count", "1")]), ..none() }, &[5, 4]),
        (JobFilter { tags: tags(&[("scope", "organization"), ("owner", "")]), ..none() }, &[3, 2, 1]),
        (JobFilter { tags: tags(&[("scope", "organization")]), ..none() }, &[5, 4, 3, 2, 1]),
        (JobFilter { tags: tags(&[]), ..none() }, &[5, 4, 3, 2, 1]),
        (JobFilter { initiator: user, ..none() }, &[5, 3, 2, 1]),
        (JobFilter { initiator: Some(UserId::PREBUILDS), ..none() }, &[4]),
        (JobFilter { initiator: Some(UserId(n(99))), ..none() }, &[]),
        (JobFilter { initiator: Some(UserId(Uuid::nil())), ..none() }, &[5, 4, 3, 2, 1]),
        (JobFilter { initiator: user, status: vec![JobStatus::Pending], ..none() }, &[5]),
        (JobFilter { initiator: user, tags: tags(&[("count", "1")]), ..none() }, &[5]),
        (JobFilter { transition: Some(Transition::Stop), ..none() }, &[2]),
        (JobFilter { transition: Some(Transition::Delete), ..none() }, &[]),
        (JobFilter { tags: tags(&[("count", "1")]), status: vec![JobStatus::Pending], ..none() }, &[5, 4]),
        (JobFilter { tags: tags(&[("count", "1")]), status: vec![JobStatus::Running], ..none() }, &[]),
        (JobFilter { tags: tags(&[("count", "2")]), ..none() }, &[]),
        (JobFilter { initiator: user, tags: tags(&[("count", "2")]), ..none() }, &[]),
        (JobFilter { initiator: user, transition: Some(Transition::Stop), ..none() }, &[2]),
        (JobFilter { template: Some(TEMPLATE.into()), ..none() }, &[2, 1]),
        (JobFilter { template: Some(TEMPLATE.into()), transition: Some(Transition::Start), ..none() }, &[1]),
        (JobFilter { workspace: Some(WORKSPACE.into()), ..none() }, &[2, 1]),
        (JobFilter { workspace: Some(WORKSPACE.into()), ids: vec![n(1).into(), n(3).into()], ..none() }, &[1]),
        (
            JobFilter {
                workspace: Some(WORKSPACE.into()),
                initiator: user,
                status: vec![JobStatus::Pending],
                ..none()
            },
            &[],
        ),
        (JobFilter { workspace: Some(WORKSPACE.into()), transition: Some(Transition::Start), ..none() }, &[1]),
        (JobFilter { created_after: time(3), ..none() }, &[5, 4]),
        (JobFilter { created_before: time(2), ..none() }, &[3, 2, 1]),
        (JobFilter { created_after: time(3), created_before: time(1), ..none() }, &[4]),
    ];
    for (filter, expected) in cases {
        assert_eq!(world.ids(&filter).await, expected, "{filter:#?}");
        let page =
            store::jobs::list(&mut world.conn, &support::read_jobs(ORGANIZATION), &filter, PageRequest::first(1))
                .await
                .unwrap();
        let first: Vec<_> = page.rows.iter().map(|row| row.job.id.0.as_u128()).collect();
        assert_eq!(first, expected[..expected.len().min(1)], "the first of {filter:#?}");
    }
}

#[tokio::test]
async fn pages_of_fifty_hold_fifty_of_sixty_jobs_and_then_ten() {
    let mut world = World::new().await;
    for (id, minute) in (1..=60).zip(0..) {
        world.job(id, json!({"created_at": minutes_ago(minute / 7)})).await;
    }
    let everything = world.list(&JobFilter::default()).await;
    let first = store::jobs::list(
        &mut world.conn,
        &support::read_jobs(ORGANIZATION),
        &JobFilter::default(),
        PageRequest::first(50),
    )
    .await;
    let first = first.unwrap();
    let request = PageRequest::after(first.next.expect("there are more"), 50);
    let second = store::jobs::list(&mut world.conn, &support::read_jobs(ORGANIZATION), &JobFilter::default(), request)
        .await
        .unwrap();
    assert_eq!((first.rows.len(), second.rows.len(), second.next), (50, 10, None));
    assert_eq!([first.rows, second.rows].concat(), everything);
}

#[tokio::test]
async fn many_tag_sets_and_one_that_is_too_long_for_an_index_are_found() {
    let mut world = World::new().await;
    let long: String = std::iter::repeat_with(fastrand::alphanumeric).take(20_000).collect();
    for id in 1..=100_u128 {
        let tags = json!({"number": id.to_string(), "parity": (id % 2).to_string()});
        world.job(id, json!({"created_at": minutes_ago(100 - i64::try_from(id).unwrap()), "tags": tags})).await;
    }
    world.job(101, json!({"created_at": minutes_ago(1000), "tags": {"long": long, "parity": "0"}})).await;
    let tagged = |tags: &[(&str, &str)]| JobFilter {
        tags: Some(tags.iter().copied().collect::<Tags>()),
        ..JobFilter::default()
    };
    let even: Vec<u128> = (1..=50).rev().map(|half| half * 2).chain([101]).collect();
    assert_eq!(world.ids(&tagged(&[("parity", "0")])).await, even);
    assert_eq!(world.ids(&tagged(&[("parity", "1"), ("number", "7")])).await, [7]);
    assert_eq!(world.ids(&tagged(&[("parity", "1"), ("number", "8")])).await, [0; 0]);
    assert_eq!(world.ids(&tagged(&[("long", &long)])).await, [101]);
}

#[tokio::test]
async fn a_walk_among_inserts_meets_every_row_once() {
    let mut world = World::new().await;
    for id in 1..=200_u128 {
        // Some share a moment.
        world.job(id, json!({"created_at": minutes_ago(10 + i64::try_from(id / 3).unwrap())})).await;
    }
    let filters = [
        JobFilter::default(),
        JobFilter { status: vec![JobStatus::Pending, JobStatus::Failed], ..JobFilter::default() },
        JobFilter { initiator: Some(UserId(USER)), ..JobFilter::default() },
        JobFilter { tags: Some([("scope", "organization")].into_iter().collect()), ..JobFilter::default() },
    ];
    let mut writer = world.database.connect().await;
    let mut id = 1_000_u128;
    for filter in filters {
        let before = world.ids(&filter).await;
        let mut walked = Vec::new();
        let mut request = PageRequest::first(7);
        loop {
            // Newer than all, among those that are there, and older than all.
            for minutes in [0, 10 + i64::try_from(id % 70).unwrap(), 5_000] {
                let row = with(rows::job(n(id), ORGANIZATION, USER), json!({"created_at": minutes_ago(minutes)}));
                rows::insert(&mut writer, "provisioner_jobs", &[row]).await;
                id += 1;
            }
            let page =
                store::jobs::list(&mut world.conn, &support::read_jobs(ORGANIZATION), &filter, request).await.unwrap();
            walked.extend(page.rows.iter().map(|row| row.job.id.0.as_u128()));
            let Some(next) = page.next else { break };
            request = PageRequest::after(next, 7);
        }
        let mut once = walked.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), walked.len(), "a row twice: {filter:#?}");
        let met: Vec<u128> = walked.into_iter().filter(|id| before.contains(id)).collect();
        assert_eq!(met, before, "{filter:#?}");
    }
}

#[tokio::test]
async fn a_page_of_no_rows_is_empty_and_the_last() {
    let mut world = World::new().await;
    world.job(1, json!({})).await;
    let page = store::jobs::list(
        &mut world.conn,
        &support::read_jobs(ORGANIZATION),
        &JobFilter::default(),
        PageRequest::first(0),
    )
    .await;
    assert_eq!(page.unwrap(), Page { rows: vec![], next: None });
}

// Quota (domain: quota) -----------------------------------------------------------------------------------------------

#[tokio::test]
async fn consumption_is_the_cost_of_the_newest_build_of_each_workspace() {
    let mut world = World::new().await;
    assert_eq!(world.quota(USER, ORGANIZATION).await, (0, 0), "a workspace without a build");
    world.build(1, WORKSPACE, 1, json!({"daily_cost": 30})).await;
    assert_eq!(world.quota(USER, ORGANIZATION).await.0, 30);
    world.build(2, WORKSPACE, 10, json!({"daily_cost": 7, "transition": "stop"})).await;
    assert_eq!(world.quota(USER, ORGANIZATION).await.0, 7, "what the stop build committed");
    world.build(3, WORKSPACE, 9, json!({"daily_cost": 100})).await;
    assert_eq!(world.quota(USER, ORGANIZATION).await.0, 7, "the number decides, and not as a text");
    world.insert("workspaces", rows::workspace(n(80), ORGANIZATION, USER, TEMPLATE, "second")).await;
    world.build(4, n(80), 1, json!({"daily_cost": 5})).await;
    assert_eq!(world.quota(USER, ORGANIZATION).await.0, 12);
    world.build(5, WORKSPACE, 11, json!({})).await;
    assert_eq!(world.quota(USER, ORGANIZATION).await.0, 5, "a build without a cost hides the one before it");
    sqlx::query("UPDATE workspaces SET deleted = true").execute(&mut world.conn).await.unwrap();
    assert_eq!(world.quota(USER, ORGANIZATION).await.0, 0, "deleted workspaces are free");
}

#[tokio::test]
async fn consumption_counts_the_owner_in_one_organization_only() {
    let mut world = World::new().await;
    world.insert("workspaces", rows::workspace(n(80), ELSEWHERE, USER, TEMPLATE, "second")).await;
    world.insert("workspaces", rows::workspace(n(81), ORGANIZATION, PREBUILDS, TEMPLATE, "prebuild")).await;
    for (id, workspace, cost) in [(1, WORKSPACE, 1), (2, n(80), 20), (3, n(81), 300)] {
        world.build(id, workspace, 1, json!({"daily_cost": cost, "initiator_id": USER})).await;
    }
    assert_eq!(world.quota(USER, ORGANIZATION).await.0, 1);
    assert_eq!(world.quota(USER, ELSEWHERE).await.0, 20);
    assert_eq!(world.quota(PREBUILDS, ORGANIZATION).await.0, 300);
}

#[tokio::test]
async fn consumption_exceeds_thirty_two_bits() {
    let mut world = World::new().await;
    world.insert("workspaces", rows::workspace(n(80), ORGANIZATION, USER, TEMPLATE, "second")).await;
    world.build(1, WORKSPACE, 1, json!({"daily_cost": i32::MAX})).await;
    world.build(2, n(80), 1, json!({"daily_cost": i32::MAX})).await;
    assert_eq!(world.quota(USER, ORGANIZATION).await.0, 2 * i64::from(i32::MAX));
}

#[tokio::test]
async fn the_budget_is_the_sum_over_the_users_groups_in_the_organization() {
    let mut world = World::new().await;
    let group = |id: Uuid, organization: Uuid, allowance: i32| json!({"id": id, "name": id, "organization_id": organization, "quota_allowance": allowance});
    let member = |group: Uuid| json!({"group_id": group, "user_id": USER});
    let joined = |organization: Uuid| json!({"organization_id": organization, "user_id": USER, "created_at": at(NOW), "updated_at": at(NOW), "roles": []});
    // Everyone has the id of the organization.
    let everyone = json!({
        "id": ORGANIZATION, "name": "Everyone", "organization_id": ORGANIZATION, "avatar_url": "",
        "quota_allowance": 1, "display_name": "", "source": "user",
    });
    let group =
        |id: Uuid, organization: Uuid, allowance: i32| with(everyone.clone(), group(id, organization, allowance));
    world.insert("groups", everyone.clone()).await;
    world.insert("groups", group(n(90), ORGANIZATION, 20)).await;
    world.insert("groups", group(n(91), ELSEWHERE, 300)).await;
    world.insert("groups", group(n(92), ORGANIZATION, 4000)).await;
    assert_eq!(world.quota(USER, ORGANIZATION).await.1, 0, "a member of nothing");
    world.insert("organization_members", joined(ORGANIZATION)).await;
    assert_eq!(world.quota(USER, ORGANIZATION).await.1, 1, "Everyone needs no membership of its own");
    world.insert("group_members", member(n(90))).await;
    world.insert("group_members", member(n(91))).await;
    world.insert("group_members", member(ORGANIZATION)).await;
    assert_eq!(world.quota(USER, ORGANIZATION).await.1, 21, "each group once");
    assert_eq!(world.quota(USER, ELSEWHERE).await.1, 300, "a group of an organization that the user is no member of");
    for (change, budget) in [("status = 'suspended'", 21), ("status = 'dormant'", 21), ("deleted = true", 0)] {
        let sql = sqlx::AssertSqlSafe(format!("UPDATE users SET {change} WHERE id = '{USER}'"));
        sqlx::query(sql).execute(&mut world.conn).await.unwrap();
        assert_eq!(world.quota(USER, ORGANIZATION).await.1, budget, "{change}");
    }
    world.build(1, WORKSPACE, 1, json!({"daily_cost": 8})).await;
    assert_eq!(world.quota(USER, ORGANIZATION).await, (8, 0), "what a deleted user left behind still costs");
    assert_eq!(world.quota(n(99), ORGANIZATION).await, (0, 0), "nobody");
}

#[tokio::test]
async fn a_time_that_no_calendar_has_fails_neither_the_listing_nor_its_walk() {
    let mut world = World::new().await;
    for id in 1..=4 {
        world.build(id, WORKSPACE, i32::try_from(id).unwrap(), json!({})).await;
    }
    let odd = "UPDATE provisioner_jobs SET created_at = 'infinity' WHERE right(id::text, 1) IN ('2', '3');
               UPDATE provisioner_jobs SET created_at = '0001-06-01 BC' WHERE right(id::text, 1) IN ('1', '4');
               UPDATE provisioner_jobs SET completed_at = '-infinity', started_at = '4713-01-01 BC' \
               WHERE right(id::text, 1) = '1'";
    sqlx::raw_sql(odd).execute(&mut world.conn).await.unwrap();
    let rows = world.list(&JobFilter::default()).await;
    assert_eq!(rows.len(), 4);
    assert!(rows.iter().all(|row| serde_json::to_string(row).is_ok()), "a time that JSON can hold");
    assert_eq!(rows[0].job.created_at.year(), 9999);

    let permit = support::read_jobs(ORGANIZATION);
    let (mut walked, mut request) = (Vec::new(), PageRequest::first(1));
    loop {
        let page = store::jobs::list(&mut world.conn, &permit, &JobFilter::default(), request).await.unwrap();
        walked.extend(page.rows);
        match page.next {
            Some(cursor) => request = PageRequest::after(cursor, 1),
            None => break,
        }
    }
    assert_eq!(walked, rows);
}
