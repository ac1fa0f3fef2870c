//! `coderdb quota`.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{
    connect::connect,
    error::CliError,
    organization::OrganizationArg,
    output::{Array, Output, note, print, print_json, print_on, rfc_3339},
    resolve::{self, OPERATOR},
    table::{Cell, listing, table},
};
use crate::{
    authz::{ListQuota, ReadQuota},
    model::{Organization, Page, PageRequest, Quota, QuotaExplanation, User, UserQuota, UserRef},
    store::quota,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show what a user consumes and may consume in an organization, in credits
    #[command(after_help = "Examples:\n  coderdb quota show alice\n  coderdb quota show me --org coder -o json\n  \
                            coderdb quota show dave --explain\n\n`me` \
                            is the user that CODERDB_USER names. A name means nobody who was deleted: name a deleted user \
                            by the id, which `coderdb quota list -o json` shows.")]
    Show(Show),
    /// List who consumes or may consume something in an organization, in credits
    ///
    /// All members, and former members and deleted users whose workspaces still consume credits.
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
    /// Show what the numbers are made of: each group with its allowance, each workspace with what it consumes and why
    #[arg(long)]
    explain: bool,
    #[command(flatten)]
    organization: OrganizationArg,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only those who consume something, and at least so many per cent of their budget
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

/// So many with one statement: for more, the server would expect so much work that it compiles the statement first.
const PAGE: u32 = 200;

async fn list(args: List) -> Result<ExitCode, CliError> {
    let mut database = connect().await?;
    let organization = args.organization.resolve(&mut database).await?;
    let permit = ListQuota::check(&OPERATOR, organization.id)?;
    let is_over = |user: &UserQuota| {
        let (consumed, budget) = (i128::from(user.credits_consumed), i128::from(user.budget));
        let is_over = |percent| consumed * 100 >= budget * i128::from(percent);
        args.over.is_none_or(|percent| consumed > 0 && is_over(percent))
    };
    let mut table = listing(&["user", "credits consumed", "budget"]);
    let (mut array, mut page, mut is_any, mut is_shown) = (Array::default(), PageRequest::first(PAGE), false, false);
    loop {
        let Page { rows: mut users, next } = quota::list(&mut database, &permit, page).await?;
        is_any |= !users.is_empty();
        users.retain(is_over);
        is_shown |= !users.is_empty();
        let is_read = print_on(&match args.output {
            Output::Json => array.push(&users)?,
            Output::Table if users.is_empty() => String::new(),
            Output::Table => table.page(users.iter().map(cells).collect()),
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
            Some(percent) if is_any => note(&format!("Nobody consumes {percent}% of the budget or more")),
            _ => note("No members found"),
        },
    }
    database.close().await;
    Ok(ExitCode::SUCCESS)
}

fn cells(user: &UserQuota) -> Vec<Cell> {
    let why = match user {
        UserQuota { deleted: true, .. } => " (deleted)",
        UserQuota { is_member: false, .. } => " (no member)",
        _ => "",
    };
    let named = format!("{}{why}", user.username);
    vec![named.into(), user.credits_consumed.to_string().into(), user.budget.to_string().into()]
}

async fn show(args: Show) -> Result<ExitCode, CliError> {
    let mut database = connect().await?;
    let organization = args.organization.resolve(&mut database).await?;
    let user = resolve::user(&mut database, &args.user).await?;
    let permit = ReadQuota::check(&OPERATOR, user.id, organization.id)?;
    if args.explain {
        let explanation = quota::explain(&mut database, &permit).await?;
        match args.output {
            Output::Json => print_json(&explanation)?,
            Output::Table => print(&explained(&user, &organization, &explanation))?,
        }
        database.close().await;
        return Ok(ExitCode::SUCCESS);
    }
    let usage = quota::usage(&mut database, &permit).await?;
    match args.output {
        Output::Json => print_json(&usage)?,
        Output::Table => print(&quota_table([(&user, &organization, usage)]))?,
    }
    database.close().await;
    Ok(ExitCode::SUCCESS)
}

/// The sums, then what they are made of.
fn explained(user: &User, organization: &Organization, explanation: &QuotaExplanation) -> String {
    let groups = explanation.groups.iter().map(|group| [group.name.clone(), group.allowance.to_string()]);
    let workspaces = explanation.workspaces.iter().map(|workspace| {
        let build = format!("{} {}", workspace.transition, workspace.build_number);
        let status = workspace.job_status.map_or_else(String::new, |status| status.to_string());
        let built_at = rfc_3339(workspace.built_at);
        [workspace.name.clone(), workspace.credits.to_string(), build, status, built_at, workspace.why().to_owned()]
    });
    [
        quota_table([(user, organization, explanation.quota)]),
        table(&["group", "allowance"], groups),
        table(&["workspace", "credits", "newest build", "status", "asked for at", "why"], workspaces),
    ]
    .join("\n")
}

/// A line per user.
pub(super) fn quota_table<'a>(rows: impl IntoIterator<Item = (&'a User, &'a Organization, Quota)>) -> String {
    let rows = rows.into_iter().map(|(user, organization, usage)| {
        let deleted = if user.deleted { " (deleted)" } else { "" };
        let named = format!("{}{deleted}", user.username);
        [named, organization.name.clone(), usage.credits_consumed.to_string(), usage.budget.to_string()]
    });
    table(&["user", "organization", "credits consumed", "budget"], rows)
}
