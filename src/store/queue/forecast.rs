//! Expected waits, by simulation of the queue (domain: expected wait).

use std::{collections::HashMap, time::Duration};

use fastrand::Rng;

use super::{
    History, Kind, State, View,
    fleet::{Fleet, Group},
    history::{Class, between, residual, service},
    replay::{Arrival, Groups},
};
use crate::model::{Ahead, ExpectedWait, JobId, Label, OrganizationId, ProvisionerType, WhyWaiting};

/// The most runs: more would make the percentiles little better.
const MOST_RUNS: usize = 400;
/// The fewest runs from which a tenth can be told.
const LEAST_RUNS: usize = 40;
/// The most job starts in all runs, which take about a second.
const STARTS: usize = 4_000_000;

/// The window from which the rate of new jobs is taken, and the longest time that they keep arriving in a run.
const LATELY: Duration = Duration::from_hours(24);

/// Recent jobs of people: the kind of each, and the service times of its class.
#[derive(Default)]
struct Lately<'h> {
    jobs: Vec<(usize, &'h [i64])>,
    /// The length of the window in microseconds.
    span: i64,
}

/// Adds arrivals of such jobs between two moments, at their mean rate.
fn go_on(arrivals: &mut Vec<Arrival>, lately: &Lately<'_>, (from, until): (i64, i64), rng: &mut Rng) {
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let gap = lately.span as f64 / lately.jobs.len() as f64;
    let mut at = from;
    loop {
        #[expect(clippy::cast_possible_truncation, reason = "an estimate")]
        let next = (-(1.0 - rng.f64()).ln() * gap) as i64;
        at += next.max(1);
        if at >= until {
            break;
        }
        let (kind, samples) = lately.jobs[rng.usize(..lately.jobs.len())];
        arrivals.push(Arrival { at, kind, is_prebuild: false, service: service(samples, rng) });
    }
}

/// The daemons of an organization that are online, and the kinds of jobs that they take; by numbers of their own.
struct Online {
    groups: Vec<usize>,
    takes: Vec<Vec<usize>>,
    kinds: HashMap<(String, Label<ProvisionerType>), Option<usize>>,
    count: usize,
}

impl Online {
    fn new(fleet: &Fleet, organization: OrganizationId) -> Self {
        let is_here = |group: &Group| group.organization == organization && group.counts.online() > 0;
        let groups: Vec<usize> = (0..fleet.groups().len()).filter(|group| is_here(&fleet.groups()[*group])).collect();
        Self { takes: vec![Vec::new(); groups.len()], groups, kinds: HashMap::new(), count: 0 }
    }

    /// The number of a kind; `None` for one that no daemon takes.
    fn kind(&mut self, fleet: &Fleet, kind: &Kind) -> Option<usize> {
        let known = self.kinds.entry((kind.tags.to_string(), kind.provisioner.clone()));
        *known.or_insert_with(|| {
            let takes = |group: &usize| kind.served_by.contains(group) && fleet.groups()[*group].may_take(kind);
            let able: Vec<usize> = (0..self.groups.len()).filter(|n| takes(&self.groups[*n])).collect();
            for group in &able {
                self.takes[*group].push(self.count);
            }
            self.count += usize::from(!able.is_empty());
            (!able.is_empty()).then(|| self.count - 1)
        })
    }
}

impl View {
    /// How much longer these jobs wait, by repeated simulation of the queue from the moment of the snapshot on, with service
    /// times of recorded jobs and with new jobs of people at the rate of the last day (domain: expected wait). The same
    /// snapshot and history give the same answer. Jobs that do not wait or that are stuck are left out; all are while no
    /// job has ended. Takes one or two seconds of one processor for 50,000 waiting jobs, and in proportion fewer for fewer;
    /// does not use the database.
    #[must_use]
    pub fn expected_waits(&self, jobs: &[JobId], history: &History) -> HashMap<JobId, ExpectedWait> {
        let inner = &*self.snapshot.0;
        if !self.shows(history.organization) || history.samples() == 0 {
            return HashMap::new();
        }
        let mut online = Online::new(&inner.fleet, history.organization);
        let is_here = |kind: &Kind| kind.organization == history.organization;
        let kinds: Vec<_> =
            inner.kinds.iter().map(|kind| is_here(kind).then(|| online.kind(&inner.fleet, kind)).flatten()).collect();
        let is_asked = |n: &usize| kinds[inner.jobs[*n].kind].is_some() && inner.jobs[*n].state != State::Canceling;
        let asked: Vec<usize> = jobs.iter().filter_map(|job| self.find(*job)).filter(is_asked).collect();
        let Some(last) = asked.iter().max() else { return HashMap::new() };
        // Prebuilds alone wait longer because of what people ask for meanwhile.
        let is_prebuild = inner.jobs[*last].is_prebuild;
        let lately = if is_prebuild { self.lately(&mut online, history) } else { Lately::default() };
        // Without them, what comes behind the last that is asked for keeps it from nothing; with them, it may keep a daemon
        // from one of them, which then takes another daemon from a prebuild.
        let end = if lately.jobs.is_empty() { last + 1 } else { inner.jobs.len() };
        let (mut arrivals, mut samples, mut position) = (Vec::new(), Vec::new(), HashMap::new());
        for (n, job) in inner.jobs[..end].iter().enumerate() {
            let Some(kind) = kinds[job.kind] else { continue };
            position.insert(n, arrivals.len());
            arrivals.push(Arrival { at: 0, kind, is_prebuild: job.is_prebuild, service: 0 });
            let class = history.class(job.id).cloned();
            let class = class.unwrap_or_else(|| Class::of_tags(&inner.kinds[job.kind].tags));
            samples.push(history.samples.of(&class));
        }
        let working = self.working(&online.groups, history);
        let idle: Vec<usize> =
            online.groups.iter().map(|group| count_of(inner.fleet.groups()[*group].counts.idle)).collect();
        let groups = Groups::new(online.takes, online.count);
        let waiting = arrivals.len();
        let replays = if lately.jobs.is_empty() { 1 } else { 4 };
        let runs = (STARTS / replays / (waiting + lately.jobs.len())).clamp(LEAST_RUNS, MOST_RUNS);
        let mut waits: Vec<Vec<i64>> = vec![Vec::with_capacity(runs); asked.len()];
        let mut rng = Rng::with_seed(0);
        for _ in 0..runs {
            arrivals.truncate(waiting);
            for (arrival, samples) in arrivals.iter_mut().zip(&samples) {
                arrival.service = service(samples, &mut rng);
            }
            let busy: Vec<_> = working
                .iter()
                .map(|(group, samples, elapsed)| (residual(samples, *elapsed, &mut rng), *group))
                .collect();
            let mut starts = groups.replay(&idle, busy.iter().copied(), &arrivals, 0).starts;
            // New jobs of people arrive until the last of the asked jobs has started.
            let mut until = 0;
            while until < lately.span && !lately.jobs.is_empty() {
                let last = asked.iter().filter_map(|n| starts[position[n]]).max().unwrap_or(0);
                if last <= until {
                    break;
                }
                let next = last.saturating_add(last / 2).min(lately.span);
                go_on(&mut arrivals, &lately, (until, next), &mut rng);
                until = next;
                starts = groups.replay(&idle, busy.iter().copied(), &arrivals, 0).starts;
            }
            for (waits, n) in waits.iter_mut().zip(&asked) {
                waits.extend(starts[position[n]]);
            }
        }
        let expected = |waits: &mut Vec<i64>| {
            waits.sort_unstable();
            let [p10, p50, p90] = [0.1, 0.5, 0.9].map(|part| quantile(waits, part));
            Some(ExpectedWait { p50: p50?, p10: p10?, p90: p90?, samples: history.samples() })
        };
        let expected = waits.iter_mut().zip(&asked).map(|(waits, n)| Some((inner.jobs[*n].id, expected(waits)?)));
        expected.flatten().collect()
    }

