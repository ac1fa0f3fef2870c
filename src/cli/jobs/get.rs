//! `coderdb provisioner jobs get`.

use std::{fmt::Write as _, process::ExitCode};

use serde::Serialize;
use time::OffsetDateTime;

use super::{
    super::{
        connect::connect,
        error::CliError,
        organization::OrganizationArg,
        output::{Output, print, print_json, printable, rfc_3339},
        queue::{ASSUMES, Queue, WaitJson, in_words},
        resolve::OPERATOR,
    },
    Listed, job_id,
    logs::log_line,
};
use crate::{
    authz::{ReadJobLogs, ReadJobs, ReadQuota, ReadUsers, ReadWorkspaces},
    bounds::{beginning_of, end_of},
    model::{
        BuildReason, JobDetails, JobErrorCode, JobLog, Label, Organization, Quota, Transition, UserRef, WhyWaiting,
        WorkspaceBuildId,
    },
    store::{self, PgConnection, builds, job_logs, jobs, quota, users, workspaces},
};

/// Where all of a text is that is too long to be shown.
const ALL: &str = "; -o json has all";

/// Show all that is known of a job: what it does, why it failed, and why it waits
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coderdb provisioner jobs get c0de0000-0009-4000-8000-000000000022\n  coderdb \
                        provisioner jobs get c0de0000-0009-4000-8000-000000000022 -n 100\n  coderdb provisioner \
                        jobs get c0de0000-0009-4000-8000-000000000022 -o json")]
pub(in crate::cli) struct Args {
    /// The id of the job
    #[arg(value_name = "JOB")]
    id: String,
    /// How many of the last lines of its log
    #[arg(short = 'n', long, visible_alias = "logs", value_name = "LINES", default_value_t = 10)]
    lines: usize,
    #[command(flatten)]
    organization: OrganizationArg,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

/// A job in a listing, with the rows that it joins.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    listed: Listed<'a>,
    #[serde(skip)]
    position: String,
    initiator_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workspace_build: Option<Build>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workspace_owner_name: Option<String>,
    /// Of the owner, now, where the job failed over it.
    #[serde(skip_serializing_if = "Option::is_none")]
    quota: Option<Quota>,
    /// Why no daemon takes it now.
    #[serde(skip_serializing_if = "Option::is_none")]
    waits_because: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_wait: Option<WaitJson>,
    #[serde(skip)]
    expected_wait_in_words: Option<String>,
    logs: Vec<JobLog>,
}

#[derive(Serialize)]
struct Build {
    id: WorkspaceBuildId,
    #[serde(rename = "build_number")]
    number: i32,
    transition: Label<Transition>,
    reason: Label<BuildReason>,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, CliError> {
    let id = job_id(&args.id)?;
    let mut database = connect().await?;
    let organization = args.organization.resolve(&mut database).await?;
    let job = jobs::get(&mut database, &ReadJobs::check(&OPERATOR, organization.id)?, id).await?;
    let shown = look(&mut database, &organization, &job, args.lines).await?;
    match args.output {
        Output::Json => print_json(&shown)?,
        Output::Table => print(&shown.text())?,
    }
    database.close().await;
    Ok(ExitCode::SUCCESS)
}

async fn look<'a>(
    conn: &mut PgConnection,
    organization: &'a Organization,
    job: &'a JobDetails,
    lines: usize,
) -> Result<Shown<'a>, CliError> {
    let permit = ReadWorkspaces::check(&OPERATOR, organization.id)?;
    let build = none_if_missing(builds::by_job(conn, &permit, job.job.id).await)?;
    let workspace = match job.workspace_id {
        Some(id) => none_if_missing(workspaces::get(conn, &permit, id).await)?,
        None => None,
    };
    let is_insufficient = job.job.error_code.as_ref().is_some_and(JobErrorCode::is_insufficient_quota);
    let quota = match &workspace {
        Some(workspace) if is_insufficient => {
            let permit = ReadQuota::check(&OPERATOR, workspace.owner_id, organization.id)?;
            Some(quota::usage(conn, &permit).await?)
        }
        _ => None,
    };
    let initiator = UserRef::Id(job.job.initiator_id);
    let initiator = none_if_missing(users::resolve(conn, &ReadUsers::check(&OPERATOR)?, &initiator, None).await)?;
    let mut queue = Queue::default();
    queue.look_up(conn, organization.id, std::slice::from_ref(job), OffsetDateTime::now_utc()).await?;
    queue.expect(conn, organization.id, Some(&[job.job.id])).await?;
    let wait = queue.expected_wait(job.job.id);
    // The position says the rest.
    let says_more = |why: &WhyWaiting| why.is_stuck() || matches!(why, WhyWaiting::AllBusy { .. });
    let mut logs = job_logs::after(conn, &ReadJobLogs::check(&OPERATOR, organization.id)?, job.job.id, 0).await?;
    logs.drain(..logs.len().saturating_sub(lines));
    Ok(Shown {
        listed: Listed::new(job, organization, &queue),
        position: queue.position(job),
        initiator_name: initiator.map(|user| user.username),
        workspace_build: build.map(|build| Build {
            id: build.id,
            number: build.build_number,
            transition: build.transition,
            reason: build.reason,
        }),
        workspace_owner_name: workspace.map(|workspace| workspace.owner_name),
        quota,
        waits_because: queue.why(job).filter(says_more).map(|why| why.to_string()),
        expected_wait: wait.map(WaitJson::from),
        expected_wait_in_words: wait.map(|wait| format!("{}, if {ASSUMES}", in_words(&wait))),
        logs,
    })
}

