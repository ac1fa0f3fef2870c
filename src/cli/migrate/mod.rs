//! `coderdb migrate`.

mod lint;
mod new;
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
    Lint(lint::Args),
    New(new::Args),
}

pub(super) async fn run(command: Command) -> Result<ExitCode, CliError> {
    // What needs no database opens none.
    match &command {
        Command::Lint(args) => return lint::run(args),
        Command::New(args) => return new::run(args),
        Command::Up(_) | Command::Status(_) | Command::Verify(_) => {}
    }
    let mut database = connect().await?;
    let code = match command {
        Command::Up(args) => up::run(&mut database, &args).await?,
        Command::Status(args) => status::run(&mut database, &args).await?,
        Command::Verify(args) => verify::run(&mut database, &args).await?,
        Command::Lint(_) | Command::New(_) => unreachable!("they are done"),
    };
    database.close().await;
    Ok(code)
}
