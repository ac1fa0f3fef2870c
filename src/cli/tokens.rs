//! `coderdb tokens`.

use std::{process::ExitCode, time::Duration};

use clap::Subcommand;
use serde_json::json;
use time::OffsetDateTime;

use super::{
    connect::connect,
    error::{CliError, FAILED},
    output::{Output, note, print, print_json, rfc_3339, table},
    resolve::{OPERATOR, user},
    values::filled,
};
use crate::{
    authz::ManageTokens,
    duration,
    model::UserRef,
    store::{self, api_keys},
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a token for a user, and print it: it is shown this once
    ///
    /// It gives the rights of the user over HTTP.
    #[command(after_help = "Examples:\n  coderdb tokens create --user alice --name backup\n  coderdb tokens create \
                            --user alice --name ci --lifetime 12h")]
    Create(Create),
    /// List the tokens, expired ones too, without what one could use
    #[command(
        visible_alias = "ls",
        after_help = "Examples:\n  coderdb tokens list\n  coderdb tokens list --user alice"
    )]
    List(List),
    /// Revoke a token: from now on it is refused
    #[command(visible_alias = "rm", after_help = "Example:\n  coderdb tokens revoke HOOmKyZ0bR")]
    Revoke(Revoke),
}

#[derive(Debug, clap::Args)]
pub(super) struct Create {
    /// Whose token, by user ID or username
    #[arg(short, long, value_parser = filled::<UserRef>())]
    user: UserRef,
    /// The name of the token, one of its user's
    #[arg(short, long)]
    name: String,
    /// For how long it can be used
    #[arg(long, value_name = "DURATION", default_value = "720h", value_parser = lifetime)]
    lifetime: Duration,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// Only tokens of this user, by user ID or username
    #[arg(short, long, value_parser = filled::<UserRef>())]
    user: Option<UserRef>,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Debug, clap::Args)]
pub(super) struct Revoke {
    /// The id of the token, from `list`: what stands before its hyphen
    id: String,
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = duration::parse(text).filter(|lifetime| !text.starts_with('-') && *lifetime > Duration::ZERO);
    lifetime.ok_or_else(|| "expected a duration such as 12h or 720h".to_owned())
}

pub(super) async fn run(command: Command) -> Result<ExitCode, CliError> {
    match command {
        Command::Create(args) => create(args).await,
        Command::List(args) => list(args).await,
        Command::Revoke(args) => revoke(&args).await,
    }
}

async fn create(args: Create) -> Result<ExitCode, CliError> {
    let mut database = connect().await?;
    let owner = user(&mut database, &args.user).await?;
    let now = OffsetDateTime::now_utc();
    let too_long = || CliError::new(super::error::USAGE, "the lifetime is too long");
    let lifetime = args.lifetime.try_into().map_err(|_| too_long())?;
    let expires_at = now.checked_add(lifetime).ok_or_else(too_long)?;
    let permit = ManageTokens::check(&OPERATOR)?;
    let created = api_keys::create(&mut database, &permit, owner.id, &args.name, now, expires_at).await;
    let token = match created {
        Err(store::Error::Conflict { .. }) => {
            return Err(CliError::new(FAILED, format!("{} has a token with the name {}", owner.username, args.name))
                .next("choose another name, or revoke that one"));
        }
        created => created?,
    };
    match args.output {
        Output::Json => print_json(&json!({
            "id": token.id(),
            "token": token.expose(),
            "name": args.name,
            "user_id": owner.id,
            "expires_at": rfc_3339(expires_at),
        }))?,
        // The token alone, for `TOKEN=$(coderdb tokens create …)`.
        Output::Table => print(&format!("{}\n", token.expose()))?,
    }
    database.close().await;
    Ok(ExitCode::SUCCESS)
}

async fn list(args: List) -> Result<ExitCode, CliError> {
    let mut database = connect().await?;
    let owner = match &args.user {
        Some(named) => Some(user(&mut database, named).await?.id),
        None => None,
    };
    let tokens = api_keys::list(&mut database, &ManageTokens::check(&OPERATOR)?, owner).await?;
    match args.output {
        Output::Json => {
            let shown = tokens.iter().map(|token| {
                json!({
                    "id": token.id,
                    "name": token.name,
                    "user_id": token.user_id,
                    "username": token.username,
                    "created_at": rfc_3339(token.created_at),
                    "last_used": token.last_used.map(rfc_3339),
                    "expires_at": rfc_3339(token.expires_at),
                })
            });
            print_json(&shown.collect::<Vec<_>>())?;
        }
        Output::Table if tokens.is_empty() => note("No tokens found"),
        Output::Table => print(&table(
            &["id", "user", "name", "created at", "last used", "expires at"],
            tokens.into_iter().map(|token| {
                [
                    token.id,
                    token.username,
                    token.name,
                    rfc_3339(token.created_at),
                    token.last_used.map_or_else(|| "never".to_owned(), rfc_3339),
                    rfc_3339(token.expires_at),
                ]
            }),
        ))?,
    }
    database.close().await;
    Ok(ExitCode::SUCCESS)
}

async fn revoke(args: &Revoke) -> Result<ExitCode, CliError> {
    let mut database = connect().await?;
    api_keys::revoke(&mut database, &ManageTokens::check(&OPERATOR)?, &args.id).await?;
    note(&format!("Token {} revoked", args.id));
    database.close().await;
    Ok(ExitCode::SUCCESS)
}
