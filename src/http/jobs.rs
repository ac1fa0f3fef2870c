//! Provisioner jobs: list and get.

use axum::{
    Json,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use futures_util::stream;
use time::OffsetDateTime;

use super::{Api, error::Failure, error::Message, path, path::Path, query::Query, session::Session};
use crate::{
    authz::ReadJobs,
    model::{
        Cursor, JobDetails, JobFilter, JobId, JobStatus, NameOrId, Organization, Page, PageRequest, Tags, UserId,
        job_json::JobJson,
    },
    search::{self, Condition, ResolveError, Term},
    store::{self, PgConnection, jobs},
};

const FAILED: &str = "Internal error fetching provisioner jobs.";
/// What is longer is read and sent in parts of so many rows.
const PART: u32 = 500;
/// How many jobs there are in all, where that was asked for.
const TOTAL: HeaderName = HeaderName::from_static("x-total-count");

/// List provisioner jobs
///
/// The newest first. `limit=0` sends all of them, in parts that are read one after the other, so that neither side has to
/// hold them all.
#[utoipa::path(
    get,
    path = "/api/v2/organizations/{organization}/provisionerjobs",
    operation_id = "get-provisioner-jobs",
    tag = "Organizations",
    params(
        ("organization" = String, Path, description = "Organization ID or name; `default` for the default one"),
        ("limit" = Option<u32>, Query, description = "At most so many; 50 if absent, 0 for all", maximum = 2_147_483_647),
        ("status" = Option<Vec<JobStatus>>, Query, explode = false, description = "Only jobs with one of these statuses"),
        ("ids" = Option<Vec<Uuid>>, Query, explode = false, description = "Only these jobs"),
        ("tags" = Option<String>, Query, description = "Only jobs with these tags: a JSON object of strings", example = json!("{\"scope\":\"organization\",\"owner\":\"\"}")),
        ("initiator" = Option<Uuid>, Query, description = "Only jobs that this user asked for; the zero UUID for any"),
        ("search" = Option<String>, Query, description = "Only jobs that match, as in `initiator:prebuilds -status:failed created:>1h`"),
        ("after" = Option<String>, Query, description = "Where the page before ended, from its `Link` header"),
        ("count" = Option<bool>, Query, description = "Whether `X-Total-Count` says how many jobs there are in all; costs a pass over them"),
    ),
    responses(
        (status = 200, body = [JobJson], description = "The jobs", headers(
            ("Link" = Option<String>, description = "The next page, with `rel=\"next\"`; absent behind the last one, and with a limit above 500"),
            ("X-Total-Count" = Option<u64>, description = "How many jobs there are in all, with `count=true`"),
        )),
        (status = 400, body = Message, description = "A parameter is wrong or unknown"),
        (status = 404, body = Message, description = "There is no such organization, or no right to read its jobs"),
    )
)]
pub(super) async fn list(
    State(api): State<Api>,
    session: Session,
    Path(organization): Path<String>,
    mut query: Query,
) -> Result<Response, Failure> {
    let mut conn = api.connection().await?;
    let organization = path::organization(&mut conn, &session, &organization).await?;
    let permit = ReadJobs::check(&session.actor, organization.id)?;
    let asked = Asked::read(&mut query, true);
    let next_page = next_page(&organization, &query);
    let after = query.value("after", |text| cursor(text).ok_or_else(|| "is not from a Link header".to_owned()));
    let is_counted = query.flag("count").unwrap_or_default();
    let filter = asked.filter(&mut conn, &session, &organization, &mut query).await?;
    query.finish()?;

    let part = asked.limit.map_or(PART, |limit| limit.min(PART));
    let read = async |conn: &mut PgConnection, request| {
        jobs::list(conn, &permit, &filter, request).await.map_err(|error| Failure::from(error).at(FAILED))
    };
    let first = read(&mut conn, PageRequest { limit: Some(part), after }).await?;
    let mut headers = HeaderMap::new();
    if is_counted {
        let counts = jobs::count_by_tags(&mut conn, &permit, &filter).await;
        let counts = counts.map_err(|error| Failure::from(error).at(FAILED))?;
        headers.insert(TOTAL, counts.iter().map(|count| count.jobs).sum::<i64>().into());
    }
    drop(conn);
    if let (Some(limit), Some(next)) = (asked.limit, first.next)
        && limit <= PART
    {
        headers.insert(header::LINK, next_page(next));
        return Ok((headers, Json(first.rows)).into_response());
    }
    if first.next.is_none() {
        return Ok((headers, Json(first.rows)).into_response());
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let rows = Rows {
        api: api.clone(),
        permit,
        filter,
        left: asked.limit.map(|limit| limit - part),
        first: Some(first),
        next: None,
    };
    Ok((headers, Body::from_stream(rows.stream())).into_response())
}

/// Get provisioner job
#[utoipa::path(
    get,
    path = "/api/v2/organizations/{organization}/provisionerjobs/{job}",
    operation_id = "get-provisioner-job",
    tag = "Organizations",
    params(
        ("organization" = String, Path, description = "Organization ID or name; `default` for the default one"),
        ("job" = Uuid, Path, description = "Job ID"),
        ("limit" = Option<u32>, Query, description = "Has no effect", maximum = 2_147_483_647),
        ("status" = Option<Vec<JobStatus>>, Query, explode = false, description = "404 unless the job has one of these statuses"),
        ("tags" = Option<String>, Query, description = "404 unless the job has these tags: a JSON object of strings"),
        ("initiator" = Option<Uuid>, Query, description = "404 unless this user asked for the job"),
    ),
    responses(
        (status = 200, body = JobJson, description = "The job"),
        (status = 400, body = Message, description = "A parameter is wrong or unknown"),
        (status = 404, body = Message, description = "There is no such job, or no right to read it"),
    )
)]
pub(super) async fn get(
    State(api): State<Api>,
    session: Session,
    Path((organization, job)): Path<(String, String)>,
    mut query: Query,
) -> Result<Json<JobDetails>, Failure> {
    let mut conn = api.connection().await?;
    let organization = path::organization(&mut conn, &session, &organization).await?;
    let job: JobId = path::id(&job)?;
    let permit = ReadJobs::check(&session.actor, organization.id)?;
    let asked = Asked::read(&mut query, false);
    let mut filter = asked.filter(&mut conn, &session, &organization, &mut query).await?;
    query.finish()?;
    filter.ids = vec![job];
    let found = jobs::list(&mut conn, &permit, &filter, PageRequest::first(1)).await;
    let found = found.map_err(|error| Failure::from(error).at("Internal error fetching provisioner job."))?;
    found.rows.into_iter().next().map(Json).ok_or_else(Failure::not_found)
}

