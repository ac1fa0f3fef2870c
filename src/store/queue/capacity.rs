//! Capacity, by replay of recorded jobs (domain: capacity).

use std::{collections::HashMap, time::Duration};

use fastrand::Rng;
use serde_json::Value;
use time::OffsetDateTime;

use super::{
    History, Kind, View,
    forecast::{count_of, quantile},
    history::{Recorded, between, residual, service},
    replay::{Arrival, Groups},
};
use crate::model::{Capacity, FurtherDaemons, tags_serve};

/// The jobs of the history as they arrived.
struct Record<'h> {
    jobs: &'h [Recorded],
    /// When the first of them was created, which is what times are counted from.
    since: OffsetDateTime,
    kinds: Vec<Kind>,
    arrivals: Vec<Arrival>,
    /// The moment of the snapshot.
    end: i64,
}

impl<'h> Record<'h> {
    fn new(history: &'h History, view: &View) -> Self {
        let inner = &*view.snapshot.0;
        let mut rng = Rng::with_seed(0);
        let (mut kinds, mut known) = (Vec::new(), HashMap::new());
        let first = history.jobs.iter().position(|job| job.created_at >= history.since);
        let jobs = first.map_or(&[][..], |first| &history.jobs[first..]);
        let since = jobs.first().map_or(inner.at, |job| job.created_at);
        let arrivals = jobs.iter().map(|job| {
            let kind = *known.entry((job.provisioner.clone(), job.tags.to_string())).or_insert_with(|| {
                kinds.push(job.kind(history, &inner.fleet));
                kinds.len() - 1
            });
            let samples = history.samples.of(&job.class);
            // What has not ended takes as long as others do.
            let service = job.service.unwrap_or_else(|| match job.started_at {
                Some(started_at) => {
                    let elapsed = between(started_at, inner.at);
                    elapsed.saturating_add(residual(samples, elapsed, &mut rng))
                }
                None => service(samples, &mut rng),
            });
            Arrival { at: between(since, job.created_at), kind, is_prebuild: job.is_prebuild, service }
        });
        let arrivals = arrivals.collect();
        Self { jobs, since, kinds, arrivals, end: between(since, inner.at) }
    }

    /// Within which time 95 % of the jobs of a kind have started.
    fn wait_p95(&self, kind: usize, starts: &[Option<i64>]) -> Option<Duration> {
        p95(self.arrivals.iter().zip(starts.iter().copied()).filter(|(arrival, _)| arrival.kind == kind))
    }

    /// The smallest number of daemons, if they take nothing but this kind, for 95 % to start within the target.
    fn needed(&self, kind: usize, target: Duration) -> usize {
        let of_kind = self.arrivals.iter().filter(|arrival| arrival.kind == kind);
        let alone: Vec<_> = of_kind.map(|arrival| Arrival { kind: 0, ..*arrival }).collect();
        let groups = Groups::new(vec![vec![0]], 1);
        let is_enough = |daemons: usize| {
            let starts = groups.replay(&[daemons], [], &alone, self.end).starts;
            p95(alone.iter().zip(starts)).is_none_or(|p95| p95 <= target)
        };
        let mut enough = 1;
        while !is_enough(enough) && enough < alone.len() {
            enough *= 2;
        }
        let (mut low, mut high) = (enough / 2 + 1, enough);
        while low < high {
            let middle = usize::midpoint(low, high);
            if is_enough(middle) { high = middle } else { low = middle + 1 }
        }
        high
    }
}

/// Within which time 95 % have started of those that people asked for, or of the prebuilds if these are all; a job that
/// never starts takes for ever. `None` without jobs.
fn p95<'a>(jobs: impl Iterator<Item = (&'a Arrival, Option<i64>)>) -> Option<Duration> {
    let (prebuilds, people): (Vec<_>, Vec<_>) = jobs.partition(|(arrival, _)| arrival.is_prebuild);
    let jobs = if people.is_empty() { prebuilds } else { people };
    let wait = |(arrival, start): (&Arrival, Option<i64>)| start.map_or(i64::MAX, |start| (start - arrival.at).max(0));
    let mut waits: Vec<i64> = jobs.into_iter().map(wait).collect();
    waits.sort_unstable();
    quantile(&waits, 0.95)
}

