//! `coderdb quota`.

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use time::OffsetDateTime;

use super::{
    connect::connect,
    error::{CliError, FAILED},
    organization::OrganizationArg,
    output::{Array, Output, note, print, print_json, print_on, rfc_3339},
    resolve::{self, OPERATOR},
    table::{Cell, listing, table},
};
use crate::{
    authz::{ListQuota, ReadQuota, ReadTemplates, TemplateRight},
    model::{
        NameOrId, Organization, Page, PageRequest, Quota, QuotaChange, QuotaCheck, QuotaExplanation, QuotaVerdict,
        TemplateId, User, UserQuota, UserRef,
    },
    store::{PgConnection, quota, templates},
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
        after_help = "Examples:\n  coderdb quota list\n  coderdb quota list --over 85\n  coderdb quota list --by template\n  coderdb quota \
                            list --org coder -o json"
    )]
    List(List),
    /// Say whether a new workspace would fit into a user's budget, before it is built
    ///
    /// Judged by what the template's last successful starts have committed, at most 50 of them. What counts in the end is
    /// what the build commits: one that is over quota fails nevertheless.
    #[command(
        after_help = "Examples:\n  coderdb quota check --user alice --template kubernetes\n  coderdb quota check --user \
                            me --template docker --preset large -o json\n\nExits with 0 if it fits or is likely \
                            to, and with 1 otherwise, also if nothing is known."
    )]
    Check(Check),
}

