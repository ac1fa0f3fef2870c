//! Why jobs wait, beside those that are listed.

use std::{cmp::Reverse, collections::BTreeMap};

use time::OffsetDateTime;

use super::{error::CliError, output::note, resolve::OPERATOR, table::one_line};
use crate::{
    authz::{ReadJobs, ReadQueue},
    model::{JobDetails, OrganizationId, WhyWaiting},
    store::{
        PgConnection,
        jobs::STALE_INTERVAL,
        queue::{self, View},
    },
};

/// The queue, looked up when the first job needs it.
#[derive(Default)]
pub(super) struct Queue(Option<View>);

impl Queue {
    /// Looks it up if one of the jobs has not ended. One round trip at most in all.
    pub(super) async fn look_up(
        &mut self,
        conn: &mut PgConnection,
        organization: OrganizationId,
        jobs: &[JobDetails],
        now: OffsetDateTime,
    ) -> Result<(), CliError> {
        if self.0.is_none() && jobs.iter().any(|details| details.job.completed_at.is_none()) {
            let (whole, read) = (ReadQueue::check(&OPERATOR)?, ReadJobs::check(&OPERATOR, organization)?);
            self.0 = Some(queue::snapshot(conn, &whole, now, STALE_INTERVAL).await?.of(&read));
        }
        Ok(())
    }

    /// Why the job waits; `None` for one that does not.
    pub(super) fn why(&self, details: &JobDetails) -> Option<WhyWaiting> {
        self.0.as_ref().and_then(|queue| queue.why(details.job.id))
    }

    /// The position in the listing, where it does not promise too much; empty for a job that does not wait.
    pub(super) fn position(&self, details: &JobDetails) -> String {
        let position = match details.queue_position {
            0 => String::new(),
            position => format!("{position}/{}", details.queue_size),
        };
        match self.why(details) {
            Some(WhyWaiting::DaemonGone) => "daemon gone".to_owned(),
            Some(WhyWaiting::DaemonSilent { .. }) => "daemon offline".to_owned(),
            Some(WhyWaiting::AllOffline { .. }) => format!("{position} offline").trim_start().to_owned(),
            Some(why) if why.is_stuck() => "no eligible daemon".to_owned(),
            _ => position,
        }
    }
}

/// How many of the jobs that were shown wait for which reason.
#[derive(Default)]
pub(super) struct Reasons(BTreeMap<String, u64>);

impl Reasons {
    pub(super) fn count(&mut self, jobs: &[JobDetails], queue: &Queue) {
        for why in jobs.iter().filter_map(|job| queue.why(job)).filter(WhyWaiting::is_stuck) {
            // Tags are text of users: they are kept on one line and cut.
            *self.0.entry(one_line(&why.to_string())).or_default() += 1;
        }
    }

    /// Tells them below the table.
    pub(super) fn tell(&self) {
        self.lines().iter().for_each(|line| note(line));
    }

    /// Those for which the most jobs wait, and how many wait for others.
    fn lines(&self) -> Vec<String> {
        const SHOWN: usize = 20;
        let mut reasons: Vec<_> = self.0.iter().collect();
        reasons.sort_by_key(|(_, jobs)| Reverse(**jobs));
        let others = reasons.split_off(reasons.len().min(SHOWN));
        let line = |(reason, jobs): (&String, &u64)| match jobs {
            1 => format!("1 job waits: {reason}"),
            jobs => format!("{jobs} jobs wait: {reason}"),
        };
        let mut lines: Vec<_> = reasons.into_iter().map(line).collect();
        if !others.is_empty() {
            let more: u64 = others.iter().map(|(_, jobs)| **jobs).sum();
            lines.push(format!("and {more} more, for {} other reasons", others.len()));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reasons_of_the_most_jobs_are_told_however_many_there_are() {
        let mut reasons: BTreeMap<_, _> = (10..35).map(|n| (format!("no daemon has n={n}"), 1)).collect();
        reasons.insert("no daemon has zone=b".to_owned(), 7);
        let lines = Reasons(reasons).lines();
        assert_eq!(lines.len(), 21);
        assert_eq!(lines[..2], ["7 jobs wait: no daemon has zone=b", "1 job waits: no daemon has n=10"]);
        assert_eq!(lines[20], "and 6 more, for 6 other reasons");
    }
}
