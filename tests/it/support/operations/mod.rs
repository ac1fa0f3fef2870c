//! Every operation, ready to be called: what was there before, and who asks for what.
//!
//! They are those of the table of [`authz`](crate::authz), called on things of organization 1 by the part of the product
//! that may, or else by their owner, here an owner of the site, too; and what that table leaves out because it is made
//! of others.

pub mod names;
pub mod run;
pub mod steps;

use std::collections::{BTreeMap, BTreeSet};

use coderdb::{
    authz::{Actor, LoadActors, RunJobs, System, WritePrebuildsSettings},
    model::{DaemonId, JobId, OrganizationId, PrebuildsSettings, SetOutcome, Transition, UserId},
    sqlx::{self, AssertSqlSafe, Connection, PgConnection},
    store::{
        self, Error, Result,
        runner::{QuotaStep, commit_quota},
    },
};
use tokio::sync::{Mutex, OnceCell};

use crate::support::{
    self, Database,
    operations::{names::WRITES, run as authz},
    policy::{At, NOW, STEPS, SYSTEM, policy, u},
};

/// More than the table of authz needs: a second job that can be taken, of a second workspace; a budget; a chat that
/// works with something; and signs of life that are older than the next ones.
const MORE: &str = "
INSERT INTO provisioner_jobs (
    id, created_at, updated_at, organization_id, initiator_id, provisioner, storage_method, type, input, file_id, tags
)
SELECT
    u(191), moment() + interval '1 second', moment(), organization_id, initiator_id, provisioner, storage_method, type,
    input, file_id, tags
FROM provisioner_jobs WHERE id = u(101);
INSERT INTO workspaces (id, created_at, updated_at, owner_id, organization_id, template_id, name)
SELECT u(193), created_at, updated_at, owner_id, organization_id, template_id, 'second' FROM workspaces WHERE id = u(103);
INSERT INTO workspace_builds (
    id, created_at, updated_at, workspace_id, template_version_id, build_number, transition, initiator_id, job_id
)
SELECT u(198), created_at, updated_at, u(193), template_version_id, 1, transition, initiator_id, u(191)
FROM workspace_builds WHERE id = u(108);
INSERT INTO groups (id, name, organization_id, quota_allowance) SELECT u(n), 'Everyone', u(n), 100 FROM generate_series(1, 3) AS n;
UPDATE users SET rbac_roles = '{owner}' WHERE id = u(1);
UPDATE chats SET build_id = u(108), agent_id = u(110) WHERE id = u(106);
UPDATE provisioner_jobs SET updated_at = updated_at - interval '1 minute';
UPDATE provisioner_daemons SET last_seen_at = last_seen_at - interval '1 minute';
";

/// What all tables hold, row by row. Left out is what differs between two runs that do the same: the time of the
/// database, numbers out of a sequence, which give the order instead, and
/// random secrets.
const STATE: &str = "
CREATE FUNCTION state() RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    tab record;
BEGIN
    FOR tab IN
        SELECT c.relname AS name, bool_or(a.atttypid IN ('integer'::regtype, 'bigint'::regtype)) IS TRUE AS is_numbered
        FROM pg_class AS c
        LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = 'id'
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
            -- What has been counted when is nobody's business: quota::usage is.
            AND c.relname !~ '^quota_'
        GROUP BY c.relname
        ORDER BY c.relname
    LOOP
        RETURN QUERY EXECUTE format(
            'SELECT concat_ws('' '', %1$L, to_jsonb(t) - %2$L::text[]) FROM %1$I AS t ORDER BY %3$s',
            tab.name,
            CASE WHEN tab.is_numbered THEN '{id,xid}' WHEN tab.name = 'chats' THEN '{updated_at}'
                WHEN tab.name = 'api_keys' THEN '{id,hashed_secret}' ELSE '{}' END,
            CASE WHEN tab.is_numbered THEN 't.id' ELSE '1' END
        );
    END LOOP;
END
$$;
";

/// What has happened to the jobs before a daemon commits the cost of a build.
const TAKEN: &str = "SELECT take()";

/// What is made of other operations.
const OTHERS: &[(&str, System)] = &[
    ("runner::commit_quota", System::ProvisionerDaemon),
    ("runner::commit_quota over budget", System::ProvisionerDaemon),
    ("transaction::retry", System::Operator),
];

pub struct Operation {
    pub name: &'static str,
    /// What has to have happened.
    pub before: &'static str,
    pub writes: bool,
    who: Actor,
}

