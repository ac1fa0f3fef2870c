//! Canceling: the job of a build, of an import, of a dry run, and many jobs at once.

use std::collections::BTreeMap;

use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{
    Api, body::Body, done, error::Failure, error::Message, jobs, path, path::Path, query::Query, session::Session,
};
use crate::{
    authz::{CancelJobs, FindJobs, ReadJobs},
    cancel::{self, Outcome, Plan, Report, Run, tally},
    model::{ExpectedStatus, FoundJob, JobId, JobStatus, JobType, Label},
    search,
    store::{PgConnection, jobs as store_jobs},
};

const FAILED: &str = "Internal error updating provisioner job.";

/// Cancel workspace build
///
/// One that waits is canceled at once; one that runs ends when its daemon learns of it.
#[utoipa::path(
    patch,
    path = "/api/v2/workspacebuilds/{workspacebuild}/cancel",
    operation_id = "cancel-workspace-build",
    tag = "Builds",
    params(
        ("workspacebuild" = Uuid, Path, description = "Workspace build ID"),
        ("expect_status" = Option<ExpectedStatus>, Query, description = "412 unless the job has this status"),
    ),
    responses(
        (status = 200, body = Message, description = "The job is canceled, or will be when its daemon learns of it"),
        (status = 400, body = Message, description = "The job has ended, is being canceled, or a parameter is wrong"),
        (status = 403, body = Message, description = "The template does not let users cancel builds that run"),
        (status = 404, body = Message, description = "There is no such build, or no right to cancel it"),
        (status = 412, body = Message, description = "The job has another status than the expected one"),
    )
)]
pub(super) async fn build(
    State(api): State<Api>,
    session: Session,
    Path(build): Path<String>,
    mut query: Query,
) -> Result<Json<Message>, Failure> {
    let expected = expected(&mut query)?;
    query.finish()?;
    let mut conn = api.connection().await?;
    let found = store_jobs::find_of_build(&mut conn, &FindJobs::check(&session.actor), path::id(&build)?).await;
    let found = found.map_err(|error| Failure::from(error).at("Internal error fetching provisioner job."))?;
    one(&mut conn, &session, found, expected).await
}

/// Cancel template version by ID
#[utoipa::path(
    patch,
    path = "/api/v2/templateversions/{templateversion}/cancel",
    operation_id = "cancel-template-version-by-id",
    tag = "Templates",
    params(("templateversion" = Uuid, Path, description = "Template version ID")),
    responses(
        (status = 200, body = Message, description = "The job is canceled, or will be when its daemon learns of it"),
        (status = 400, body = Message, description = "The job has ended, or is being canceled"),
        (status = 404, body = Message, description = "There is no such version, or no right to change its template"),
    )
)]
pub(super) async fn version(
    State(api): State<Api>,
    session: Session,
    Path(version): Path<String>,
    query: Query,
) -> Result<Json<Message>, Failure> {
    query.finish()?;
    let mut conn = api.connection().await?;
    let found = store_jobs::find_of_version(&mut conn, &FindJobs::check(&session.actor), path::id(&version)?).await;
    let found = found.map_err(|error| Failure::from(error).at("Internal error fetching provisioner job."))?;
    one(&mut conn, &session, found, None).await
}

/// Cancel template version dry-run by job ID
#[utoipa::path(
    patch,
    path = "/api/v2/templateversions/{templateversion}/dry-run/{jobID}/cancel",
    operation_id = "cancel-template-version-dry-run-by-job-id",
    tag = "Templates",
    params(
        ("templateversion" = Uuid, Path, description = "Template version ID"),
        ("jobID" = Uuid, Path, description = "Job ID"),
    ),
    responses(
        (status = 200, body = Message, description = "The job is canceled, or will be when its daemon learns of it"),
        (status = 400, body = Message, description = "The job has ended, or is being canceled"),
        (status = 404, body = Message, description = "There is no such dry run of this version, or no right to cancel it"),
    )
)]
pub(super) async fn dry_run(
    State(api): State<Api>,
    session: Session,
    Path((version, job)): Path<(String, String)>,
    query: Query,
) -> Result<Json<Message>, Failure> {
    query.finish()?;
    let mut conn = api.connection().await?;
    let (version, job) = (path::id(&version)?, path::id(&job)?);
    let found = store_jobs::find_of_dry_run(&mut conn, &FindJobs::check(&session.actor), version, job).await;
    let found = found.map_err(|error| Failure::from(error).at("Internal error fetching provisioner job."))?;
    one(&mut conn, &session, found, None).await
}

/// The status that the job must still have; what it may be is checked before anything else.
fn expected(query: &mut Query) -> Result<Option<ExpectedStatus>, Failure> {
    let text = query.text("expect_status");
    text.map(|text| text.parse().map_err(|_| not_expectable(&text))).transpose()
}

fn not_expectable(text: &str) -> Failure {
    Failure::bad_request(format!("Invalid expect_status \"{text}\". Only 'running' or 'pending' are allowed."))
}