    /// What people asked for in the last day, or in the part of it that is recorded.
    fn lately<'h>(&self, online: &mut Online, history: &'h History) -> Lately<'h> {
        let inner = &*self.snapshot.0;
        let since = history.since.max(inner.at - LATELY);
        let jobs: Vec<_> = history.jobs.iter().filter(|job| job.created_at >= since).collect();
        let span = jobs.first().map_or(0, |first| between(first.created_at, inner.at));
        let of_people = jobs.into_iter().filter(|job| !job.is_prebuild);
        let taken = of_people.filter_map(|job| {
            let kind = online.kind(&inner.fleet, &job.kind(history, &inner.fleet))?;
            Some((kind, history.samples.of(&job.class)))
        });
        Lately { jobs: taken.collect(), span }
    }

    /// The daemons of these groups that work: the number of the group, how long jobs take like the one that it works on, and
    /// for how long it has worked.
    fn working<'h>(&self, groups: &[usize], history: &'h History) -> Vec<(usize, &'h [i64], i64)> {
        let inner = &*self.snapshot.0;
        let is_lost =
            |id| matches!(inner.taken.get(id), Some((_, WhyWaiting::DaemonGone | WhyWaiting::DaemonSilent { .. })));
        let mut working = Vec::new();
        for (number, group) in groups.iter().enumerate() {
            let group = &inner.fleet.groups()[*group];
            let here = history.jobs.iter().filter_map(|job| {
                let started_at = job.started_at.filter(|_| job.service.is_none() && !is_lost(&job.id))?;
                let (provisioners, tags) = job.worker.as_ref()?;
                let is_of_group = *provisioners == group.provisioners && *tags == group.tags;
                is_of_group.then(|| (number, history.samples.of(&job.class), between(started_at, inner.at)))
            });
            // A daemon that is busy by now, but with nothing that the history has, has just begun.
            let begun = (number, history.samples.all(), 0);
            working.extend(here.chain(std::iter::repeat(begun)).take(count_of(group.counts.busy)));
        }
        working
    }

    /// What is ahead of a job at the daemons that are online and can take it; `None` for one that no daemon could claim.
    #[must_use]
    pub fn ahead(&self, job: JobId) -> Option<Ahead> {
        let inner = &*self.snapshot.0;
        let n = self.find(job)?;
        let able = |kind: &Kind| -> Vec<usize> {
            let groups = inner.fleet.groups();
            let takes = |group: &&usize| groups[**group].may_take(kind) && groups[**group].counts.online() > 0;
            kind.served_by.iter().filter(takes).copied().collect()
        };
        let mine = able(&inner.kinds[inner.jobs[n].kind]);
        let meets: Vec<bool> =
            inner.kinds.iter().map(|kind| able(kind).iter().any(|group| mine.contains(group))).collect();
        let mut ahead = Ahead::default();
        for job in inner.jobs[..n].iter().filter(|job| meets[job.kind]) {
            *(if job.is_prebuild { &mut ahead.prebuilds } else { &mut ahead.people }) += 1;
        }
        Some(ahead)
    }
}

pub(super) fn count_of(daemons: i64) -> usize {
    usize::try_from(daemons).unwrap_or(0)
}

/// What this part of the values, which are in ascending order, does not exceed.
pub(super) fn quantile(sorted: &[i64], part: f64) -> Option<Duration> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss, reason = "a rank")]
    let rank = (sorted.len() as f64 * part).ceil() as usize;
    let value = sorted.get(rank.max(1) - 1)?;
    Some(Duration::from_micros(u64::try_from(*value).unwrap_or(0)))
}