/// What a query asks of jobs.
pub(super) struct Asked {
    limit: Option<u32>,
    status: Vec<JobStatus>,
    ids: Vec<JobId>,
    tags: Option<Tags>,
    initiator: Option<UserId>,
    search: Option<search::Query>,
}

impl Asked {
    fn read(query: &mut Query, is_list: bool) -> Self {
        Self {
            limit: query.limit(50),
            status: query.list("status"),
            ids: if is_list { query.list("ids") } else { Vec::new() },
            tags: query.value("tags", tags),
            initiator: query.value("initiator", |text| text.parse().map_err(|_| "must be a valid uuid".to_owned())),
            search: if is_list { query.text("search") } else { None }.and_then(|text| {
                text.parse().map_err(|why: search::ParseError| query.fault("search", why.to_string())).ok()
            }),
        }
    }

    /// All of it as one filter. What the search asks for, the other parameters may not ask for as well.
    async fn filter(
        &self,
        conn: &mut PgConnection,
        session: &Session,
        organization: &Organization,
        query: &mut Query,
    ) -> Result<JobFilter, Failure> {
        let mut filter = match &self.search {
            None => JobFilter::default(),
            Some(search) => {
                let searched = searched(conn, session, organization, search.clone()).await?;
                searched.unwrap_or_else(|fault| {
                    query.fault("search", fault);
                    JobFilter::default()
                })
            }
        };
        let mut both = |is_searched: bool, is_asked: bool, name: &str| {
            if is_searched && is_asked {
                query.fault(name, format!("Query param {name:?} is asked for in \"search\", too"));
            }
        };
        both(!filter.status.is_empty(), !self.status.is_empty(), "status");
        both(!filter.ids.is_empty(), !self.ids.is_empty(), "ids");
        both(filter.initiator.is_some(), self.initiator.is_some(), "initiator");
        if filter.status.is_empty() {
            filter.status.clone_from(&self.status);
        }
        if filter.ids.is_empty() {
            filter.ids.clone_from(&self.ids);
        }
        filter.initiator = filter.initiator.or(self.initiator);
        filter.tags.clone_from(&self.tags);
        Ok(filter)
    }
}

