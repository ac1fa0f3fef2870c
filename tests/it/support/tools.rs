//! A chat, its tools, and provisioner daemons that do what daemons do.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use coderdb::{
    authz::{Actor, RunJobs},
    model::{Capabilities, Chat, ChatId, Failure, Job, ProvisionerType, Tags, Transition, WorkspaceAgentId},
    pool::{self, Pool},
    sqlx::{self, PgConnection},
    store::{self, runner::commit_quota},
    tools::{
        ApiError, CancellationToken, Connector, Created, DatabaseOperations, ForeignError, NewChatWorkspace,
        OperationError, Operations, Reply, Settings, StartChatWorkspace, Started, Tool, Toolbox, Validation,
    },
    watch::{self, Change, Watcher},
};
use futures_util::{FutureExt as _, future::BoxFuture};
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::support::rows::{Rows, daemon, id};

pub const DAEMON: u128 = 7;

/// Nothing here waits so long, except for what never comes.
pub const SETTINGS: Settings = Settings {
    build_timeout: Duration::from_secs(30),
    agent_connect_timeout: Duration::from_millis(300),
    agent_retry_interval: Duration::from_millis(5),
    agent_attempt_timeout: Duration::from_millis(50),
    startup_timeout: Duration::from_secs(30),
    startup_poll_interval: Duration::from_millis(5),
    agent_inactive_timeout: Duration::from_mins(1),
    quota_timeout: Duration::from_secs(30),
};

/// User 1 with the chat 1 in organization 1, and template 1, whose active version 1 has the preset 1. No workspaces.
pub const ROWS: &str = "
DELETE FROM workspaces; DELETE FROM provisioner_jobs;
SELECT add_member(1, 1), add_job(90);
UPDATE provisioner_jobs SET type = 'template_version_import', started_at = at_second(0), completed_at = at_second(1);
UPDATE template_versions SET job_id = u(90);
INSERT INTO groups (id, name, organization_id, quota_allowance) VALUES (u(1), 'Everyone', u(1), 40);
INSERT INTO chat_providers (provider) VALUES ('openai');
INSERT INTO chat_model_configs (id, provider, model, context_limit, compression_threshold)
VALUES (u(1), 'openai', 'model', 200000, 80);
INSERT INTO chats (id, owner_id, last_model_config_id, organization_id) VALUES (u(1), u(1), u(1), u(1));

CREATE FUNCTION stands(job integer, status text) RETURNS void LANGUAGE sql AS $$
    UPDATE provisioner_jobs
    SET
        started_at = CASE WHEN status <> 'pending' THEN now() END,
        worker_id = CASE WHEN status <> 'pending' THEN u(7) END,
        canceled_at = CASE WHEN status LIKE 'cancel%' THEN now() END,
        completed_at = CASE WHEN status IN ('succeeded', 'failed', 'canceled') THEN now() END,
        error = CASE WHEN status = 'failed' THEN 'boom' END
    WHERE id = u(job)
$$;
-- A workspace of the chat whose only build, with the same number, is this one.
CREATE FUNCTION has(n integer, transition workspace_transition, status text) RETURNS void LANGUAGE sql AS $$
    SELECT add_workspace(n), add_build(n, n, 1), add_resource(n, n), stands(n, status);
    UPDATE workspace_builds AS b SET transition = $2 WHERE b.id = u(n);
    UPDATE chats SET workspace_id = u(n);
$$;
-- Agents whose last sign of life is so many seconds ago.
CREATE FUNCTION alive(seconds integer) RETURNS void LANGUAGE sql AS $$
    UPDATE workspace_agents
    SET first_connected_at = now() - seconds * interval '1 second', last_connected_at = now() - seconds * interval '1 second'
$$;
";

/// How a build ends, and which agents it makes.
#[derive(Clone, Copy)]
pub enum Ending {
    /// With these agents, which are there and ready.
    Succeeds(&'static [&'static str]),
    Fails(&'static str),
    /// It costs so much.
    Costs(i32),
}

pub struct World {
    pub rows: Rows,
    pub pool: Pool,
    pub watcher: Watcher,
    pub told: Arc<Mutex<Vec<Chat>>>,
}

impl World {
    pub async fn new() -> Self {
        Self::of(Rows::new().await).await
    }

    pub async fn of(mut rows: Rows) -> Self {
        rows.run(ROWS).await;
        let pool = pool_of(&rows);
        let watcher = Watcher::start(&pool, watch::Settings::default());
        Self { rows, pool, watcher, told: Arc::default() }
    }

    /// A world in which this has happened.
    pub async fn after(sql: &str) -> Self {
        let mut world = Self::new().await;
        world.rows.run(sql).await;
        world
    }

    pub fn toolbox(&self) -> Toolbox {
        let (chat, owner, organization) = (ChatId(id(1)), id(1).into(), id(1).into());
        let told = self.told.clone();
        Toolbox::new(self.pool.clone(), self.watcher.clone(), chat, owner, organization)
            .settings(SETTINGS)
            .on_chat_updated(Arc::new(move |chat| told.lock().expect("no panic").push(chat.clone())))
    }