/// What a job names may be gone.
fn none_if_missing<T>(found: store::Result<T>) -> Result<Option<T>, CliError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Shown<'_> {
    /// A line per fact, and then the lines of the log. What there is not to say is left out.
    fn text(&self) -> String {
        let Listed { job: details, organization_name, .. } = self.listed;
        let job = &details.job;
        let at = |at: Option<OffsetDateTime>| at.map(rfc_3339);
        let named = |name: &str, id: &dyn std::fmt::Display| {
            if name.is_empty() { id.to_string() } else { format!("{name} ({id})") }
        };
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let build = self
            .workspace_build
            .as_ref()
            .map(|build| format!("{} {} ({}), {}", build.number, build.transition, build.reason, build.id));
        let workspace = details.workspace_id.map(|id| {
            let owner = self.workspace_owner_name.as_ref().map_or_else(String::new, |owner| format!("{owner}/"));
            named(&format!("{owner}{}", details.workspace_name), &id)
        });
        let quota = self.quota.map(|quota| {
            let owner = self.workspace_owner_name.as_deref().unwrap_or("the owner");
            format!("{owner} consumes {} of {} credits now", quota.credits_consumed, quota.budget)
        });
        let facts = [
            ("id", Some(job.id.to_string())),
            ("type", Some(job.job_type.to_string())),
            ("provisioner", Some(job.provisioner.to_string())),
            ("status", Some(job.status.to_string())),
            ("error", job.error.as_deref().map(|error| end_of(error, ALL))),
            ("error code", job.error_code.as_ref().map(ToString::to_string)),
            ("quota", quota),
            ("queue", text(&self.position)),
            ("waits because", self.waits_because.as_deref().map(|why| beginning_of(why, ALL))),
            ("expected wait", self.expected_wait_in_words.clone()),
            ("tags", text(&beginning_of(&job.tags.to_string(), ALL))),
            ("organization", Some(organization_name.to_owned())),
            ("initiator", Some(named(self.initiator_name.as_deref().unwrap_or_default(), &job.initiator_id))),
            ("template", details.template_id.map(|id| named(&details.template_name, &id))),
            ("version", text(&details.template_version_name)),
            ("workspace", workspace),
            ("build", build),
            ("worker", job.worker_id.map(|id| named(&details.worker_name, &id))),
            ("created at", at(Some(job.created_at))),
            ("started at", at(job.started_at)),
            ("canceled at", at(job.canceled_at)),
            ("completed at", at(job.completed_at)),
        ];
        let mut shown = String::new();
        for (name, value) in facts {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                // An error may have many lines; they stay below each other.
                let value = printable(&value).replace('\n', "\n               ");
                let _ = writeln!(shown, "{:13}  {}", name.to_uppercase(), value.trim_end());
            }
        }
        if !self.logs.is_empty() {
            shown.push('\n');
        }
        for line in &self.logs {
            let _ = writeln!(shown, "{}", log_line(line));
        }
        shown
    }
}
