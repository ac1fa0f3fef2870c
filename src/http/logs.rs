//! The logs of jobs: as JSON, as text, and followed over a WebSocket.

use std::{fmt::Write as _, time::Duration};

use axum::{
    Json,
    body::Bytes,
    extract::{
        FromRequestParts as _, Request, State, WebSocketUpgrade,
        ws::{CloseFrame, Message as Frame, WebSocket, close_code},
    },
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use time::format_description::well_known::Rfc3339;
use tokio::time::{Instant, interval_at, timeout};

use super::{Api, error::Failure, error::Message, path, path::Path, query::Query, session::Session};
use crate::{
    authz::{FindJobs, ReadJobLogs},
    model::{FoundJob, JobLog},
    store::{job_logs, jobs},
    watch::LogFollower,
};

const FAILED: &str = "Internal error fetching provisioner logs.";
/// From one ping to the next; a client that has not answered by then is gone, and so is one that takes no frame for so
/// long.
const PING: Duration = Duration::from_secs(15);
/// The reason of a close frame has so many bytes at most.
const REASON: usize = 123;

/// Get workspace build logs
///
/// All lines, oldest first. With `follow`, over a WebSocket: one text frame per line, as each is written, and a close
/// frame with the code 1000 behind the last one.
#[utoipa::path(
    get,
    path = "/api/v2/workspacebuilds/{workspacebuild}/logs",
    operation_id = "get-workspace-build-logs",
    tag = "Builds",
    params(
        ("workspacebuild" = Uuid, Path, description = "Workspace build ID"),
        Parameters,
    ),
    responses(
        (status = 101, description = "The WebSocket is open"),
        (status = 200, content((Vec<JobLog> = "application/json"), (String = "text/plain")), description = "The lines"),
        (status = 400, body = Message, description = "A parameter is wrong or unknown, or the request is no WebSocket upgrade"),
        (status = 403, body = Message, description = "A page of another origin asks for a WebSocket"),
        (status = 404, body = Message, description = "There is no such build, or no right to read its logs"),
    )
)]
pub(super) async fn build(
    State(api): State<Api>,
    session: Session,
    Path(build): Path<String>,
    query: Query,
    request: Request,
) -> Result<Response, Failure> {
    let asked = Asked::read(query)?;
    let found = {
        let mut conn = api.connection().await?;
        jobs::find_of_build(&mut conn, &FindJobs::check(&session.actor), path::id(&build)?).await
    };
    answer(api, session, asked, found?, request).await
}

/// Get logs by template version
#[utoipa::path(
    get,
    path = "/api/v2/templateversions/{templateversion}/logs",
    operation_id = "get-logs-by-template-version",
    tag = "Templates",
    params(
        ("templateversion" = Uuid, Path, description = "Template version ID"),
        Parameters,
    ),
    responses(
        (status = 101, description = "The WebSocket is open"),
        (status = 200, content((Vec<JobLog> = "application/json"), (String = "text/plain")), description = "The lines"),
        (status = 400, body = Message, description = "A parameter is wrong or unknown, or the request is no WebSocket upgrade"),
        (status = 403, body = Message, description = "A page of another origin asks for a WebSocket"),
        (status = 404, body = Message, description = "There is no such version, or no right to read its logs"),
    )
)]
pub(super) async fn version(
    State(api): State<Api>,
    session: Session,
    Path(version): Path<String>,
    query: Query,
    request: Request,
) -> Result<Response, Failure> {
    let asked = Asked::read(query)?;
    let found = {
        let mut conn = api.connection().await?;
        jobs::find_of_version(&mut conn, &FindJobs::check(&session.actor), path::id(&version)?).await
    };
    answer(api, session, asked, found?, request).await
}

/// Get template version dry-run logs by job ID
#[utoipa::path(
    get,
    path = "/api/v2/templateversions/{templateversion}/dry-run/{jobID}/logs",
    operation_id = "get-template-version-dry-run-logs-by-job-id",
    tag = "Templates",
    params(
        ("templateversion" = Uuid, Path, description = "Template version ID"),
        ("jobID" = Uuid, Path, description = "Job ID"),
        Parameters,
    ),
    responses(
        (status = 101, description = "The WebSocket is open"),
        (status = 200, content((Vec<JobLog> = "application/json"), (String = "text/plain")), description = "The lines"),
        (status = 400, body = Message, description = "A parameter is wrong or unknown, or the request is no WebSocket upgrade"),
        (status = 403, body = Message, description = "A page of another origin asks for a WebSocket"),
        (status = 404, body = Message, description = "There is no such dry run of this version, or no right to read its logs"),
    )
)]
pub(super) async fn dry_run(
    State(api): State<Api>,
    session: Session,
    Path((version, job)): Path<(String, String)>,
    query: Query,
    request: Request,
) -> Result<Response, Failure> {
    let asked = Asked::read(query)?;
    let found = {
        let mut conn = api.connection().await?;
        let (version, job) = (path::id(&version)?, path::id(&job)?);
        jobs::find_of_dry_run(&mut conn, &FindJobs::check(&session.actor), version, job).await
    };
    answer(api, session, asked, found?, request).await
}

/// What all three take, for the document; [`Asked`] reads it.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct Parameters {
    /// Only lines with a higher id
    after: Option<i64>,
    /// Whether to go on over a WebSocket with what is written from now on
    follow: Option<bool>,
    /// `text` for lines that people read
    format: Option<Format>,
}