/// The filter of a search within one organization, or what is wrong with the search.
pub(super) async fn searched(
    conn: &mut PgConnection,
    session: &Session,
    organization: &Organization,
    mut search: search::Query,
) -> Result<Result<JobFilter, String>, Failure> {
    let here = Condition::Organization(NameOrId::Id(organization.id));
    if let Err(problem) = search.push(Term { negated: false, condition: here }) {
        return Ok(Err(format!("{problem}; the path names the organization")));
    }
    match search.resolve(conn, &session.actor, session.me().as_ref(), OffsetDateTime::now_utc()).await {
        Ok((_, filter)) => Ok(Ok(filter)),
        Err(error @ (ResolveError::Store(store::Error::NotFound { .. }) | ResolveError::Ambiguous { .. })) => {
            Ok(Err(error.to_string()))
        }
        Err(ResolveError::Store(error)) => Err(Failure::from(error).at(FAILED)),
    }
}

/// The first JSON value; null is an empty object.
pub(super) fn tags(text: &str) -> Result<Tags, String> {
    let first = serde_json::Deserializer::from_str(text).into_iter::<Option<Tags>>().next();
    let read = first.unwrap_or(Ok(None)).map_err(|why| format!("must be a valid JSON object: {why}"))?;
    Ok(read.unwrap_or_default())
}

/// Where a page ends, as text.
fn cursor(text: &str) -> Option<Cursor> {
    let (micros, id) = text.split_once('_')?;
    let nanos = micros.parse::<i128>().ok()?.checked_mul(1000)?;
    Some(Cursor { created_at: OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?, id: id.parse().ok()? })
}

/// The link to the page behind a place, with all other parameters as they are.
fn next_page(organization: &Organization, query: &Query) -> impl Fn(Cursor) -> HeaderValue + use<> {
    let mut others = form_urlencoded::Serializer::new(String::new());
    others.extend_pairs(query.pairs().filter(|(name, _)| *name != "after"));
    let (organization, others) = (organization.id, others.finish());
    move |cursor| {
        let micros = cursor.created_at.unix_timestamp_nanos() / 1000;
        let and = if others.is_empty() { "" } else { "&" };
        let link = format!(
            "</api/v2/organizations/{organization}/provisionerjobs?{others}{and}after={micros}_{}>; rel=\"next\"",
            cursor.id
        );
        HeaderValue::from_str(&link).unwrap_or(HeaderValue::from_static(""))
    }
}

/// A long list, read part by part while it is sent. No connection is held in between.
struct Rows {
    api: Api,
    permit: ReadJobs,
    filter: JobFilter,
    /// How many rows may still come; `None` for all.
    left: Option<u32>,
    first: Option<Page<JobDetails>>,
    next: Option<Cursor>,
}

impl Rows {
    fn stream(self) -> impl stream::Stream<Item = Result<Bytes, axum::Error>> {
        stream::try_unfold((self, "["), |(mut rows, before)| async move {
            let page = match (rows.first.take(), rows.next.take()) {
                (Some(first), _) => first,
                (None, Some(after)) => {
                    let limit = rows.left.map_or(PART, |left| left.min(PART));
                    rows.left = rows.left.map(|left| left - limit);
                    let mut conn = rows.api.0.pool.get().await.map_err(axum::Error::new)?;
                    let request = PageRequest { limit: Some(limit), after: Some(after) };
                    // What was sent cannot be taken back: the connection ends, and the client sees that the list is cut off.
                    jobs::list(&mut conn, &rows.permit, &rows.filter, request).await.map_err(axum::Error::new)?
                }
                (None, None) => return Ok(None),
            };
            rows.next = page.next.filter(|_| rows.left != Some(0));
            let is_last = rows.next.is_none();
            let mut text = before.to_owned();
            for (n, row) in page.rows.iter().enumerate() {
                if n > 0 {
                    text.push(',');
                }
                text += &serde_json::to_string(row).map_err(axum::Error::new)?;
            }
            text += if is_last { "]" } else { "" };
            Ok(Some((Bytes::from(text), (rows, ","))))
        })
    }
}
