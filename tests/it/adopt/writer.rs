//! Somebody who writes as Coder's own server does.

use std::{
    borrow::Cow,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use coderdb::sqlx::{self, AssertSqlSafe, PgConnection, error::DatabaseError};
use tokio::task::JoinHandle;

use super::run;
use crate::support::Database;

/// Four sessions, each with a statement every 20 ms: 200 in a second.
const SESSIONS: usize = 4;
const PACE: Duration = Duration::from_millis(20);

/// What a session does, in turn. Each line is one transaction; `{n}` is another number each time.
const WORK: &[&str] = &[
    // A build that is asked for.
    "BEGIN; INSERT INTO provisioner_jobs (id, created_at, updated_at, organization_id, initiator_id, provisioner, storage_method, type, input, file_id, tags)
        VALUES (md5('job {n}')::uuid, now(), now(), md5('organization')::uuid, md5('user')::uuid, 'terraform', 'file', 'workspace_build',
            jsonb_build_object('workspace_build_id', md5('build {n}')::uuid), md5('file')::uuid, '{\"scope\": \"organization\", \"owner\": \"\"}');
     INSERT INTO workspace_builds (id, created_at, updated_at, workspace_id, template_version_id, build_number, transition, initiator_id, job_id)
        SELECT md5('build {n}')::uuid, now(), now(), md5('workspace')::uuid, md5('version')::uuid, coalesce(max(build_number), 0) + 1, 'start',
            md5('user')::uuid, md5('job {n}')::uuid FROM workspace_builds WHERE workspace_id = md5('workspace')::uuid; COMMIT",
    // A daemon takes a job.
    "UPDATE provisioner_jobs SET started_at = now(), updated_at = now(), worker_id = md5('daemon {session}')::uuid WHERE id = (
        SELECT id FROM provisioner_jobs WHERE started_at IS NULL AND canceled_at IS NULL AND completed_at IS NULL
            AND organization_id = md5('organization')::uuid AND provisioner_tagset_contains('{\"scope\": \"organization\", \"owner\": \"\"}'::tagset, tags::tagset)
        ORDER BY created_at FOR UPDATE SKIP LOCKED LIMIT 1)",
    "UPDATE provisioner_jobs SET updated_at = now() WHERE worker_id = md5('daemon {session}')::uuid AND completed_at IS NULL",
    "UPDATE provisioner_daemons SET last_seen_at = now() WHERE id = md5('daemon {session}')::uuid",
    "BEGIN; INSERT INTO provisioner_job_logs (job_id, created_at, source, level, stage, output)
        SELECT id, now(), 'provisioner', 'info', 'apply', 'a line' FROM provisioner_jobs
        WHERE worker_id = md5('daemon {session}')::uuid AND completed_at IS NULL LIMIT 1;
     UPDATE provisioner_jobs SET logs_length = logs_length + 6 WHERE worker_id = md5('daemon {session}')::uuid AND completed_at IS NULL; COMMIT",
    // A quota commit.
    "BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT sum(b.daily_cost) FROM (SELECT DISTINCT ON (w.id) b.daily_cost FROM workspaces AS w
        INNER JOIN workspace_builds AS b ON b.workspace_id = w.id WHERE w.owner_id = md5('user')::uuid AND NOT w.deleted
        ORDER BY w.id, b.build_number DESC) AS b;
     UPDATE workspace_builds SET daily_cost = 1 WHERE job_id = (SELECT id FROM provisioner_jobs
        WHERE worker_id = md5('daemon {session}')::uuid AND completed_at IS NULL LIMIT 1); COMMIT",
    "UPDATE provisioner_jobs SET canceled_at = now(), completed_at = CASE WHEN started_at IS NULL THEN now() END WHERE id = (
        SELECT id FROM provisioner_jobs WHERE started_at IS NULL AND completed_at IS NULL AND canceled_at IS NULL ORDER BY id DESC LIMIT 1)",
    "UPDATE provisioner_jobs SET completed_at = now(), updated_at = now() WHERE worker_id = md5('daemon {session}')::uuid AND completed_at IS NULL",
    "BEGIN; INSERT INTO organizations (id, name, description, created_at, updated_at, is_default, display_name, icon)
        VALUES (md5('organization {n}')::uuid, 'short-{n}', '', now(), now(), false, '', '');
     DELETE FROM organizations WHERE id = md5('organization {n}')::uuid; COMMIT",
];

