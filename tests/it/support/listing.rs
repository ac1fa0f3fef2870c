//! Compares what the listings answer with the model.

use std::time::Duration;

use coderdb::{
    model::{
        Cursor, Job, JobDetails, JobErrorCode, JobFilter, JobId, JobInput, JobStatus, JobType, JobWithQueue, Label,
        Page, PageRequest, Quota, Tags, TemplateId, Transition, UserId, WorkspaceId,
    },
    store::{self, Error},
};
use fastrand::Rng;
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::support::{
    self, job_json,
    model::{JobRow, ListedJob, Model, PREBUILDS, QueuedJob, Reached},
    random_database::{self as rows, NOW, STALE, pick},
};

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
pub async fn walk(conn: &mut PgConnection, rng: &mut Rng, model: &Model, listings: &[(Uuid, Vec<ListedJob<'_>>)]) {
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

pub async fn compare_queue(conn: &mut PgConnection, rng: &mut Rng, model: &Model) {
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
pub async fn by_ids(conn: &mut PgConnection, ids: &[JobId], stale: Duration) -> Vec<JobWithQueue> {
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

pub fn same_rows(expected: &[ListedJob<'_>], actual: &[JobDetails], context: &dyn std::fmt::Debug) {
    for (expected, actual) in expected.iter().zip(actual) {
        same(actual, &expected_details(expected, &actual.job.input), context);
        same(&job_json::actual(actual), &job_json::of_listed(expected), expected);
    }
    assert_eq!(actual.len(), expected.len(), "{context:#?}");
}

/// Like `assert_eq`, but of big rows it shows the lines that differ.
pub fn same<T: std::fmt::Debug + PartialEq>(actual: &T, expected: &T, context: &dyn std::fmt::Debug) {
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

pub fn expected_details(row: &ListedJob<'_>, input: &JobInput) -> JobDetails {
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
pub fn random_filter(rng: &mut Rng, model: &Model, listings: &[(Uuid, Vec<ListedJob<'_>>)]) -> JobFilter {
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

pub fn random_request(rng: &mut Rng, listings: &[(Uuid, Vec<ListedJob<'_>>)]) -> PageRequest {
    let shown: Vec<&JobRow> = listings.iter().flat_map(|(_, rows)| rows).map(|row| row.job).collect();
    let limit = [None, None, None, Some(0), Some(1), Some(2), Some(3), Some(1000), Some(u32::MAX)][rng.usize(..9)];
    // Also a place that no row has: the row of a cursor may be gone by the time that it is used.
    let after = pick(rng, &shown).filter(|_| rng.u8(..3) == 0).map(|job| Cursor {
        created_at: job.created_at,
        id: JobId([job.id, Uuid::nil(), Uuid::max()][rng.usize(..3)]),
    });
    PageRequest { limit, after }
}