/// All of them.
pub async fn all() -> Vec<Operation> {
    let owner = owner().await;
    let mut operations: Vec<_> = policy()
        .into_iter()
        .map(|line| {
            let may = SYSTEM.iter().filter(|(_, name)| line.may.contains(name)).map(|(system, _)| *system);
            // The operator is never limited to what somebody owns.
            let who = may.max_by_key(|who| *who == System::Operator).map_or_else(|| owner.clone(), Actor::system);
            Operation { name: line.operation, before: line.before(), writes: WRITES.contains(&line.operation), who }
        })
        .collect();
    operations.extend(OTHERS.iter().map(|(name, who)| Operation {
        name,
        before: TAKEN,
        writes: true,
        who: Actor::system(*who),
    }));
    operations
}

/// User 1, who owns what is in organization 1.
async fn owner() -> &'static Actor {
    static OWNER: OnceCell<Actor> = OnceCell::const_new();
    let load = async || {
        let database = copy_of_what_is_there_after("").await;
        let permit = LoadActors::check(&Actor::system(System::Authenticator)).expect("an authenticator loads actors");
        store::actors::load(&mut database.connect().await, &permit, UserId(u(1))).await.expect("the actor")
    };
    OWNER.get_or_init(load).await
}

impl Operation {
    /// `module::function`; more words of a name say how it is called.
    pub fn function(&self) -> &'static str {
        self.name.split_whitespace().next().expect("a name")
    }

    /// Always the same arguments at the same time; the answer is the number of rows that are as they should be.
    pub async fn call(&self, conn: &mut PgConnection) -> Result<usize> {
        match self.name {
            "runner::commit_quota" => commit_build_quota(conn, &self.who, &[3, 4]).await,
            "runner::commit_quota over budget" => commit_build_quota(conn, &self.who, &[99, 2]).await,
            "transaction::retry" => {
                let permit = WritePrebuildsSettings::check(&self.who)?;
                // Lost once, where it may be tried again.
                let mut lost = conn.is_in_transaction();
                let outcome = store::transaction::retry(conn, move |conn| {
                    let race = !std::mem::replace(&mut lost, true);
                    Box::pin(async move {
                        if race {
                            return Err(Error::Serialization(sqlx::Error::WorkerCrashed));
                        }
                        store::settings::set_prebuilds(conn, &permit, PrebuildsSettings::default()).await
                    })
                })
                .await?;
                Ok(usize::from(outcome == SetOutcome::Changed))
            }
            name => authz::run(name, conn, &self.who, At { organization: 1, home: 1, user: 1 }).await,
        }
    }
}

/// The quota step of the build of job 101, which is taken.
async fn commit_build_quota(conn: &mut PgConnection, daemon: &Actor, costs: &[i32]) -> Result<usize> {
    let (organization, id) = (OrganizationId(u(1)), DaemonId(u(104)));
    let permit = RunJobs::check(daemon, organization, id)?;
    steps::serializable(conn).await?;
    match commit_quota(conn, &permit, JobId(u(101)), Transition::Start, costs, NOW).await? {
        QuotaStep::Failed { error, .. } => Err(error),
        // Ended: asked again, after the job has failed.
        QuotaStep::Skipped | QuotaStep::JobEnded => Ok(0),
        QuotaStep::Committed(_) | QuotaStep::OverQuota { .. } => Ok(1),
    }
}

/// A database of one's own, in which has happened what the operation needs.
pub async fn world(operation: &Operation) -> Database {
    copy_of_what_is_there_after(operation.before).await
}

/// What is in such a database, as SQL.
pub fn what_is_there_after(before: &str) -> String {
    [include_str!("../../golden/two_organizations.sql"), STEPS, MORE, STATE, before].concat()
}

async fn copy_of_what_is_there_after(before: &'static str) -> Database {
    static WORLDS: Mutex<BTreeMap<&str, Database>> = Mutex::const_new(BTreeMap::new());
    let mut worlds = WORLDS.lock().await;
    if let Some(world) = worlds.get(before) {
        return world.copy().await;
    }
    let database = support::database().await.kept();
    let mut conn = database.connect().await;
    sqlx::raw_sql(AssertSqlSafe(what_is_there_after(before))).execute(&mut conn).await.expect("the fixture");
    conn.close().await.expect("a clean end");
    let copy = database.copy().await;
    worlds.insert(before, database);
    copy
}

/// That the lines of the table, `operation : words`, say this of each operation, and have no other. It has a name.
pub fn assert_table(found: &BTreeMap<&str, String>, table: &str, name: &str) {
    let line = |(operation, words): (&str, &str)| format!("{:<33}: {}", operation.trim(), words.trim());
    let expected: BTreeSet<_> = table.lines().filter_map(|text| text.split_once(" : ").map(line)).collect();
    let found: BTreeSet<_> = found.iter().map(|(operation, words)| line((operation, words))).collect();
    let missing: Vec<_> = found.difference(&expected).collect();
    let wrong: Vec<_> = expected.difference(&found).collect();
    assert!(missing.is_empty() && wrong.is_empty(), "{name} lacks: {missing:#?}, and is wrong in: {wrong:#?}");
}