/// How lines are sent.
#[derive(utoipa::ToSchema)]
#[schema(as = LogFormat, rename_all = "lowercase")]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) enum Format {
    Json,
    Text,
}

struct Asked {
    after: i64,
    is_followed: bool,
    is_text: bool,
}

impl Asked {
    fn read(mut query: Query) -> Result<Self, Failure> {
        let after = query.text("after").map(|text| text.parse()).transpose().map_err(|_| {
            Failure::bad_request("Query param \"after\" must be an integer.").validation("after", "Must be an integer")
        })?;
        // The parameter alone, without a value, asks for it, too.
        let is_followed = query.has("follow") && query.flag("follow").unwrap_or(true);
        let is_text = match query.text("format").as_deref() {
            None | Some("json") => false,
            Some("text") => true,
            Some(_) => {
                return Err(Failure::bad_request("Invalid format parameter.")
                    .detail("The format must be \"json\" or \"text\"."));
            }
        };
        query.finish()?;
        if is_followed && is_text {
            return Err(Failure::bad_request("Text format is not supported with follow mode."));
        }
        Ok(Self { after: after.unwrap_or_default(), is_followed, is_text })
    }
}

async fn answer(
    api: Api,
    session: Session,
    asked: Asked,
    found: FoundJob,
    request: Request,
) -> Result<Response, Failure> {
    let permit = ReadJobLogs::check(&session.actor, found.organization_id)?;
    if !asked.is_followed {
        let mut conn = api.connection().await?;
        let lines = job_logs::after(&mut conn, &permit, found.id, asked.after).await;
        let lines = lines.map_err(|error| Failure::from(error).at(FAILED))?;
        return Ok(if asked.is_text { text(&lines) } else { Json(lines).into_response() });
    }
    // Whether there is something to follow is answered while it can still be an answer of HTTP.
    {
        let mut conn = api.connection().await?;
        let seen = job_logs::after(&mut conn, &permit, found.id, i64::MAX).await;
        seen.map_err(|error| Failure::from(error).at(FAILED))?;
    }
    if is_of_a_foreign_page(request.headers()) {
        return Err(
            Failure::new(StatusCode::FORBIDDEN, "Forbidden.").detail("The page has another origin than this service.")
        );
    }
    let (mut parts, _) = request.into_parts();
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &()).await;
    let upgrade = upgrade.map_err(|_| Failure::bad_request("Failed to accept websocket."))?;
    let token = api.0.streams.token();
    // Nothing but pings and closings is expected of a client.
    Ok(upgrade.max_message_size(4096).on_upgrade(async move |socket| {
        let follower = api.watcher().follow(permit, found.id, asked.after);
        stream(&api, socket, follower).await;
        drop(token);
    }))
}

/// Whether a browser sends it for a page of another origin.
fn is_of_a_foreign_page(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(origin) = text(header::ORIGIN) else { return false };
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    authority.is_none() || authority != text(header::HOST)
}

fn text(lines: &[JobLog]) -> Response {
    let mut text = String::new();
    for JobLog { created_at, source, level, stage, output, .. } in lines {
        let at = created_at.replace_nanosecond(0).unwrap_or(*created_at).format(&Rfc3339).unwrap_or_default();
        let _ = writeln!(text, "{at} [{level}] [{source}|{stage}] {output}");
    }
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

/// Sends lines until the job has ended, the client is gone, or the service ends; and says why with a close frame.
async fn stream(api: &Api, mut socket: WebSocket, mut follower: LogFollower) {
    let mut ping = interval_at(Instant::now() + PING, PING);
    let mut is_answered = true;
    let (code, reason) = loop {
        tokio::select! {
            lines = follower.next() => match lines {
                Ok(Some(lines)) => if !send(&mut socket, &lines).await { return },
                Ok(None) => break (close_code::NORMAL, "done".to_owned()),
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "a log cannot be followed any more");
                    break (close_code::ERROR, error.to_string());
                }
            },
            frame = socket.recv() => match frame {
                Some(Ok(Frame::Pong(_))) => is_answered = true,
                Some(Ok(Frame::Ping(_))) => {}
                Some(Ok(Frame::Text(_) | Frame::Binary(_))) => {
                    break (close_code::POLICY, "no data is expected of a client".to_owned());
                }
                Some(Ok(Frame::Close(_)) | Err(_)) | None => return,
            },
            _ = ping.tick() => {
                if !is_answered {
                    break (close_code::AWAY, "Ping failed".to_owned());
                }
                is_answered = false;
                if !matches!(timeout(PING, socket.send(Frame::Ping(Bytes::new()))).await, Ok(Ok(()))) {
                    return;
                }
            },
            () = api.0.ending.cancelled() => break (close_code::AWAY, "the service ends".to_owned()),
        }
    };
    let reason = reason[..reason.floor_char_boundary(REASON)].to_owned().into();
    // The client may be gone.
    let _ = timeout(PING, socket.send(Frame::Close(Some(CloseFrame { code, reason })))).await;
    // The client's own close frame ends the connection in order.
    let _ = timeout(Duration::from_secs(1), async { while let Some(Ok(_)) = socket.recv().await {} }).await;
}

async fn send(socket: &mut WebSocket, lines: &[JobLog]) -> bool {
    for line in lines {
        let Ok(line) = serde_json::to_string(line) else { return false };
        if !matches!(timeout(PING, socket.send(Frame::Text(line.into()))).await, Ok(Ok(()))) {
            return false;
        }
    }
    true
}
