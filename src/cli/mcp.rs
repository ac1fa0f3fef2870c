//! `coderdb mcp`: the tools of one chat over the Model Context Protocol.

use std::process::ExitCode;

use super::{
    connect::connect_to_configured,
    error::{CliError, FAILED, USAGE},
    output::note,
    resolve,
    table::one_line,
};
use crate::{
    authz::{ReadUsers, UseChats},
    mcp::{self, CHAT_DAEMON},
    migrate,
    model::{ChatId, UserRef},
    pool::{self, Pool},
    store::{self, users},
    tools::INACTIVE,
};

/// Serve the tools of a chat to its agent, with the Model Context Protocol over standard input and output
///
/// The tools are `create_workspace` and `start_workspace`. A person who can run this uses the workspace of the chat as
/// its owner. It ends with its input. It needs a configured database, and starts none.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coderdb mcp --chat c0de0000-000f-4000-8000-000000000001\n  coderdb mcp --chat \
                        c0de0000-000f-4000-8000-000000000001 --owner dave\n\nIn the configuration of an agent:\n  \
                        {\"mcpServers\": {\"workspace\": {\"command\": \"coderdb\", \"args\": [\"mcp\", \"--chat\", \
                        \"<ID>\"],\n    \"env\": {\"DATABASE_URL\": \"postgres://…\"}}}}")]
pub(super) struct Args {
    /// The chat whose workspace this is
    #[arg(long, value_name = "ID")]
    chat: ChatId,
    /// Only if this is the owner of the chat: an id, a username, or `me`
    #[arg(long, value_name = "USER")]
    owner: Option<UserRef>,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, CliError> {
    let mut database = connect_to_configured().await?;
    if migrate::status(&mut database).await?.pending().next().is_some() {
        return Err(CliError::no_schema());
    }
    let chat = store::chats::get(&mut database, &UseChats::check(&CHAT_DAEMON)?, args.chat).await?;
    if let Some(owner) = &args.owner {
        let owner = resolve::user(&mut database, owner).await.map_err(|error| error.of("--owner"))?;
        if owner.id != chat.owner_id {
            let error = format!("the chat {} belongs to somebody else than {}", chat.id, owner.username);
            return Err(CliError::new(USAGE, error).next("name the owner of the chat, or leave --owner out"));
        }
    }
    let owner = users::get(&mut database, &ReadUsers::check(&CHAT_DAEMON)?, chat.owner_id).await?;
    if let Some(why) = owner.inactive() {
        let error = format!("{}, who owns the chat {}, is {why}", one_line(&owner.username), chat.id);
        return Err(CliError::new(FAILED, error).next(INACTIVE));
    }
    let options = database.options().clone();
    database.close().await;

    let pool = Pool::new(options, pool::Settings::default());
    note(&format!("serving the tools of the chat {} on standard input and output", chat.id));
    mcp::serve(pool, &chat).await.map_err(|error| CliError::new(FAILED, error.to_string()))?;
    Ok(ExitCode::SUCCESS)
}