#[derive(Debug, Args)]
pub(super) struct Check {
    /// Whose budget: an id, a username, or `me`
    #[arg(long)]
    user: UserRef,
    /// The template: an id or a name
    #[arg(long)]
    template: NameOrId<TemplateId>,
    /// Only starts with this preset, and the prebuilt workspaces of it: a name in the template's active version
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    #[command(flatten)]
    organization: OrganizationArg,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

/// What quota is added up by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum By {
    /// The templates of the workspaces
    Template,
    /// The groups of the owners; who is in several counts in each
    Group,
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
    /// Add up by template or group instead of by user
    #[arg(long, value_enum, conflicts_with = "over")]
    by: Option<By>,
    #[command(flatten)]
    organization: OrganizationArg,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

pub(super) async fn run(command: Command) -> Result<ExitCode, CliError> {
    match command {
        Command::Show(args) => show(args).await,
        Command::List(args) => list(args).await,
        Command::Check(args) => check(args).await,
    }
}

async fn check(args: Check) -> Result<ExitCode, CliError> {
    let mut database = connect().await?;
    let organization = args.organization.resolve(&mut database).await?;
    let user = resolve::user(&mut database, &args.user).await?;
    let may_read = ReadTemplates::check(&OPERATOR, organization.id, TemplateRight::Read)?;
    let template = templates::resolve(&mut database, &may_read, &args.template).await?;
    let permit = ListQuota::check(&OPERATOR, organization.id)?;
    let check = quota::check(&mut database, &permit, user.id, template.id, args.preset.as_deref()).await?;
    match args.output {
        Output::Json => print_json(&check)?,
        Output::Table => print(&checked(&user, &organization, &check))?,
    }
    database.close().await;
    let fits = matches!(check.verdict, QuotaVerdict::Fits | QuotaVerdict::Likely);
    Ok(if fits { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// The numbers, then the verdict and what to do.
fn checked(user: &User, organization: &Organization, check: &QuotaCheck) -> String {
    let number = |number: Option<i32>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let claim = check.claim.map_or_else(
        || "-".to_owned(),
        |claim| {
            let (least, most) = (claim.least, claim.most);
            if least == most { least.to_string() } else { format!("{least} to {most}") }
        },
    );
    let costs = [[check.samples.to_string(), number(check.median), number(check.p95), claim]];
    let how = match (check.verdict, check.claim) {
        (_, Some(_)) => "fits: a prebuilt workspace can be claimed, and a claim costs no more than it costs already",
        (QuotaVerdict::Fits, None) => "fits: 95 of 100 starts would fit",
        (QuotaVerdict::Likely, None) => "likely to fit: half of the starts would fit, but not 95 of 100",
        (QuotaVerdict::LikelyNot, None) => {
            "not likely to fit: less than half of the starts would. Choose a smaller preset, or delete a workspace"
        }
        (QuotaVerdict::DoesNotFit, None) => {
            "does not fit: no start would. Delete or stop a workspace, or raise the allowance of a group"
        }
        (QuotaVerdict::Unknown, None) => "unknown: no start of late has succeeded. Build it to find out",
    };
    // An equal cost counts as an increase there (domain: commit comparison).
    let elsewhere = check.claim.filter(|claim| {
        claim.most > 0 && check.quota.credits_consumed.saturating_add(claim.most.into()) > check.quota.budget
    });
    let elsewhere = elsewhere.map_or("", |_| "It exceeds the budget, so Coder's own server would reject the claim\n");
    [
        quota_table([(user, organization, check.quota)]),
        table(&["starts", "median", "95th percentile", "claim"], costs),
        format!("{how}\n{elsewhere}"),
    ]
    .join("\n")
}

async fn list_by(database: &mut PgConnection, permit: &ListQuota, by: By, output: Output) -> Result<(), CliError> {
    match by {
        By::Template => {
            let rows = quota::by_template(database, permit).await?;
            let sum: i64 = rows.iter().map(|row| row.credits_consumed).sum();
            let cells = rows.iter().map(|row| {
                let deleted = if row.deleted { " (deleted)" } else { "" };
                let name = format!("{}{deleted}", row.name);
                let share = i128::from(row.credits_consumed) * 100 / i128::from(sum.max(1));
                [name, row.workspaces.to_string(), row.credits_consumed.to_string(), format!("{share}%")]
            });
            match output {
                Output::Json => print_json(&rows),
                Output::Table => print(&table(&["template", "workspaces", "credits consumed", "share"], cells)),
            }
        }
        By::Group => {
            let rows = quota::by_group(database, permit).await?;
            let cells = rows.iter().map(|row| {
                let (members, allowance) = (row.members.to_string(), row.allowance.to_string());
                [row.name.clone(), members, allowance, row.credits_consumed.to_string()]
            });
            match output {
                Output::Json => print_json(&rows),
                Output::Table => print(&table(&["group", "members", "allowance", "credits consumed"], cells)),
            }
        }
    }
}

/// So many with one statement: for more, the server would expect so much work that it compiles the statement first.
const PAGE: u32 = 200;

async fn list(args: List) -> Result<ExitCode, CliError> {
    let mut database = connect().await?;
    let organization = args.organization.resolve(&mut database).await?;
    let permit = ListQuota::check(&OPERATOR, organization.id)?;
    if let Some(by) = args.by {
        list_by(&mut database, &permit, by, args.output).await?;
        database.close().await;
        return Ok(ExitCode::SUCCESS);
    }
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
        let changed_last_day = explanation.changes_since(OffsetDateTime::now_utc() - time::Duration::DAY);
        match args.output {
            Output::Json => print_json(&Explained { explanation: &explanation, changed_last_day: &changed_last_day })?,
            Output::Table => print(&explained(&user, &organization, &explanation, &changed_last_day))?,
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

#[derive(Serialize)]
struct Explained<'a> {
    #[serde(flatten)]
    explanation: &'a QuotaExplanation,
    changed_last_day: &'a [QuotaChange],
}

/// The sums, then what they are made of, and what has changed.
fn explained(
    user: &User,
    organization: &Organization,
    explanation: &QuotaExplanation,
    changes: &[QuotaChange],
) -> String {
    let changes = changes.iter().map(|change| {
        let from = change.from.map_or_else(|| "-".to_owned(), |from| from.to_string());
        [change.name.clone(), change.transition.to_string(), from, change.to.to_string(), rfc_3339(change.at)]
    });
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
        table(&["changed in the last day", "by", "from", "to", "at"], changes),
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
