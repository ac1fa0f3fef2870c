//! A simulation of daemons that claim jobs in the queue order (domain: claims; expected wait).

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

/// A job that arrives. Times are microseconds after a beginning.
#[derive(Clone, Copy)]
pub(super) struct Arrival {
    pub(super) at: i64,
    pub(super) kind: usize,
    pub(super) is_prebuild: bool,
    /// How long it keeps its daemon.
    pub(super) service: i64,
}

/// Which groups of equal daemons take which kinds of jobs.
pub(super) struct Groups {
    /// By group: which kinds of jobs it takes.
    takes: Vec<Vec<usize>>,
    /// By kind: which groups take it.
    served_by: Vec<Vec<usize>>,
}

/// The result of a replay.
pub(super) struct Replayed {
    /// By arrival: when it started; `None` for never.
    pub(super) starts: Vec<Option<i64>>,
    /// By group: how long its daemons worked until the end.
    pub(super) worked: Vec<i64>,
}

impl Groups {
    pub(super) fn new(takes: Vec<Vec<usize>>, kinds: usize) -> Self {
        let mut served_by = vec![Vec::new(); kinds];
        for (group, takes) in takes.iter().enumerate() {
            for kind in takes {
                served_by[*kind].push(group);
            }
        }
        Self { takes, served_by }
    }

    /// Plays the arrivals, which are in the order of time, and at the same time in the queue order. `idle` says how many
    /// daemons of each group are idle at the beginning, `busy` until when one of which group works. Work after `end` is not
    /// counted.
    pub(super) fn replay(
        &self,
        idle: &[usize],
        busy: impl IntoIterator<Item = (i64, usize)>,
        arrivals: &[Arrival],
        end: i64,
    ) -> Replayed {
        let mut state = State {
            groups: self,
            arrivals,
            end,
            idle: idle.to_vec(),
            ends: busy.into_iter().map(Reverse).collect(),
            queues: self.served_by.iter().map(|_| Default::default()).collect(),
            replayed: Replayed { starts: vec![None; arrivals.len()], worked: vec![0; self.takes.len()] },
        };
        for (job, arrival) in arrivals.iter().enumerate() {
            state.until(arrival.at);
            state.arrive(job);
        }
        state.until(i64::MAX);
        state.replayed
    }
}

struct State<'a> {
    groups: &'a Groups,
    arrivals: &'a [Arrival],
    end: i64,
    idle: Vec<usize>,
    /// When a daemon of which group is free again.
    ends: BinaryHeap<Reverse<(i64, usize)>>,
    /// By kind: the jobs of people that wait, and the prebuilds.
    queues: Vec<[VecDeque<usize>; 2]>,
    replayed: Replayed,
}

impl State<'_> {
    /// What happens until then.
    fn until(&mut self, at: i64) {
        while let Some(Reverse((free, group))) = self.ends.peek().copied().filter(|Reverse((free, _))| *free <= at) {
            self.ends.pop();
            match self.claim(group) {
                Some(job) => self.start(job, group, free),
                None => self.idle[group] += 1,
            }
        }
    }

    /// An idle daemon of the group that has the most of them claims the job; in reality any of them may.
    fn arrive(&mut self, job: usize) {
        let Arrival { at, kind, is_prebuild, .. } = self.arrivals[job];
        let groups = self.groups.served_by[kind].iter().copied().filter(|group| self.idle[*group] > 0);
        match groups.max_by_key(|group| self.idle[*group]) {
            Some(group) => {
                self.idle[group] -= 1;
                self.start(job, group, at);
            }
            None => self.queues[kind][usize::from(is_prebuild)].push_back(job),
        }
    }

    /// The first in the queue order that the group takes.
    fn claim(&mut self, group: usize) -> Option<usize> {
        let takes = &self.groups.takes[group];
        [0, 1].into_iter().find_map(|class| {
            let first = |kind: &usize| Some((*self.queues[*kind][class].front()?, *kind));
            let (_, kind) = takes.iter().filter_map(first).min()?;
            self.queues[kind][class].pop_front()
        })
    }

    fn start(&mut self, job: usize, group: usize, at: i64) {
        let free = at.saturating_add(self.arrivals[job].service);
        self.replayed.starts[job] = Some(at);
        self.replayed.worked[group] += free.min(self.end).saturating_sub(at).max(0);
        self.ends.push(Reverse((free, group)));
    }
}
