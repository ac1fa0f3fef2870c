//! Why jobs wait, beside those that are listed.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use indicatif::HumanDuration;
use serde::Serialize;
use time::OffsetDateTime;

use super::{error::CliError, output::note, resolve::OPERATOR, table::one_line};
use crate::{
    authz::{ReadJobs, ReadQueue},
    model::{ExpectedWait, JobDetails, JobId, OrganizationId, WhyWaiting},
    store::{
        PgConnection,
        jobs::STALE_INTERVAL,
        queue::{self, View},
    },
};

/// The window of the history that expected waits are computed from, and the most jobs of it (domain: expected wait).
pub(super) const WINDOW: Duration = Duration::from_hours(7 * 24);
pub(super) const SAMPLES: u32 = 4_000;

/// The queue, looked up when the first job needs it.
#[derive(Default)]
pub(super) struct Queue {
    view: Option<View>,
    waits: Option<HashMap<JobId, ExpectedWait>>,
}

impl Queue {
    /// Looks it up if one of the jobs has not ended. One round trip at most in all.
    pub(super) async fn look_up(
        &mut self,
        conn: &mut PgConnection,
        organization: OrganizationId,
        jobs: &[JobDetails],
        now: OffsetDateTime,
    ) -> Result<(), CliError> {
        if self.view.is_none() && jobs.iter().any(|details| details.job.completed_at.is_none()) {
            let (whole, read) = (ReadQueue::check(&OPERATOR)?, ReadJobs::check(&OPERATOR, organization)?);
            self.view = Some(queue::snapshot(conn, &whole, now, STALE_INTERVAL).await?.of(&read));
        }
        Ok(())
    }

    /// Computes the expected waits of these jobs, or of the whole queue. One round trip in all, for the history.
    pub(super) async fn expect(
        &mut self,
        conn: &mut PgConnection,
        organization: OrganizationId,
        jobs: Option<&[JobId]>,
    ) -> Result<(), CliError> {
        if let (Some(view), None) = (&self.view, &self.waits) {
            let permit = ReadJobs::check(&OPERATOR, organization)?;
            let history = queue::history(conn, &permit, view.at(), WINDOW, SAMPLES).await?;
            let waits = match jobs {
                Some(jobs) => view.expected_waits(jobs, &history),
                None => view.expected_waits(&view.jobs().collect::<Vec<_>>(), &history),
            };
            self.waits = Some(waits);
        }
        Ok(())
    }

    pub(super) const fn view(&self) -> Option<&View> {
        self.view.as_ref()
    }

    /// Why the job waits; `None` for one that does not.
    pub(super) fn why(&self, details: &JobDetails) -> Option<WhyWaiting> {
        self.view.as_ref().and_then(|queue| queue.why(details.job.id))
    }

    /// `None` for a job that does not wait or that is stuck, and without a history.
    pub(super) fn expected_wait(&self, job: JobId) -> Option<ExpectedWait> {
        self.waits.as_ref().and_then(|waits| waits.get(&job)).copied()
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

/// An expected wait for machines, in seconds.
#[derive(Serialize)]
pub(super) struct WaitJson {
    p10_seconds: f64,
    p50_seconds: f64,
    p90_seconds: f64,
    samples: usize,
    assumes: &'static str,
}

impl From<ExpectedWait> for WaitJson {
    fn from(wait: ExpectedWait) -> Self {
        Self {
            p10_seconds: wait.p10.as_secs_f64(),
            p50_seconds: wait.p50.as_secs_f64(),
            p90_seconds: wait.p90.as_secs_f64(),
            samples: wait.samples,
            assumes: ASSUMES,
        }
    }
}

/// The assumption behind an expected wait.
pub(super) const ASSUMES: &str = "people go on asking as in the last day";

/// `about 2m (40s to 5m)`
pub(super) fn in_words(wait: &ExpectedWait) -> String {
    let [p50, p10, p90] = [wait.p50, wait.p10, wait.p90].map(brief);
    if p10 == p90 { format!("about {p50}") } else { format!("about {p50} ({p10} to {p90})") }
}

/// One number and one unit.
pub(super) fn brief(length: Duration) -> String {
    format!("{:#}", HumanDuration(length))
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
