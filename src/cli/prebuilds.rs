//! `coderdb prebuilds`.

use std::process::ExitCode;

use clap::Subcommand;

use super::{
    connect::connect,
    error::CliError,
    output::{Output, note, print, print_json},
    resolve::OPERATOR,
};
use crate::{
    authz::{ReadPrebuildsSettings, WritePrebuildsSettings},
    model::{PrebuildsSettings, SetOutcome},
    store::settings,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Let no prebuilt workspaces be created or deleted; jobs that wait already are not touched
    #[command(after_help = "Example:\n  coderdb prebuilds pause")]
    Pause,
    /// Let prebuilt workspaces be created and deleted again
    #[command(after_help = "Example:\n  coderdb prebuilds resume")]
    Resume,
    /// Say whether prebuilds are paused
    #[command(after_help = "Examples:\n  coderdb prebuilds status\n  coderdb prebuilds status -o json")]
    Status(Status),
}

#[derive(Debug, clap::Args)]
pub(super) struct Status {
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

pub(super) async fn run(command: Command) -> Result<ExitCode, CliError> {
    match command {
        Command::Pause => set(true).await.map_err(|error| error.of("unable to pause prebuilds")),
        Command::Resume => set(false).await.map_err(|error| error.of("unable to resume prebuilds")),
        Command::Status(args) => status(&args).await,
    }
}

async fn set(reconciliation_paused: bool) -> Result<ExitCode, CliError> {
    let mut database = connect().await?;
    let permit = WritePrebuildsSettings::check(&OPERATOR)?;
    // Settings that were so already are as good as changed ones.
    let (SetOutcome::Changed | SetOutcome::Unchanged) =
        settings::set_prebuilds(&mut database, &permit, PrebuildsSettings { reconciliation_paused }).await?;
    note(if reconciliation_paused { "Prebuilds are now paused." } else { "Prebuilds are now resumed." });
    database.close().await;
    Ok(ExitCode::SUCCESS)
}

async fn status(args: &Status) -> Result<ExitCode, CliError> {
    let mut database = connect().await?;
    let settings = settings::prebuilds(&mut database, &ReadPrebuildsSettings::check(&OPERATOR)?).await?;
    match args.output {
        Output::Json => print_json(&settings)?,
        Output::Table if settings.reconciliation_paused => print("Prebuilds are paused.\n")?,
        Output::Table => print("Prebuilds are not paused.\n")?,
    }
    database.close().await;
    Ok(ExitCode::SUCCESS)
}
