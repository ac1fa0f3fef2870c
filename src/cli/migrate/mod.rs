//! `coderdb migrate`.

mod adopt;
mod check;
mod history;
mod lint;
mod new;
mod plan;
mod repair;
mod status;
mod unadopt;
mod up;
mod verify;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Subcommand;

use super::{
    connect::{Database, connect_within},
    error::{CliError, USAGE},
    signals::{self, Signals},
    values::length,
};
use crate::migrate::Migrations;
pub(super) use up::{report, up};

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  coderdb migrate up")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
    /// Work with the files of this directory, and not with those of this version: to try what is not released yet
    #[arg(long, global = true, value_name = "DIRECTORY")]
    from: Option<PathBuf>,
    /// How long to wait for a database that starts, restarts or has no room; never for a wrong password. `check` has `--wait`
    #[arg(long, global = true, value_name = "DURATION", env = "CODERDB_WAIT_TIMEOUT", default_value = "60s", value_parser = length)]
    wait_timeout: Duration,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::Args),
    Plan(plan::Args),
    Status(status::Args),
    Check(check::Args),
    Verify(verify::Args),
    History(history::Args),
    Adopt(adopt::Args),
    Unadopt(unadopt::Args),
    #[command(subcommand)]
    Repair(repair::Command),
    Lint(lint::Args),
    New(new::Args),
}

pub(super) async fn run(args: Args) -> Result<ExitCode, CliError> {
    // What needs no database opens none.
    match &args.command {
        Command::Lint(args) => return lint::run(args),
        Command::New(args) => return new::run(args),
        Command::Adopt(_) | Command::Unadopt(_) if args.from.is_some() => {
            return Err(CliError::new(
                USAGE,
                "adopt and unadopt know the indexes of this version only; leave --from out",
            ));
        }
        Command::Verify(_) if args.from.is_some() => {
            return Err(CliError::new(USAGE, "verify knows the schema of this version only; leave --from out"));
        }
        _ => {}
    }
    let migrations = match &args.from {
        Some(directory) => Migrations::read(directory)?,
        None => Migrations::embedded(),
    };
    let wait = match &args.command {
        // A probe that waits is none.
        Command::Check(check) => check.wait.unwrap_or_default(),
        _ => args.wait_timeout,
    };
    let command = async {
        let mut database = connect_within(wait).await?;
        let code = match args.command {
            Command::Plan(args) => plan::run(&mut database, &migrations, &args).await?,
            Command::Status(args) => status::run(&mut database, &migrations, &args).await?,
            Command::Check(args) => check::run(&mut database, &migrations, &args).await?,
            Command::Verify(args) => verify::run(&mut database, &args).await?,
            Command::History(args) => history::run(&mut database, &args).await?,
            Command::Repair(command) => repair::run(&mut database, &migrations, &command).await?,
            Command::Lint(_) | Command::New(_) => unreachable!("they are done"),
            Command::Adopt(args) if args.only_looks() => adopt::look(&mut database, &args).await?,
            // These end with their signals themselves.
            command @ (Command::Up(_) | Command::Adopt(_) | Command::Unadopt(_)) => {
                return Ok(Ran::ToMigrate(Box::new((database, command))));
            }
        };
        database.close().await;
        Ok::<_, CliError>(Ran::Code(code))
    };
    // From here to the end: what is not listened to is lost.
    let mut signals = Signals::new()?;
    match signals::or_end(&mut signals, command).await? {
        Ran::Code(code) => Ok(code),
        Ran::ToMigrate(migrating) => {
            let (mut database, command) = *migrating;
            let code = match command {
                Command::Adopt(args) => adopt::run(&mut database, migrations, &args, &mut signals).await,
                Command::Unadopt(args) => unadopt::run(&mut database, migrations, &args, &mut signals).await,
                Command::Up(args) => up::run(&mut database, migrations, &args, &mut signals).await,
                _ => unreachable!("the others are done"),
            };
            database.close().await;
            code
        }
    }
}

enum Ran {
    Code(ExitCode),
    ToMigrate(Box<(Database, Command)>),
}

/// A duration, or `none`.
fn length_or_none(text: &str) -> Result<Limit, String> {
    if text == "none" { Ok(Limit(None)) } else { length(text).map(|length| Limit(Some(length))) }
}

/// A limit that can be lifted.
#[derive(Debug, Clone, Copy)]
struct Limit(Option<Duration>);
