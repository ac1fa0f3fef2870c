//! Positions by tags (domain: positions).

use std::time::Duration;

use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::tags::{jsonb_equal, tagset_contains};
use super::{Branch, DaemonRow, JobRow, Model, number};

/// A job that was asked for by its id, with its position by tags (domain: positions).
#[derive(Debug, Clone)]
pub struct QueuedJob<'a> {
    pub job: &'a JobRow,
    pub queue_position: i64,
    pub queue_size: i64,
}

impl Model {
    pub fn by_ids_with_queue_position(
        &self,
        ids: &[Uuid],
        now: OffsetDateTime,
        stale_interval: Duration,
    ) -> Vec<QueuedJob<'_>> {
        // Ids that name nothing are left out.
        let mut requested: Vec<&JobRow> = self.provisioner_jobs.iter().filter(|job| ids.contains(&job.id)).collect();
        requested.sort_by_key(|job| (job.created_at, job.id));

        // 1. What waits, in all organizations.
        let pending: Vec<&JobRow> = self.provisioner_jobs.iter().filter(|job| job.status() == "pending").collect();

        // 2. The distinct tag sets of the daemons that are online.
        let online: Vec<&DaemonRow> = self
            .provisioner_daemons
            .iter()
            .filter(|daemon| {
                let Some(seen) = daemon.last_seen_at else {
                    self.reached.note(Branch::NeverSeen, true);
                    return false;
                };
                let ago = now - seen;
                let online = ago <= stale_interval;
                self.reached.note(Branch::Offline, !online);
                self.reached.note(Branch::BoundaryOnline, ago == stale_interval);
                online
            })
            .collect();
        let mut tag_sets: Vec<&Value> = Vec::new();
        for daemon in &online {
            let known = tag_sets.iter().any(|tags| jsonb_equal(tags, &daemon.tags));
            self.reached.note(Branch::SharedTags, known);
            if !known {
                tag_sets.push(&daemon.tags);
            }
        }

        // 3. Those that can serve one of the jobs that were asked for.
        let relevant: Vec<&Value> =
            tag_sets.into_iter().filter(|tags| requested.iter().any(|job| tagset_contains(tags, &job.tags))).collect();
        self.reached.note(
            Branch::IrrelevantTags,
            !requested.is_empty() && online.iter().any(|d| !relevant.iter().any(|tags| jsonb_equal(tags, &d.tags))),
        );

        // 4. The queue of each: what waits and it can serve.
        let queues: Vec<(&Value, Vec<&JobRow>)> = relevant
            .into_iter()
            .map(|tags| {
                let mut queue: Vec<&JobRow> =
                    pending.iter().copied().filter(|job| tagset_contains(tags, &job.tags)).collect();
                queue.sort_by_key(|job| job.queue_order());
                let behind = |pair: &[&JobRow]| pair[0].created_at > pair[1].created_at;
                self.reached.note(Branch::ByIdsBehindPerson, queue.windows(2).any(behind));
                (tags, queue)
            })
            .collect();

        // 5. The best position and the longest queue.
        requested
            .into_iter()
            .map(|job| {
                let positions: Vec<(i64, i64)> = queues
                    .iter()
                    .filter_map(|(_, queue)| {
                        let index = queue.iter().position(|queued| queued.id == job.id)?;
                        Some((number(index) + 1, number(queue.len())))
                    })
                    .collect();
                let queue_position = positions.iter().map(|position| position.0).min().unwrap_or(0);
                let queue_size = positions.iter().map(|position| position.1).max().unwrap_or(0);
                self.note_positions(job, &online, &positions);
                QueuedJob { job, queue_position, queue_size }
            })
            .collect()
    }

    pub fn note_positions(&self, job: &JobRow, online: &[&DaemonRow], positions: &[(i64, i64)]) {
        let best = positions.iter().map(|position| position.0).min().unwrap_or(0);
        let largest = positions.iter().map(|position| position.1).max().unwrap_or(0);
        let serving: Vec<_> = online.iter().filter(|daemon| tagset_contains(&daemon.tags, &job.tags)).collect();
        let ranked = !positions.is_empty();
        self.reached.note(Branch::NoTagSet, !ranked && job.status() == "pending");
        self.reached.note(Branch::SeveralTagSets, positions.len() > 1);
        self.reached.note(Branch::PositionAndSizeDiffer, ranked && !positions.contains(&(best, largest)));
        self.reached.note(
            Branch::RankedForeign,
            ranked && serving.iter().all(|daemon| daemon.organization_id != job.organization_id),
        );
        self.reached.note(
            Branch::RankedOtherProvisioner,
            ranked && serving.iter().all(|daemon| !daemon.provisioners.contains(&job.provisioner)),
        );
        self.reached.note(Branch::RankedNotListed, ranked && !job.waits_in_listing());
    }
}
