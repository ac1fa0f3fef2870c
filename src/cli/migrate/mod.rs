//! `coderdb migrate`.

mod status;
mod up;
mod verify;

use std::process::ExitCode;

use clap::Subcommand;

use super::{connect::connect, error::CliError};
pub(super) use up::{report, up};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Up(up::Args),
    Status(status::Args),
    Verify(verify::Args),
}

pub(super) async fn run(command: Command) -> Result<ExitCode, CliError> {
    let mut database = connect().await?;
    let code = match command {
        Command::Up(args) => up::run(&mut database, &args).await?,
        Command::Status(args) => status::run(&mut database, &args).await?,
        Command::Verify(args) => verify::run(&mut database, &args).await?,
    };
    database.close().await;
    Ok(code)
}