    /// How often somebody was told of the chat.
    pub fn told(&self) -> usize {
        self.told.lock().expect("no panic").len()
    }

    /// The tools with operations that are recorded.
    pub fn recorded(&self, answer: Answer) -> (Toolbox, Arc<Recorded>) {
        let inner = DatabaseOperations::new(self.pool.clone(), self.watcher.clone());
        let recorded = Arc::new(Recorded { inner, answer, creates: Mutex::default(), starts: Mutex::default() });
        (self.toolbox().operations(Some(recorded.clone())), recorded)
    }

    /// Takes the next job, as soon as there is one, and carries it out.
    pub async fn daemon(&self, ending: Ending) -> Job {
        let mut conn = self.rows.database.connect().await;
        let job = take(&mut conn).await;
        end(&mut conn, &job, ending).await;
        self.watcher.announce(Change { job: job.id, organization: job.organization_id });
        job
    }

    /// Calls the tool while a daemon carries out one build.
    pub async fn built(&self, toolbox: &Toolbox, tool: Tool, arguments: Value, ending: Ending) -> (Reply, Job) {
        tokio::join!(call(toolbox, tool, arguments), self.daemon(ending))
    }

    /// Calls the tool, and lets a daemon carry out the build that it waits for, which was there before.
    pub async fn under_way(&self, toolbox: &Toolbox, tool: Tool, arguments: Value, ending: Ending) -> Reply {
        let daemon = async {
            self.until_told().await;
            self.daemon(ending).await
        };
        tokio::join!(call(toolbox, tool, arguments), daemon).0
    }

    /// Waits until somebody was told of the chat: the tool has bound it.
    pub async fn until_told(&self) {
        while self.told() == 0 {
            tokio::task::yield_now().await;
        }
    }

    pub async fn one(&mut self, sql: &str) -> String {
        self.rows.one(sql).await
    }

    /// Workspaces, builds, and jobs of builds.
    pub async fn counts(&mut self) -> String {
        let counts = "SELECT concat_ws(' ', (SELECT count(*) FROM workspaces), (SELECT count(*) FROM workspace_builds),
                          (SELECT count(*) FROM provisioner_jobs WHERE type = 'workspace_build'))";
        self.one(counts).await
    }

    /// What the chat works with.
    pub async fn binding(&mut self) -> String {
        self.one("SELECT concat_ws(' ', workspace_id, build_id, agent_id) FROM chats").await
    }

    /// The newest build, by its number.
    pub async fn newest_build(&mut self) -> Uuid {
        let newest = "SELECT id FROM workspace_builds ORDER BY created_at DESC, build_number DESC LIMIT 1";
        self.one(newest).await.parse().expect("an id")
    }
}

pub fn pool_of(rows: &Rows) -> Pool {
    rows.database.pool(pool::Settings::default())
}

pub fn runs() -> RunJobs {
    daemon(1, DAEMON)
}

pub async fn take(conn: &mut PgConnection) -> Job {
    let (provisioners, tags) = ([ProvisionerType::Echo], Tags::from_iter([("scope", "organization"), ("owner", "")]));
    let offer = Capabilities { provisioners: &provisioners, tags: &tags };
    loop {
        let now = OffsetDateTime::now_utc();
        if let Some(job) = store::jobs::acquire(conn, &runs(), offer, now).await.expect("a queue") {
            return job;
        }
        tokio::task::yield_now().await;
    }
}

pub async fn end(conn: &mut PgConnection, job: &Job, ending: Ending) {
    let now = OffsetDateTime::now_utc();
    match ending {
        Ending::Succeeds(names) => {
            let agents = "WITH resource AS (
                    INSERT INTO workspace_resources (id, created_at, job_id, transition, type, name)
                    VALUES (gen_random_uuid(), now(), $1, 'start', 'kind', 'resource') RETURNING id
                )
                INSERT INTO workspace_agents (
                    id, created_at, updated_at, name, resource_id, auth_token, architecture, operating_system,
                    lifecycle_state, first_connected_at, last_connected_at
                )
                SELECT gen_random_uuid(), now(), now(), name, resource.id, u(0), 'amd64', 'linux', 'ready', now(), now()
                FROM resource, unnest($2::text[]) AS name";
            let done = sqlx::query(agents).bind(job.id.0).bind(names.to_vec()).execute(&mut *conn).await;
            done.expect("agents");
            let _ = store::jobs::complete(conn, &runs(), job.id, now, None).await.expect("the end");
        }
        Ending::Fails(error) => {
            let failure = Failure { error, ..Failure::default() };
            let _ = store::jobs::fail(conn, &runs(), job.id, now, failure).await.expect("the end");
        }
        Ending::Costs(cost) => {
            let step = commit_quota(conn, &runs(), job.id, Transition::Start, &[cost], now).await;
            let _ = step.expect("an answer");
        }
    }
}

pub fn template(n: u128) -> Value {
    json!({ "template_id": id(n), "name": "dev" })
}

pub async fn call(toolbox: &Toolbox, tool: Tool, arguments: Value) -> Reply {
    call_until(toolbox, tool, arguments, &CancellationToken::new()).await
}

