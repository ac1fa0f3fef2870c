//! `coderdb quota`.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{
    connect::connect,
    error::CliError,
    output::{Output, print, print_json, table},
    resolve::{self, OPERATOR, OrganizationArg},
};
use crate::{
    authz::ReadQuota,
    model::{Organization, Quota, User, UserRef},
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

pub(super) async fn run(Command::Show(args): Command) -> Result<ExitCode, CliError> {
    let mut database = connect().await?;
    let organization = args.organization.resolve(&mut database).await?;
    let user = resolve::user(&mut database, "user", &args.user).await?;
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
