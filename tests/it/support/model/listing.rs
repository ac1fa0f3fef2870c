//! The listing (domain: listings).

use std::{cmp::Reverse, collections::BTreeSet};

use coderdb::model::{Cursor, JobErrorCode, JobFilter, PageRequest, Transition};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::jobs::uuid_value;
use super::tags::{jsonb_contains, jsonb_equal, tagset_contains};
use super::{Branch, BuildRow, DaemonRow, JobRow, Model, PREBUILDS, number};

/// A row of the listing (domain: listings), with an empty name for none.
#[derive(Debug, Clone)]
pub struct ListedJob<'a> {
    pub job: &'a JobRow,
    pub queue_position: i64,
    pub queue_size: i64,
    pub available_workers: Vec<Uuid>,
    pub template_version_name: String,
    pub template_id: Option<Uuid>,
    pub template_name: String,
    pub template_display_name: String,
    pub template_icon: String,
    pub workspace_id: Option<Uuid>,
    /// The workspace, if the build that the input names has this job: what the filter on workspaces means.
    pub builds_workspace: Option<Uuid>,
    pub workspace_name: String,
    pub worker_name: String,
    pub workspace_build_transition: Option<String>,
}

impl Model {
    /// All jobs of an organization with everything that is shown of them, newest first.
    pub fn organization(&self, organization: Uuid) -> Vec<ListedJob<'_>> {
        // One queue for everything that waits anywhere.
        let mut queue: Vec<&JobRow> = self.provisioner_jobs.iter().filter(|job| job.waits_in_listing()).collect();
        queue.sort_by_key(|job| job.queue_order());
        for pair in queue.windows(2) {
            self.reached.note(Branch::RankedBehindPerson, pair[0].created_at > pair[1].created_at);
            self.reached.note(
                Branch::RankedTie,
                (pair[0].initiator_id == PREBUILDS, pair[0].created_at)
                    == (pair[1].initiator_id == PREBUILDS, pair[1].created_at),
            );
        }
        let mut rows: Vec<ListedJob<'_>> = self
            .provisioner_jobs
            .iter()
            .filter(|job| job.organization_id == organization)
            .map(|job| self.listed(job, &queue))
            .collect();
        rows.sort_by_key(|row| Reverse((row.job.created_at, row.job.id)));
        self.reached
            .note(Branch::ListTie, rows.windows(2).any(|pair| pair[0].job.created_at == pair[1].job.created_at));
        rows
    }

    pub fn listed<'a>(&'a self, job: &'a JobRow, queue: &[&JobRow]) -> ListedJob<'a> {
        let queue_position = queue.iter().position(|queued| queued.id == job.id).map_or(0, |index| number(index) + 1);
        // In every row, also of a job that does not wait.
        let queue_size = number(queue.len());

        let build = self.build(job);
        // Another organization's names are not shown: of no workspace, version or template.
        let workspace = self.workspaces.iter().find(|workspace| {
            let this = build.is_some_and(|build| build.workspace_id == workspace.id);
            let same = workspace.organization_id == job.organization_id;
            self.reached.note(Branch::WorkspaceOtherOrganization, this && !same);
            this && same
        });
        // The key decides, also if its value names nothing.
        let version_id = match job.input_key("template_version_id") {
            Some(value) => uuid_value(value),
            None => build.map(|build| build.template_version_id),
        };
        let version = self.template_versions.iter().find(|version| {
            let this = version_id == Some(version.id);
            let same = version.organization_id == job.organization_id;
            self.reached.note(Branch::VersionOtherOrganization, this && !same);
            this && same
        });
        let template = self.templates.iter().find(|template| {
            let this = version.is_some_and(|version| version.template_id == Some(template.id));
            let same = template.organization_id == job.organization_id;
            self.reached.note(Branch::TemplateOtherOrganization, this && !same);
            this && same
        });
        // By its id alone.
        let worker = self.provisioner_daemons.iter().find(|daemon| job.worker_id == Some(daemon.id));

        let row = ListedJob {
            job,
            queue_position,
            queue_size,
            available_workers: self.available_workers(job),
            template_version_name: version.map(|version| version.name.clone()).unwrap_or_default(),
            template_id: template.map(|template| template.id),
            template_name: template.map(|template| template.name.clone()).unwrap_or_default(),
            template_display_name: template.map(|template| template.display_name.clone()).unwrap_or_default(),
            template_icon: template.map(|template| template.icon.clone()).unwrap_or_default(),
            workspace_id: workspace.map(|workspace| workspace.id),
            builds_workspace: workspace
                .filter(|_| build.is_some_and(|build| build.job_id == job.id))
                .map(|workspace| workspace.id),
            workspace_name: workspace.map(|workspace| workspace.name.clone()).unwrap_or_default(),
            worker_name: worker.map(|worker| worker.name.clone()).unwrap_or_default(),
            workspace_build_transition: build.map(|build| build.transition.clone()),
        };
        let version_key = job.input_key("template_version_id");
        for (branch, when) in [
            (Branch::VersionKeyNull, build.is_some() && version_key.is_some_and(Value::is_null)),
            (Branch::VersionOfBuild, version.is_some() && version_key.is_none()),
            (Branch::BothKeys, build.is_some() && version.is_some() && version_key.is_some()),
            (Branch::VersionWithoutTemplate, version.is_some_and(|version| version.template_id.is_none())),
            (Branch::TemplateNamed, template.is_some()),
            (Branch::TemplateDeleted, template.is_some_and(|template| template.deleted)),
            (Branch::WorkspaceNamed, workspace.is_some()),
            (Branch::WorkspaceDeleted, workspace.is_some_and(|workspace| workspace.deleted)),
            (Branch::WorkerNamed, worker.is_some()),
            (Branch::WorkerDeleted, worker.is_none() && job.worker_id.is_some()),
        ] {
            self.reached.note(branch, when);
        }
        self.note_queue(&row);
        row
    }

    /// The build that the input names. A value that is no UUID names none: one broken input must not fail the listing.
    pub fn build(&self, job: &JobRow) -> Option<&BuildRow> {
        let value = job.input_key("workspace_build_id");
        let id = value.and_then(uuid_value);
        let build = self.workspace_builds.iter().find(|build| id == Some(build.id));
        let holds_name = |elements: &Vec<Value>| elements.iter().any(|element| element == "workspace_build_id");
        for (branch, when) in [
            (Branch::InputNotObject, !job.input.is_object()),
            (Branch::InputArrayWithKey, job.input.as_array().is_some_and(holds_name)),
            (Branch::BuildNoKey, job.input.is_object() && value.is_none()),
            (Branch::BuildNotUuid, value.is_some() && id.is_none()),
            (Branch::BuildUnknown, id.is_some() && build.is_none()),
            (
                Branch::BuildOddSpelling,
                build.is_some_and(|build| value.and_then(Value::as_str) != Some(build.id.to_string().as_str())),
            ),
        ] {
            self.reached.note(branch, when);
        }
        build
    }

    /// The eligible daemons, the oldest first, of a job that has not started (domain: listings).
    pub fn available_workers(&self, job: &JobRow) -> Vec<Uuid> {
        let mut workers: Vec<&DaemonRow> = self
            .provisioner_daemons
            .iter()
            .filter(|daemon| {
                let waits = job.started_at.is_none();
                let same = daemon.organization_id == job.organization_id;
                let able = daemon.provisioners.contains(&job.provisioner);
                let fits = tagset_contains(&daemon.tags, &job.tags);
                self.note_tags(&daemon.tags, &job.tags);
                self.reached.note(Branch::WorkerOtherOrganization, waits && !same && able && fits);
                self.reached.note(Branch::WorkerOtherProvisioner, waits && same && !able && fits);
                // Online or not.
                self.reached.note(Branch::WorkersStale, waits && same && able && fits && daemon.last_seen_at.is_none());
                waits && same && able && fits
            })
            .collect();
        workers.sort_by_key(|daemon| (daemon.created_at, daemon.id));
        let tie = |pair: &[&DaemonRow]| pair[0].created_at == pair[1].created_at;
        self.reached.note(Branch::WorkersTie, workers.windows(2).any(tie));
        workers.iter().map(|daemon| daemon.id).collect()
    }

    pub fn note_tags(&self, daemon: &Value, job: &Value) {
        let untagged = serde_json::json!({"scope": "organization", "owner": ""});
        let matched = tagset_contains(daemon, job);
        let odd = |tags: &Value| tags.as_object().is_some_and(|tags| tags.values().any(|value| !value.is_string()));
        for (branch, when) in [
            (Branch::UntaggedMatch, *job == untagged && matched),
            (Branch::UntaggedRefused, *job == untagged && !matched && jsonb_contains(daemon, job)),
            (Branch::TaggedMatch, *job != untagged && job.as_object().is_some_and(|tags| tags.len() > 2) && matched),
            (Branch::TaggedMissing, job.as_object().is_some_and(|tags| tags.len() > 2) && !matched),
            (Branch::EmptyTagsMatch, job.as_object().is_some_and(Map::is_empty) && *daemon != untagged && matched),
            (
                Branch::DefaultTagsMatch,
                job.as_object().is_some_and(|tags| tags.len() == 1) && *daemon == untagged && matched,
            ),
            (Branch::OddTagsMatch, odd(daemon) && odd(job) && matched),
            (Branch::NotAnObjectTags, !daemon.is_object() || !job.is_object()),
        ] {
            self.reached.note(branch, when);
        }
    }

    pub fn note_queue(&self, row: &ListedJob<'_>) {
        let job = row.job;
        let waits = row.queue_position > 0;
        for (branch, when) in [
            (Branch::Ranked, waits),
            (Branch::NoWorker, waits && row.available_workers.is_empty()),
            (Branch::QueueSizeOfUnqueued, !waits && row.queue_size > 0),
            (Branch::Workers, !row.available_workers.is_empty()),
            (Branch::WorkersOfCompleted, !row.available_workers.is_empty() && job.completed_at.is_some()),
            (Branch::EmptyError, !waits && job.status() == "pending"),
            (Branch::FailedNotCompleted, job.status() == "failed" && job.completed_at.is_none()),
            (Branch::CancelingNeverStarted, job.status() == "canceling" && job.started_at.is_none()),
        ] {
            self.reached.note(branch, when);
        }
    }

    /// The rows that pass every filter, with the positions from before.
    pub fn filtered<'a>(&self, rows: &[ListedJob<'a>], filter: &JobFilter) -> Vec<ListedJob<'a>> {
        let kept: Vec<ListedJob<'a>> = rows
            .iter()
            .filter(|row| {
                let verdicts = verdicts(row, filter);
                let mut dropped = verdicts.iter().filter(|(_, passes)| !passes);
                if let (Some((branch, _)), None) = (dropped.next(), dropped.next()) {
                    let at_the_time = match branch {
                        Branch::AfterDropped => filter.created_after == Some(row.job.created_at),
                        Branch::BeforeDropped => filter.created_before == Some(row.job.created_at),
                        _ => true,
                    };
                    self.reached.note(*branch, at_the_time);
                }
                verdicts.iter().all(|(_, passes)| *passes)
            })
            .cloned()
            .collect();
        let nil = filter.initiator.is_some_and(|initiator| initiator.0.is_nil());
        let initiators: BTreeSet<Uuid> = kept.iter().map(|row| row.job.initiator_id).collect();
        self.reached.note(Branch::NilInitiator, nil && initiators.len() > 1);
        self.reached.note(
            Branch::FilteredQueued,
            kept.len() < rows.len() && kept.first().is_some_and(|row| row.queue_position > 1),
        );
        kept
    }

    /// The rows of one page, and where the next one begins.
    pub fn page<'a>(&self, rows: &[ListedJob<'a>], page: PageRequest) -> (Vec<ListedJob<'a>>, Option<Cursor>) {
        let place = |row: &ListedJob<'_>| (row.job.created_at, row.job.id);
        let rest: Vec<ListedJob<'a>> = rows
            .iter()
            .filter(|row| page.after.is_none_or(|after| place(row) < (after.created_at, after.id.0)))
            .cloned()
            .collect();
        if let Some(after) = page.after {
            let cut = rows.len() - rest.len();
            self.reached.note(
                Branch::CursorTie,
                cut > 0 && rest.first().is_some_and(|row| row.job.created_at == after.created_at),
            );
        }
        let limit = page.limit.map_or(rest.len(), |limit| limit as usize);
        let shown: Vec<ListedJob<'a>> = rest.iter().take(limit).cloned().collect();
        let more = rest.len() > shown.len();
        let next = shown
            .last()
            .filter(|_| more)
            .map(|last| Cursor { created_at: last.job.created_at, id: last.job.id.into() });
        self.reached.note(Branch::PageFull, next.is_some());
        self.reached
            .note(Branch::PageExact, !more && !shown.is_empty() && page.limit == u32::try_from(shown.len()).ok());
        self.reached.note(Branch::PageLimitZero, page.limit == Some(0) && more);
        (shown, next)
    }
}

