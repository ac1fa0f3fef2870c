//! `coderdb migrate repair`.

use std::process::ExitCode;

use serde_json::json;

use super::super::{
    error::{CliError, USAGE},
    output::{Output, print, print_json},
};
use crate::{
    migrate::{self, Migrations},
    store::PgConnection,
};

/// Mend what `up` and `verify` complain about; each needs --yes, and `history` shows it
#[derive(Debug, clap::Subcommand)]
#[command(
    after_help = "Examples:\n  coderdb migrate repair accept 7 --yes\n  coderdb migrate repair mark-applied 12 --yes\n  \
                        coderdb migrate repair drop-invalid-indexes --yes"
)]
pub(in crate::cli) enum Command {
    /// Take the file of a migration for what was applied, though it was another one then
    #[command(after_help = "Example:\n  coderdb migrate repair accept 7 --yes")]
    Accept(Version),
    /// Record a migration, and those before it, as applied without running them
    #[command(after_help = "Example:\n  coderdb migrate repair mark-applied 12 --yes")]
    MarkApplied(Version),
    /// Drop the indexes that a killed or failed build has left
    #[command(after_help = "Example:\n  coderdb migrate repair drop-invalid-indexes --yes")]
    DropInvalidIndexes(Confirmed),
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Version {
    /// The version of the migration
    #[arg(value_name = "VERSION")]
    migration: i64,
    #[command(flatten)]
    confirmed: Confirmed,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Confirmed {
    /// Do it
    #[arg(long)]
    yes: bool,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

pub(super) async fn run(
    conn: &mut PgConnection,
    migrations: &Migrations,
    command: &Command,
) -> Result<ExitCode, CliError> {
    let (Command::Accept(Version { confirmed, .. })
    | Command::MarkApplied(Version { confirmed, .. })
    | Command::DropInvalidIndexes(confirmed)) = command;
    if !confirmed.yes {
        return Err(CliError::new(USAGE, "this changes what the history says").next("say --yes to do it"));
    }
    let options = super::up::who(migrations.clone());
    let repaired = match command {
        Command::Accept(version) => migrate::accept(conn, &options, version.migration).await?,
        Command::MarkApplied(version) => migrate::mark_applied(conn, &options, version.migration).await?,
        Command::DropInvalidIndexes(_) => migrate::drop_invalid_indexes(conn, &options).await?,
    };
    match confirmed.output {
        Output::Json => print_json(&json!({ "format": 1, "repaired": repaired }))?,
        Output::Table if repaired.is_empty() => print("There is nothing to repair.\n")?,
        Output::Table => print(&(repaired.join("\n") + "\n"))?,
    }
    Ok(ExitCode::SUCCESS)
}
