//! `coderdb quota`.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{
    connect::connect,
    error::CliError,
    output::{Array, Output, note, print, print_json, print_on},
    resolve::{self, OPERATOR, OrganizationArg},
    table::{Cell, listing, table},
};
use crate::{
    authz::{ListQuota, ReadQuota},
    model::{Organization, Page, PageRequest, Quota, User, UserQuota, UserRef},
    store::quota,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show what a user consumes and may consume in an organization, in credits
    #[command(
        after_help = "Examples:\n  coderdb quota show alice\n  coderdb quota show me --org coder -o json\n\n`me` \
                            is the user that CODERDB_USER names."
    )]
    Show(Show),
    /// List what all members of an organization consume and may consume, in credits
    #[command(visible_alias = "ls")]
    #[command(
        after_help = "Examples:\n  coderdb quota list\n  coderdb quota list --over 85\n  coderdb quota list --org coder \
                            -o json"
    )]
    List(List),
}

#[derive(Debug, Args)]
pub(super) struct Show {
    /// The user: an id, a username, or `me`
    user: UserRef,
    #[command(flatten)]
    organization: OrganizationArg,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only members who consume something, and at least so many per cent of their budget
    #[arg(long, value_name = "PERCENT")]
    over: Option<u32>,
    #[command(flatten)]
    organization: OrganizationArg,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

pub(super) async fn run(command: Command) -> Result<ExitCode, CliError> {
    match command {
        Command::Show(args) => show(args).await,
        Command::List(args) => list(args).await,
    }
}

/// So many members with one statement.
const PAGE: u32 = 500;

async fn list(args: List) -> Result<ExitCode, CliError> {
    let mut database = connect().await?;
    let organization = args.organization.resolve(&mut database).await?;
    let permit = ListQuota::check(&OPERATOR, organization.id)?;
    let is_over = |member: &UserQuota| {
        let (consumed, budget) = (i128::from(member.credits_consumed), i128::from(member.budget));
        let is_over = |percent| consumed * 100 >= budget * i128::from(percent);
        args.over.is_none_or(|percent| consumed > 0 && is_over(percent))
    };
    let mut table = listing(&["user", "credits consumed", "budget"]);
    let (mut array, mut page, mut is_any, mut is_shown) = (Array::default(), PageRequest::first(PAGE), false, false);
    loop {
        let Page { rows: mut members, next } = quota::list(&mut database, &permit, page).await?;
        is_any |= !members.is_empty();
        members.retain(is_over);
        is_shown |= !members.is_empty();
        let is_read = print_on(&match args.output {
            Output::Json => array.push(&members)?,
            Output::Table if members.is_empty() => String::new(),
            Output::Table => table.page(members.iter().map(cells).collect()),
        })?;
        match next {
            Some(next) if is_read => page = PageRequest::after(next, PAGE),
            _ => break,
        }
    }
    match args.output {
        Output::Json => print(array.end())?,
        Output::Table => match args.over {
            _ if is_shown => {}
            Some(percent) if is_any => note(&format!("No member consumes {percent}% of the budget or more")),
            _ => note("No members found"),
        },
    }
    database.close().await;
    Ok(ExitCode::SUCCESS)
}

fn cells(member: &UserQuota) -> Vec<Cell> {
    vec![member.username.clone().into(), member.credits_consumed.to_string().into(), member.budget.to_string().into()]
}

async fn show(args: Show) -> Result<ExitCode, CliError> {
    let mut database = connect().await?;
    let organization = args.organization.resolve(&mut database).await?;
    let user = resolve::user(&mut database, &args.user).await?;
    let usage = quota::usage(&mut database, &ReadQuota::check(&OPERATOR, user.id, organization.id)?).await?;
    match args.output {
        Output::Json => print_json(&usage)?,
        Output::Table => print(&quota_table([(&user, &organization, usage)]))?,
    }
    database.close().await;
    Ok(ExitCode::SUCCESS)
}

/// A line per user.
pub(super) fn quota_table<'a>(rows: impl IntoIterator<Item = (&'a User, &'a Organization, Quota)>) -> String {
    let rows = rows.into_iter().map(|(user, organization, usage)| {
        [user.username.clone(), organization.name.clone(), usage.credits_consumed.to_string(), usage.budget.to_string()]
    });
    table(&["user", "organization", "credits consumed", "budget"], rows)
}