/// What those sessions need.
const WORLD: &str = "
    INSERT INTO organizations (id, name, description, created_at, updated_at, is_default, display_name, icon)
        VALUES (md5('organization')::uuid, 'writers', '', now(), now(), false, '', '');
    INSERT INTO users (id, email, username, hashed_password, created_at, updated_at, status, rbac_roles)
        VALUES (md5('user')::uuid, 'writer@example.com', 'writer', '', now(), now(), 'active', '{}');
    INSERT INTO templates (id, created_at, updated_at, organization_id, name, provisioner, active_version_id, created_by, description)
        VALUES (md5('template')::uuid, now(), now(), md5('organization')::uuid, 'template', 'terraform', md5('version')::uuid, md5('user')::uuid, '');
    INSERT INTO provisioner_jobs (id, created_at, updated_at, started_at, completed_at, organization_id, initiator_id, provisioner, storage_method, type, input, file_id)
        VALUES (md5('import')::uuid, now(), now(), now(), now(), md5('organization')::uuid, md5('user')::uuid, 'terraform', 'file', 'template_version_import', '{}', md5('file')::uuid);
    INSERT INTO template_versions (id, template_id, organization_id, created_at, updated_at, name, readme, job_id, created_by)
        VALUES (md5('version')::uuid, md5('template')::uuid, md5('organization')::uuid, now(), now(), 'v1', '', md5('import')::uuid, md5('user')::uuid);
    INSERT INTO workspaces (id, created_at, updated_at, owner_id, organization_id, template_id, name)
        VALUES (md5('workspace')::uuid, now(), now(), md5('user')::uuid, md5('organization')::uuid, md5('template')::uuid, 'workspace');
    INSERT INTO provisioner_keys (id, created_at, organization_id, name, hashed_secret, tags)
        VALUES (md5('key')::uuid, now(), md5('organization')::uuid, 'key', '', '{}');
    INSERT INTO provisioner_daemons (id, created_at, name, provisioners, replica_id, version, api_version, organization_id, key_id)
        SELECT md5('daemon ' || n)::uuid, now(), 'daemon-' || n, '{terraform}', NULL, '', '1.0', md5('organization')::uuid, md5('key')::uuid
        FROM generate_series(0, 3) AS n";

pub(super) struct Writer {
    stop: Arc<AtomicBool>,
    taken: Arc<Mutex<Vec<Duration>>>,
    sessions: Vec<JoinHandle<u64>>,
}

impl Writer {
    pub(super) async fn start(database: &Database) -> Self {
        run(&mut database.connect().await, WORLD).await;
        let (stop, taken) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let mut sessions = Vec::new();
        for session in 0..SESSIONS {
            let conn = database.connect().await;
            let (stop, taken) = (Arc::clone(&stop), Arc::clone(&taken));
            sessions.push(tokio::spawn(write(conn, session, stop, taken)));
        }
        Self { stop, taken, sessions }
    }

    /// How long a transaction has taken since the last look: the median, and the longest.
    pub(super) fn taken(&self) -> (Duration, Duration) {
        let mut taken = std::mem::take(&mut *self.taken.lock().expect("no panic"));
        taken.sort_unstable();
        (taken.get(taken.len() / 2).copied().unwrap_or_default(), taken.last().copied().unwrap_or_default())
    }

    /// Ends; how much was done. Whatever was refused has failed the test.
    pub(super) async fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let mut done = 0;
        for session in self.sessions {
            done += session.await.expect("no error of the writer");
        }
        done
    }
}

async fn write(mut conn: PgConnection, session: usize, stop: Arc<AtomicBool>, taken: Arc<Mutex<Vec<Duration>>>) -> u64 {
    let mut pace = tokio::time::interval(PACE);
    let mut done = 0;
    while !stop.load(Ordering::Relaxed) {
        pace.tick().await;
        let n = done * 10 + session as u64;
        let work = WORK[usize::try_from(done).expect("few") % WORK.len()]
            .replace("{n}", &n.to_string())
            .replace("{session}", &session.to_string());
        let began = Instant::now();
        loop {
            let Err(error) = sqlx::raw_sql(AssertSqlSafe(work.clone())).execute(&mut conn).await else { break };
            run(&mut conn, "ROLLBACK").await;
            // Two builds of one workspace at once, and two quota commits: the server tries again, too.
            let code = error.as_database_error().and_then(DatabaseError::code).map(Cow::into_owned);
            assert!(matches!(code.as_deref(), Some("40001" | "23505")), "{work}\n{error}");
        }
        taken.lock().expect("no panic").push(began.elapsed());
        done += 1;
    }
    done
}