pub async fn call_until(toolbox: &Toolbox, tool: Tool, arguments: Value, cancel: &CancellationToken) -> Reply {
    let reply = toolbox.call(tool, arguments, cancel).await;
    if let Reply::Structured(keys) = &reply {
        let value = Value::Object(keys.clone());
        let schema = Value::Object(tool.reply_schema());
        let validator = jsonschema::validator_for(&schema).expect("a schema");
        let problems: Vec<_> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(problems.is_empty(), "{value:#} is not what {} says: {problems:?}", tool.name());
        assert_eq!(reply.text(), value.to_string());
    }
    reply
}

pub async fn create(toolbox: &Toolbox) -> Reply {
    call(toolbox, Tool::CreateWorkspace, template(1)).await
}

pub async fn start(toolbox: &Toolbox) -> Reply {
    call(toolbox, Tool::StartWorkspace, json!({})).await
}

/// The text of a reply that is flagged as an error.
pub fn error(reply: &Reply) -> &str {
    let Reply::Error(text) = reply else { panic!("{reply:?} is not an error") };
    text
}

/// The keys of a reply that is not.
pub fn keys(reply: &Reply) -> Value {
    let Reply::Structured(keys) = reply else { panic!("{reply:?}") };
    Value::Object(keys.clone())
}

/// That the reply is the one with this name in `golden/replies.json`, with this build.
pub fn assert_golden(name: &str, reply: &Reply, build: Uuid) {
    let golden: Value = serde_json::from_str(include_str!("../golden/replies.json")).expect("JSON");
    let text = serde_json::to_string_pretty(&keys(reply)).expect("JSON").replace(&build.to_string(), "<build>");
    let found: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(found, golden[name], "the reply {name:?} in tests/it/golden/replies.json should be:\n{text}");
}

/// What recorded operations answer.
pub enum Answer {
    /// What the database does.
    Database,
    /// This refusal.
    Refuse(ApiError),
    /// This refusal the first time.
    RefuseOnce(ApiError),
    /// Nothing, after the database has done it.
    Never,
}

pub struct Recorded {
    pub inner: DatabaseOperations,
    pub answer: Answer,
    pub creates: Mutex<Vec<NewChatWorkspace>>,
    pub starts: Mutex<Vec<StartChatWorkspace>>,
}

impl Recorded {
    pub fn creates(&self) -> Vec<NewChatWorkspace> {
        self.creates.lock().expect("no panic").clone()
    }

    pub fn starts(&self) -> Vec<StartChatWorkspace> {
        self.starts.lock().expect("no panic").clone()
    }

    pub async fn answer<T>(
        &self,
        calls: usize,
        done: BoxFuture<'_, Result<T, OperationError>>,
    ) -> Result<T, OperationError> {
        match &self.answer {
            Answer::Refuse(refusal) => Err(refusal.clone().into()),
            Answer::RefuseOnce(refusal) if calls == 1 => Err(refusal.clone().into()),
            Answer::Database | Answer::RefuseOnce(_) => done.await,
            Answer::Never => {
                let _done = done.await;
                std::future::pending().await
            }
        }
    }
}

impl Operations for Recorded {
    fn create<'a>(
        &'a self,
        owner: &'a Actor,
        new: &'a NewChatWorkspace,
    ) -> BoxFuture<'a, Result<Created, OperationError>> {
        self.creates.lock().expect("no panic").push(new.clone());
        self.answer(self.creates().len(), self.inner.create(owner, new)).boxed()
    }

    fn start<'a>(
        &'a self,
        owner: &'a Actor,
        start: &'a StartChatWorkspace,
    ) -> BoxFuture<'a, Result<Started, OperationError>> {
        self.starts.lock().expect("no panic").push(start.clone());
        self.answer(self.starts().len(), self.inner.start(owner, start)).boxed()
    }
}

pub fn refusal(status: u16, field: Option<&str>) -> ApiError {
    let validation = |field: &str| Validation { field: field.to_owned(), detail: "not like this".to_owned() };
    ApiError {
        status,
        message: "It cannot be done.".to_owned(),
        detail: Some("Because.".to_owned()),
        validations: field.into_iter().map(validation).collect(),
    }
}

/// Agents that can be reached after so many attempts.
#[derive(Default)]
pub struct Dials {
    pub failing: AtomicUsize,
    pub dialed: Mutex<Vec<WorkspaceAgentId>>,
}

impl Dials {
    pub fn after(failing: usize) -> Arc<Self> {
        Arc::new(Self { failing: AtomicUsize::new(failing), dialed: Mutex::default() })
    }

    pub fn dialed(&self) -> Vec<WorkspaceAgentId> {
        self.dialed.lock().expect("no panic").clone()
    }
}

impl Connector for Dials {
    fn connect(&self, agent: WorkspaceAgentId) -> BoxFuture<'_, Result<Box<dyn Send>, ForeignError>> {
        self.dialed.lock().expect("no panic").push(agent);
        let fails = self.failing.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        async move { if fails { Err("nobody answers".into()) } else { Ok(Box::new(()) as Box<dyn Send>) } }.boxed()
    }
}
