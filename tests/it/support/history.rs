//! Histories of a queue, made by a plain simulator of daemons that claim jobs.

use coderdb::sqlx::{self, PgConnection};
use fastrand::Rng;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{
    model::PREBUILDS,
    random_database::{self as rows, NOW, with},
    rows::id,
};

/// Templates 1 to so many, each of one of three tag sets.
const TEMPLATES: usize = 6;

/// A job of a history; times are milliseconds.
#[derive(Debug, Clone)]
pub struct Made {
    pub id: Uuid,
    pub template: usize,
    pub is_prebuild: bool,
    pub created: i64,
    pub service: i64,
    pub started: Option<i64>,
    pub daemon: usize,
}

impl Made {
    pub fn ended(&self) -> Option<i64> {
        self.started.map(|at| at + self.service)
    }
}

pub fn tag_set(template: usize) -> usize {
    template % 3
}

pub fn tags(set: usize) -> Value {
    match set {
        0 => json!({"scope": "organization", "owner": ""}),
        1 => json!({"scope": "organization", "owner": "", "gpu": "true"}),
        _ => json!({"scope": "organization", "owner": "", "env": "aws"}),
    }
}

/// What a daemon has, and the sets that it serves.
#[derive(Debug, Clone)]
pub struct Worker {
    pub tags: Value,
    pub serves: Vec<usize>,
}

/// Some days of an organization.
#[derive(Debug, Clone)]
pub struct World {
    pub workers: Vec<Worker>,
    /// In the order of their creation.
    pub jobs: Vec<Made>,
}

fn normal(rng: &mut Rng) -> f64 {
    (-2.0 * (1.0 - rng.f64()).ln()).sqrt() * (std::f64::consts::TAU * rng.f64()).cos()
}

#[expect(clippy::cast_possible_truncation, reason = "milliseconds")]
fn milliseconds(seconds: f64) -> i64 {
    (seconds * 1_000.0) as i64
}

impl World {
    /// Each template with a median and a spread of its own, log-normal; arrivals at random times. In a storm, the
    /// reconciler and people ask for much at once, in the middle.
    pub fn new(rng: &mut Rng, count: usize, is_storm: bool) -> Self {
        let mut workers = Vec::new();
        for _ in 0..rng.usize(2..8) {
            workers.push(Worker { tags: tags(0), serves: vec![0] });
        }
        for set in [1, 2] {
            for _ in 0..rng.usize(1..5) {
                workers.push(Worker { tags: tags(set), serves: vec![set] });
            }
        }
        for _ in 0..rng.usize(0..3) {
            let both = json!({"scope": "organization", "owner": "", "env": "aws", "gpu": "true"});
            workers.push(Worker { tags: both, serves: vec![1, 2] });
        }
        let medians: Vec<f64> = (0..TEMPLATES).map(|_| 15.0 * (3.0 * rng.f64()).exp()).collect();
        let sigmas: Vec<f64> = (0..TEMPLATES).map(|_| 0.1 + 0.7 * rng.f64()).collect();
        let mut jobs = Vec::new();
        for set in 0..3 {
            let templates: Vec<usize> = (0..TEMPLATES).filter(|template| tag_set(*template) == set).collect();
            let mean = |template: &usize| medians[*template] * (sigmas[*template].powi(2) / 2.0).exp();
            #[expect(clippy::cast_precision_loss, reason = "few")]
            let mean = templates.iter().map(mean).sum::<f64>() / templates.len() as f64;
            let able = workers.iter().filter(|worker| worker.serves.contains(&set));
            #[expect(clippy::cast_precision_loss, reason = "few")]
            let able: f64 = able.map(|worker| 1.0 / worker.serves.len() as f64).sum();
            let gap = mean / (able * (0.6 + 0.35 * rng.f64()));
            let (mut at, count) = (0.0, count / 3);
            let mut add = |rng: &mut Rng, at: f64, is_prebuild: bool| {
                let template = templates[rng.usize(..templates.len())];
                let service = medians[template] * (sigmas[template] * normal(rng)).exp();
                jobs.push(Made {
                    id: Uuid::from_u128(rng.u128(..)),
                    template,
                    is_prebuild,
                    created: milliseconds(at),
                    service: milliseconds(service).max(1),
                    started: None,
                    daemon: 0,
                });
            };
            for _ in 0..count {
                at -= gap * (1.0 - rng.f64()).ln();
                let is_prebuild = rng.f64() < 0.3;
                add(rng, at, is_prebuild);
            }
            if is_storm {
                let burst = at * (0.45 + 0.1 * rng.f64());
                for _ in 0..rng.usize(20..150) {
                    let is_prebuild = rng.f64() < 0.7;
                    let at = burst + gap * 3.0 * rng.f64();
                    add(rng, at, is_prebuild);
                }
            }
        }
        jobs.sort_by_key(|job| (job.created, job.id));
        let mut world = Self { workers, jobs };
        world.go_on(0, rng);
        world
    }