/// What each filter says of a row, as the documentation of [`JobFilter`] has it.
pub fn verdicts(row: &ListedJob<'_>, filter: &JobFilter) -> [(Branch, bool); 23] {
    let job = row.job;
    let code = |codes: &[JobErrorCode]| codes.iter().any(|code| job.error_code.as_deref() == Some(code.as_str()));
    let exclude = &filter.exclude;
    let transition = |wanted: &Transition| row.workspace_build_transition.as_deref() == Some(wanted.as_str());
    let untagged = jsonb_equal(&job.tags, &serde_json::json!({"scope": "organization", "owner": ""}));
    let has_tag = |(key, value): &(String, String)| job.tags.get(key) == Some(&Value::String(value.clone()));
    [
        (Branch::IdsDropped, filter.ids.is_empty() || filter.ids.iter().any(|id| id.0 == job.id)),
        (
            Branch::StatusDropped,
            filter.status.is_empty() || filter.status.iter().any(|status| status.as_str() == job.status()),
        ),
        (
            Branch::TagsDropped,
            filter.tags.as_ref().is_none_or(|tags| {
                let pairs = tags.0.iter().map(|(key, value)| (key.clone(), Value::String(value.clone())));
                tagset_contains(&job.tags, &Value::Object(pairs.collect()))
            }),
        ),
        // Terms: each must hold, and several together mean no more than that.
        (Branch::HasTagsDropped, filter.has_tags.iter().all(has_tag)),
        (Branch::UntaggedDropped, !filter.untagged || untagged),
        (
            Branch::InitiatorDropped,
            filter.initiator.is_none_or(|initiator| initiator.0.is_nil() || initiator.0 == job.initiator_id),
        ),
        (
            Branch::TransitionDropped,
            filter.transition.is_none_or(|wanted| row.workspace_build_transition.as_deref() == Some(wanted.as_str())),
        ),
        (Branch::TemplateDropped, filter.template.is_none_or(|template| row.template_id == Some(template.0))),
        (Branch::WorkspaceDropped, filter.workspace.is_none_or(|workspace| row.builds_workspace == Some(workspace.0))),
        (Branch::AfterDropped, filter.created_after.is_none_or(|after| job.created_at > after)),
        (Branch::BeforeDropped, filter.created_before.is_none_or(|before| job.created_at < before)),
        (
            Branch::TypesDropped,
            filter.types.is_empty() || filter.types.iter().any(|job_type| job_type.as_str() == job.job_type),
        ),
        (Branch::ErrorCodesDropped, filter.error_codes.is_empty() || code(&filter.error_codes)),
        (Branch::StatusExcluded, !exclude.status.iter().any(|status| status.as_str() == job.status())),
        (Branch::IdsExcluded, !exclude.ids.iter().any(|id| id.0 == job.id)),
        (Branch::TagsExcluded, !exclude.tags.iter().any(has_tag)),
        (Branch::UntaggedExcluded, !(exclude.untagged && untagged)),
        (Branch::InitiatorsExcluded, !exclude.initiators.iter().any(|initiator| initiator.0 == job.initiator_id)),
        (Branch::TransitionsExcluded, !exclude.transitions.iter().any(transition)),
        (Branch::TemplatesExcluded, !exclude.templates.iter().any(|id| row.template_id == Some(id.0))),
        (Branch::WorkspacesExcluded, !exclude.workspaces.iter().any(|id| row.builds_workspace == Some(id.0))),
        (Branch::TypesExcluded, !exclude.types.iter().any(|job_type| job_type.as_str() == job.job_type)),
        (Branch::ErrorCodesExcluded, !code(&exclude.error_codes)),
    ]
}
