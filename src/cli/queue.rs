//! Why a job waits: its place in the queue, or the tags that no daemon has.

use std::collections::BTreeMap;

use time::OffsetDateTime;

use super::{error::CliError, output::note, resolve::OPERATOR, table::one_line};
use crate::{
    authz::ReadDaemons,
    model::{Daemon, DaemonFilter, JobDetails, OrganizationId, QueueState, Tags},
    store::{PgConnection, daemons, jobs::STALE_INTERVAL},
};

/// The daemons of an organization, looked up when the first job needs them.
#[derive(Default)]
pub(super) struct Daemons(Option<Vec<Daemon>>);

impl Daemons {
    /// Looks them up if one of the jobs waits and no daemon can take it. One round trip at most in all.
    pub(super) async fn look_up(
        &mut self,
        conn: &mut PgConnection,
        organization: OrganizationId,
        jobs: &[JobDetails],
    ) -> Result<(), CliError> {
        if self.0.is_none() && jobs.iter().any(|job| job.queue_state() == QueueState::NoEligibleWorker) {
            let permit = ReadDaemons::check(&OPERATOR, organization)?;
            let (filter, now) = (DaemonFilter::default(), OffsetDateTime::now_utc());
            let found = daemons::list(conn, &permit, &filter, now, STALE_INTERVAL).await?;
            self.0 = Some(found.into_iter().map(|details| details.daemon).collect());
        }
        Ok(())
    }

    /// The tags of a job that no daemon with its provisioner has; empty when there is one for each, but none for all.
    pub(super) fn missing(&self, details: &JobDetails) -> Tags {
        let daemons = self.0.iter().flatten().filter(|d| d.provisioners.contains(&details.job.provisioner));
        let daemons: Vec<&Daemon> = daemons.collect();
        let is_there = |key: &str, value: &str| {
            daemons.iter().any(|daemon| daemon.tags.0.get(key).is_some_and(|found| found == value))
        };
        details.job.tags.0.iter().filter(|(key, value)| !is_there(key, value)).collect()
    }
}

/// What no daemon is, in words.
pub(super) fn reason(details: &JobDetails, missing: &Tags) -> String {
    let tags = &details.job.tags;
    if !missing.0.is_empty() {
        format!("no daemon has {missing}")
    } else if *tags == Tags::untagged() {
        "no daemon is untagged".to_owned()
    } else {
        format!("no daemon has all of {tags}")
    }
}

/// How many of the jobs that were shown wait for which reason.
#[derive(Default)]
pub(super) struct Reasons(BTreeMap<String, u64>);

impl Reasons {
    pub(super) fn count(&mut self, jobs: &[JobDetails], daemons: &Daemons) {
        for job in jobs.iter().filter(|job| job.queue_state() == QueueState::NoEligibleWorker) {
            // Tags are what somebody has stored: no line of their own, and not much of one.
            *self.0.entry(one_line(&reason(job, &daemons.missing(job)))).or_default() += 1;
        }
    }

    /// Tells them below the table.
    pub(super) fn tell(&self) {
        const SHOWN: usize = 20;
        for (reason, jobs) in self.0.iter().take(SHOWN) {
            note(&match jobs {
                1 => format!("1 job waits: {reason}"),
                jobs => format!("{jobs} jobs wait: {reason}"),
            });
        }
        let more: u64 = self.0.values().skip(SHOWN).sum();
        if more > 0 {
            note(&format!("and {more} more, for {} other reasons", self.0.len() - SHOWN));
        }
    }
}