async fn one(
    conn: &mut PgConnection,
    session: &Session,
    found: FoundJob,
    expected: Option<ExpectedStatus>,
) -> Result<Json<Message>, Failure> {
    let permit = CancelJobs::check(&session.actor, found.organization_id)?;
    let mut run = Run::new(&Plan::named(vec![found.id], expected));
    while let Some(batch) = run.next(conn, &permit, OffsetDateTime::now_utc()).await {
        batch.map_err(|error| Failure::from(error).at(FAILED))?;
    }
    let report = run.into_reports().pop().ok_or_else(Failure::not_found)?;
    match (report.outcome, report.refusal()) {
        (Outcome::Canceled | Outcome::Canceling, _) => {
            let is_dry_run = report.job_type == Some(Label::Known(JobType::TemplateVersionDryRun));
            Ok(done(if is_dry_run { "Job has been marked as canceled." } else { "Job has been marked as canceled..." }))
        }
        (Outcome::NotFound, _) => Err(Failure::not_found()),
        (Outcome::NotInExpectedState, Some(why)) => Err(Failure::new(StatusCode::PRECONDITION_FAILED, why)),
        (Outcome::NotAllowed, Some(why)) => Err(Failure::new(StatusCode::FORBIDDEN, why)),
        (_, Some(why)) => Err(Failure::bad_request(why)),
        (outcome, None) => Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, FAILED).detail(outcome.words())),
    }
}

/// Which jobs are to be canceled.
#[derive(Deserialize, utoipa::ToSchema)]
#[schema(as = CancelProvisionerJobsRequest)]
pub(super) struct Many {
    /// The jobs that match, as in `initiator:prebuilds status:pending`, or `id:ID,ID`. Not empty.
    #[schema(example = "initiator:prebuilds status:pending", min_length = 1)]
    search: String,
    /// Leaves every job alone that has another status. A status that `search` asks for is expected, too.
    #[serde(default)]
    #[schema(value_type = Option<ExpectedStatus>, nullable = false, example = "pending")]
    expect_status: Option<String>,
    /// Only says what would become of the jobs.
    #[serde(default)]
    #[schema(example = true)]
    dry_run: bool,
}

/// What became of the jobs.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = CancelProvisionerJobsResponse)]
pub(super) struct Reports {
    /// How many jobs there are of each outcome.
    #[schema(value_type = BTreeMap<String, u64>)]
    outcomes: BTreeMap<Outcome, usize>,
    /// Each of them.
    jobs: Vec<ReportJson>,
}

/// What became of a job, or would.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = CancelProvisionerJobsResult)]
struct ReportJson {
    id: JobId,
    #[schema(value_type = String, example = "canceled")]
    outcome: Outcome,
    /// Absent where the job is not there or may not be canceled.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<JobType>, nullable = false)]
    job_type: Option<Label<JobType>>,
    /// Its status now; absent if the job does not exist or may not be canceled.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    status: Option<JobStatus>,
}

impl From<Report> for ReportJson {
    fn from(report: Report) -> Self {
        let Report { id, outcome, job_type, status } = report;
        Self { id, outcome, job_type, status }
    }
}

/// Cancel provisioner jobs
///
/// Batch by batch. When the database is lost on the way, the answer says of each job whether it was its turn.
#[utoipa::path(
    post,
    path = "/api/v2/organizations/{organization}/provisionerjobs/cancel",
    operation_id = "cancel-provisioner-jobs",
    tag = "Organizations",
    params(("organization" = String, Path, description = "Organization ID or name; `default` for the default one")),
    request_body = Many,
    responses(
        (status = 200, body = Reports, description = "What became of each job, or would"),
        (status = 400, body = Message, description = "The body does not say which jobs"),
        (status = 404, body = Message, description = "There is no such organization, or no right to read or cancel its jobs"),
        (status = 413, body = Message, description = "The body is too large"),
    )
)]
pub(super) async fn many(
    State(api): State<Api>,
    session: Session,
    Path(organization): Path<String>,
    query: Query,
    body: Result<Body<Many>, Failure>,
) -> Result<Json<Reports>, Failure> {
    query.finish()?;
    let mut conn = api.connection().await?;
    let organization = path::organization(&mut conn, &session, &organization).await?;
    let permit = CancelJobs::check(&session.actor, organization.id)?;
    let Body(asked) = body?;
    let expected = asked.expect_status.map(|text| text.parse().map_err(|_| not_expectable(&text))).transpose()?;
    let invalid = |why: String| Failure::bad_request("Validation failed.").validation("search", why);
    if asked.search.trim().is_empty() {
        return Err(invalid("it is empty: which jobs?".to_owned()));
    }
    let search: search::Query = asked.search.parse().map_err(|why: search::ParseError| invalid(why.to_string()))?;
    let read = ReadJobs::check(&session.actor, organization.id)?;
    let filter = jobs::searched(&mut conn, &session, &organization, search).await?.map_err(invalid)?;
    let plan = Plan::chosen(&mut conn, &read, &filter, expected).await;
    let plan = plan.map_err(|error| Failure::from(error).at("Internal error fetching provisioner jobs."))?;
    let reports = if asked.dry_run {
        cancel::preview(&mut conn, &permit, &plan).await.map_err(|error| Failure::from(error).at(FAILED))?
    } else {
        let mut run = Run::new(&plan);
        let mut is_begun = false;
        while let Some(batch) = run.next(&mut conn, &permit, OffsetDateTime::now_utc()).await {
            match batch {
                Ok(_) => is_begun = true,
                // Nothing was canceled yet, so that it is a failure as any other.
                Err(error) if !is_begun => return Err(Failure::from(error).at(FAILED)),
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "a cancellation of many jobs broke off");
                    break;
                }
            }
        }
        run.into_reports()
    };
    let outcomes = tally(&reports);
    Ok(Json(Reports { outcomes, jobs: reports.into_iter().map(Into::into).collect() }))
}