impl View {
    /// What the jobs of each tag set and provisioner need for 95 % of those that people asked for to start within the
    /// target, by playing the jobs of the history again: those with the most jobs first (domain: capacity). Costs some
    /// twenty passes over the history; nothing of the database.
    #[must_use]
    pub fn capacity(&self, history: &History, target: Duration, further: &[FurtherDaemons]) -> Vec<Capacity> {
        if !self.shows(history.organization) {
            return Vec::new();
        }
        let inner = &*self.snapshot.0;
        let record = Record::new(history, self);
        let fleet = inner.fleet.groups();
        let mut takes = vec![Vec::new(); fleet.len()];
        for (n, kind) in record.kinds.iter().enumerate() {
            for group in kind.served_by.iter().filter(|group| fleet[**group].may_take(kind)) {
                takes[*group].push(n);
            }
        }
        let daemons: Vec<usize> = fleet.iter().map(|group| count_of(group.counts.online())).collect();
        let now = Groups::new(takes.clone(), record.kinds.len()).replay(&daemons, [], &record.arrivals, record.end);
        let (mut more, mut takes) = (daemons.clone(), takes);
        for further in further {
            let tags = Value::from_iter(further.tags.0.clone());
            takes.push((0..record.kinds.len()).filter(|kind| tags_serve(&tags, &record.kinds[*kind].tags)).collect());
            more.push(further.count as usize);
        }
        let then = Groups::new(takes.clone(), record.kinds.len()).replay(&more, [], &record.arrivals, record.end);
        let started = |kind: usize| {
            let starts = record.jobs.iter().map(|job| job.started_at.map(|at| between(record.since, at)));
            let started = record.arrivals.iter().zip(starts).filter(|(_, start)| start.is_some());
            p95(started.filter(|(arrival, _)| arrival.kind == kind))
        };
        let numbered = record.kinds.iter().enumerate();
        let mut all: Vec<Capacity> = numbered
            .map(|(n, kind)| {
                let of_kind = |(_, arrival): &(&Recorded, &Arrival)| arrival.kind == n;
                let jobs = || record.jobs.iter().zip(&record.arrivals).filter(of_kind).map(|(job, _)| job);
                let mut services: Vec<i64> = jobs().filter_map(|job| job.service).collect();
                services.sort_unstable();
                let able = || (0..takes.len()).filter(|group| takes[*group].contains(&n));
                let [count, more] = [&daemons, &more]
                    .map(|daemons| able().map(|group| daemons.get(group).copied().unwrap_or(0)).sum::<usize>());
                let worked: i64 = able().filter_map(|group| now.worked.get(group)).sum();
                #[expect(clippy::cast_precision_loss, reason = "a share")]
                let (busy, per_hour) = {
                    let span = record.end.max(1) as f64;
                    (worked as f64 / (span * count as f64), jobs().count() as f64 / (span / 3.6e9))
                };
                Capacity {
                    organization_id: kind.organization,
                    tags: Value::clone(&kind.tags).into(),
                    provisioner: kind.provisioner.clone(),
                    since: record.since,
                    jobs: jobs().count(),
                    prebuilds: jobs().filter(|job| job.is_prebuild).count(),
                    jobs_per_hour: per_hour,
                    service_p50: quantile(&services, 0.5),
                    service_p95: quantile(&services, 0.95),
                    busy: (count > 0).then_some(busy),
                    daemons: count,
                    needed: record.needed(n, target),
                    recorded_wait_p95: started(n),
                    wait_p95: record.wait_p95(n, &now.starts).filter(|_| count > 0),
                    further_wait_p95: record.wait_p95(n, &then.starts).filter(|_| more > 0),
                }
            })
            .collect();
        all.sort_by(|a, b| (b.jobs, &a.tags, &a.provisioner).cmp(&(a.jobs, &b.tags, &b.provisioner)));
        all
    }
}