    /// Lets daemons claim what has not started, one event after the other (domain: claims).
    pub fn go_on(&mut self, begin: i64, rng: &mut Rng) {
        let mut free: Vec<i64> = vec![begin; self.workers.len()];
        for job in &self.jobs {
            if let Some(ended) = job.ended() {
                free[job.daemon] = free[job.daemon].max(ended);
            }
        }
        let mut left: Vec<usize> = (0..self.jobs.len()).filter(|n| self.jobs[*n].started.is_none()).collect();
        let (mut now, mut order) = (begin, (0..self.workers.len()).collect::<Vec<_>>());
        while !left.is_empty() {
            // Whichever asks first.
            rng.shuffle(&mut order);
            for daemon in order.iter().copied().filter(|daemon| free[*daemon] <= now).collect::<Vec<_>>() {
                let there = left.iter().copied().take_while(|n| self.jobs[*n].created <= now);
                let able = there.filter(|n| self.workers[daemon].serves.contains(&tag_set(self.jobs[*n].template)));
                let first = able.min_by_key(|n| (self.jobs[*n].is_prebuild, self.jobs[*n].created, self.jobs[*n].id));
                if let Some(first) = first {
                    (self.jobs[first].started, self.jobs[first].daemon) = (Some(now), daemon);
                    free[daemon] = now + self.jobs[first].service;
                    left.retain(|n| *n != first);
                }
            }
            let created = left.iter().map(|n| self.jobs[*n].created).find(|created| *created > now);
            let Some(next) = free.iter().copied().chain(created).filter(|at| *at > now).min() else { break };
            now = next;
        }
    }

    /// What was there at that moment.
    pub fn at(&self, moment: i64) -> Self {
        let mut jobs: Vec<Made> = self.jobs.iter().filter(|job| job.created <= moment).cloned().collect();
        for job in &mut jobs {
            job.started = job.started.filter(|at| *at <= moment);
        }
        Self { workers: self.workers.clone(), jobs }
    }

    /// Stores it as it is at that moment, in a database with `golden/rows.sql`.
    pub async fn store(&self, conn: &mut PgConnection, moment: i64) {
        sqlx::raw_sql(
            "DELETE FROM provisioner_jobs; DELETE FROM provisioner_daemons;
             SELECT add_template(n), add_version(n, n) FROM generate_series(2, 6) AS n
             WHERE NOT EXISTS (SELECT FROM templates WHERE id = u(n))",
        )
        .execute(&mut *conn)
        .await
        .expect("templates");
        let daemons: Vec<Value> = self
            .workers
            .iter()
            .enumerate()
            .map(|(n, worker)| {
                let row = rows::daemon(daemon_id(n), id(1), &format!("daemon-{n}"), &worker.tags);
                with(row, json!({"last_seen_at": rows::at(time(moment))}))
            })
            .collect();
        sqlx::query(
            "INSERT INTO provisioner_keys (id, created_at, organization_id, name, hashed_secret, tags)
             SELECT id, created_at, id, 'key', '', '{}' FROM organizations ON CONFLICT DO NOTHING",
        )
        .execute(&mut *conn)
        .await
        .expect("a key");
        rows::insert(conn, "provisioner_daemons", &daemons).await;
        let (mut jobs, mut builds) = (Vec::new(), Vec::new());
        for (n, job) in self.jobs.iter().enumerate() {
            let ended = job.ended().filter(|at| *at <= moment);
            let row = rows::job(job.id, id(1), if job.is_prebuild { PREBUILDS } else { id(1) });
            jobs.push(with(
                row,
                json!({
                    "created_at": rows::at(time(job.created)),
                    "started_at": job.started.map(|at| rows::at(time(at))),
                    "completed_at": ended.map(|at| rows::at(time(at))),
                    "worker_id": job.started.map(|_| daemon_id(job.daemon)),
                    "tags": tags(tag_set(job.template)),
                }),
            ));
            let template = id(u128::try_from(job.template + 1).expect("few"));
            builds.push(rows::build(job.id, id(1), template, job.id, i32::try_from(n + 1).expect("few")));
        }
        rows::insert(conn, "provisioner_jobs", &jobs).await;
        rows::insert(conn, "workspace_builds", &builds).await;
    }
}

fn daemon_id(n: usize) -> Uuid {
    id(u128::try_from(n + 1).expect("few"))
}

pub fn time(moment: i64) -> OffsetDateTime {
    NOW - Duration::days(3) + Duration::milliseconds(moment)
}
