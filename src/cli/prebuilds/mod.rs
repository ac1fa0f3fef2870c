//! `coderdb prebuilds`.

mod guard;
mod status;

use std::process::ExitCode;

use clap::Subcommand;

use super::{connect::connect, error::CliError, output::note, resolve::OPERATOR};
use crate::{
    authz::WritePrebuildsSettings,
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
    /// Show whether prebuilds are paused, and what they do per preset: how many are wanted, run, wait and failed
    Status(status::Args),
    /// Pause prebuilds and cancel waiting ones while too many wait, until it is ended
    Guard(guard::Args),
}

pub(super) async fn run(command: Command) -> Result<ExitCode, CliError> {
    match command {
        Command::Pause => set(true).await.map_err(|error| error.of("unable to pause prebuilds")),
        Command::Resume => set(false).await.map_err(|error| error.of("unable to resume prebuilds")),
        Command::Status(args) => status::run(&args).await,
        Command::Guard(args) => guard::run(&args).await,
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
