//! `coderdb provisioner daemons`.

mod capacity;

use std::process::ExitCode;

use clap::Subcommand;
use time::OffsetDateTime;

use super::{
    connect::connect,
    error::{CliError, USAGE},
    organization::OrganizationArg,
    output::{Output, note, print, print_json, rfc_3339, table},
    resolve::OPERATOR,
    values::tag,
};
use crate::{
    authz::ReadDaemons,
    model::{DaemonDetails, DaemonFilter, DaemonJob},
    store::{daemons, jobs::STALE_INTERVAL},
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the daemons of an organization, the newest first, with what they work on
    #[command(visible_alias = "ls")]
    #[command(after_help = "Examples:\n  coderdb provisioner daemons list\n  coderdb provisioner daemons list --tag \
                            env=aws -o json\n\nA daemon is offline when it was not seen for 90 seconds.")]
    List(List),
    Capacity(capacity::Args),
}

pub(super) async fn run(command: Command) -> Result<ExitCode, CliError> {
    match command {
        Command::List(args) => list(args).await,
        Command::Capacity(args) => capacity::run(args).await,
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// Only daemons with this tag; several must all be there
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = tag)]
    tags: Vec<(String, String)>,
    /// At most so many, the newest ones; 0 for all
    #[arg(short, long, default_value_t = 0)]
    limit: u32,
    #[command(flatten)]
    organization: OrganizationArg,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

pub(super) async fn list(args: List) -> Result<ExitCode, CliError> {
    for (n, (key, _)) in args.tags.iter().enumerate() {
        if args.tags[..n].iter().any(|(before, _)| before == key) {
            return Err(CliError::new(USAGE, format!("the tag {key} is asked for twice; no daemon has both")));
        }
    }
    let mut database = connect().await?;
    let organization = args.organization.resolve(&mut database).await?;
    let filter =
        DaemonFilter { has_tags: args.tags, limit: (args.limit > 0).then_some(args.limit), ..DaemonFilter::default() };
    let permit = ReadDaemons::check(&OPERATOR, organization.id)?;
    let daemons = daemons::list(&mut database, &permit, &filter, OffsetDateTime::now_utc(), STALE_INTERVAL).await?;
    match args.output {
        Output::Json => print_json(&daemons)?,
        Output::Table if daemons.is_empty() => note("No provisioner daemons found"),
        Output::Table => print(&table(
            &[
                "name",
                "status",
                "provisioners",
                "last seen at",
                "version",
                "key name",
                "current job",
                "previous job",
                "tags",
            ],
            daemons.iter().map(row),
        ))?,
    }
    database.close().await;
    Ok(ExitCode::SUCCESS)
}

fn row(details: &DaemonDetails) -> [String; 9] {
    let DaemonDetails { daemon, status, key_name, current_job, previous_job } = details;
    let job = |job: &Option<DaemonJob>| {
        job.as_ref().map_or_else(String::new, |job| format!("{} {} {}", job.id, job.status, job.template_name))
    };
    [
        daemon.name.clone(),
        status.to_string(),
        daemon.provisioners.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        daemon.last_seen_at.map(rfc_3339).unwrap_or_default(),
        daemon.version.clone(),
        key_name.clone(),
        job(current_job),
        job(previous_job),
        daemon.tags.to_string(),
    ]
}
