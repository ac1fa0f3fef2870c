//! What the agent of a chat does: it starts the chat's workspace, and where that is over quota, it deletes a workspace that
//! nobody needs and starts again.
//!
//!     DATABASE_URL=… cargo run --example agent -- <id of the chat> <name of the workspace that may go>
//!
//! Somewhere, a provisioner daemon must take the jobs.

use std::{env, error::Error, time::Duration};

use coderdb::{
    authz::{Actor, BuildWorkspaces, LoadActors, ReadWorkspaces, System, UseChats},
    connect::ConnectOptions,
    model::{BuildReason, Chat, ChatId, NewBuild, Transition},
    pool::{self, Pool},
    store,
    time::OffsetDateTime,
    tools::{CancellationToken, Reply, Tool, Toolbox},
    uuid::Uuid,
    watch::{self, Change, Watcher},
};
use serde_json::json;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let usage = "agent <id of the chat> <name of the workspace that may go>";
    let (chat, expendable) = (arguments.next().ok_or(usage)?.parse()?, arguments.next().ok_or(usage)?);
    let pool = Pool::new(env::var("DATABASE_URL")?.parse::<ConnectOptions>()?, pool::Settings::default());
    println!("{}", run(&pool, chat, &expendable).await?.text());
    Ok(())
}

/// Starts the workspace of the chat, whatever it takes.
pub async fn run(pool: &Pool, chat: ChatId, expendable: &str) -> Result<Reply> {
    let watcher = Watcher::start(pool, watch::Settings::default());
    let daemon = Actor::system(System::ChatDaemon);
    let chat = store::chats::get(&mut *pool.get().await?, &UseChats::check(&daemon)?, chat).await?;
    let toolbox = Toolbox::new(pool.clone(), watcher.clone(), chat.id, chat.owner_id, chat.organization_id);
    let start = || async { toolbox.call(Tool::StartWorkspace, json!({}), &CancellationToken::new()).await };

    let reply = start().await;
    match &reply {
        Reply::Structured(keys) if keys.get("error_code") == Some(&json!("INSUFFICIENT_QUOTA")) => {
            eprintln!("{}", keys["message"]);
            delete(pool, &watcher, &chat, expendable).await?;
            Ok(start().await)
        }
        _ => Ok(reply),
    }
}

/// Deletes a workspace of the chat's owner, in the owner's name.
async fn delete(pool: &Pool, watcher: &Watcher, chat: &Chat, name: &str) -> Result<()> {
    let may_load = LoadActors::check(&Actor::system(System::ChatDaemon))?;
    let owner = store::actors::load(&mut *pool.get().await?, &may_load, chat.owner_id).await?;
    let may_read = ReadWorkspaces::check(&owner, chat.organization_id)?;
    let build = {
        let mut connection = pool.get().await?;
        let found = store::workspaces::by_name(&mut connection, &may_read, name).await?;
        let workspace =
            found.iter().find(|workspace| workspace.owner_id == chat.owner_id).ok_or("no such workspace")?;
        let latest = store::builds::latest(&mut connection, &may_read, workspace.id).await?.ok_or("never built")?;
        let build = NewBuild {
            id: Uuid::new_v4().into(),
            job_id: Uuid::new_v4().into(),
            workspace_id: workspace.id,
            template_version_id: latest.template_version_id,
            preset_id: None,
            transition: Transition::Delete,
            reason: BuildReason::Initiator,
            provisioner_state: None,
            deadline: None,
            max_deadline: None,
            tags: [("scope", "organization"), ("owner", "")].into_iter().collect(),
            options: serde_json::Map::new(),
            trace_metadata: None,
        };
        let may_build = BuildWorkspaces::check(&owner, chat.organization_id)?;
        store::builds::create(&mut connection, &may_build, &build, OffsetDateTime::now_utc()).await?;
        watcher.announce(Change { job: build.job_id, organization: chat.organization_id });
        build
    };
    // The connection is given back before the wait.
    watcher.wait_for_build(&may_read, build.id, Duration::from_mins(10)).await?;
    Ok(())
}
