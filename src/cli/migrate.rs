//! `coderdb migrate`.

use std::{process::ExitCode, time::Duration};

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    connect::{connect, is_pooled},
    error::{CliError, HISTORY, PENDING, UNFIT},
    output::{Output, note, print, print_json, table},
};
use crate::{
    migrate::{self, Applied, Event, Options},
    store::PgConnection,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Apply what is pending
    #[command(
        after_help = "Examples:\n  coderdb migrate up\n  coderdb migrate up --target 5\n\nSafe when several start \
                            at once: one applies, the others wait for it."
    )]
    Up(Up),
    /// Show what is applied, pending and wrong; changes nothing
    #[command(after_help = "Examples:\n  coderdb migrate status\n  coderdb migrate status --exit-code -o json")]
    Status(Status),
}

#[derive(Debug, Args)]
pub(super) struct Up {
    /// Stop after this version
    #[arg(long, value_name = "VERSION")]
    target: Option<i64>,
    /// How many seconds to wait for another runner to finish
    #[arg(long, value_name = "SECONDS", env = "CODERDB_RUNNER_LOCK_TIMEOUT", default_value_t = 900)]
    runner_lock_timeout: u64,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Debug, Args)]
pub(super) struct Status {
    /// Exit with 3 when migrations are pending, and with 12 when the history is wrong
    #[arg(long)]
    exit_code: bool,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

pub(super) async fn run(command: Command) -> Result<ExitCode, CliError> {
    let mut database = connect().await?;
    let code = match command {
        Command::Up(args) => {
            let options = Options {
                target: args.target,
                runner_lock_timeout: Duration::from_secs(args.runner_lock_timeout),
                ..Options::default()
            };
            let applied = up(&mut database, &options).await?;
            match args.output {
                Output::Json => print_json(&json!({ "applied": applied }))?,
                Output::Table => print(&report(&applied))?,
            }
            ExitCode::SUCCESS
        }
        Command::Status(args) => status(&mut database, &args).await?,
    };
    database.close().await;
    Ok(code)
}

/// Migrates, and says on standard error what takes long.
pub(super) async fn up(conn: &mut PgConnection, options: &Options) -> Result<Vec<Applied>, CliError> {
    let say = |event: Event<'_>| match event {
        Event::Waiting { holders } => {
            let holders: Vec<_> = holders.iter().map(ToString::to_string).collect();
            note(&format!("waiting for another runner: {}", holders.join(", ")));
        }
        Event::Started { version, name } => note(&format!("applying V{version:04}__{name}")),
        Event::Retrying { version, attempt } => {
            note(&format!("V{version:04}: no table lock in attempt {attempt}; trying again"));
        }
    };
    if is_pooled()? && !migrate::status(conn).await?.is_current() {
        return Err(CliError::new(
            UNFIT,
            "a migration holds a lock of its session, and a transaction pooler lends it none",
        )
        .next("migrate over a direct connection, without CODERDB_POOLER"));
    }
    Ok(migrate::up(conn, options, say).await?)
}

/// What was applied, for people.
pub(super) fn report(applied: &[Applied]) -> String {
    if applied.is_empty() {
        return "The schema is up to date.\n".to_owned();
    }
    let rows = applied.iter().map(|migration| {
        [format!("V{:04}", migration.version), migration.name.clone(), format!("{} ms", migration.milliseconds)]
    });
    table(&["version", "name", "took"], rows)
}

async fn status(conn: &mut PgConnection, args: &Status) -> Result<ExitCode, CliError> {
    let status = migrate::status(conn).await?;
    match args.output {
        Output::Json => print_json(&status)?,
        Output::Table => {
            let rows = status.migrations.iter().map(|entry| {
                [
                    format!("V{:04}", entry.version),
                    entry.name.clone(),
                    entry.state.as_str().to_owned(),
                    entry.applied_on.clone().unwrap_or_default(),
                ]
            });
            print(&table(&["version", "name", "state", "applied on"], rows))?;
        }
    }
    Ok(match (args.exit_code, status.is_current(), status.problems().is_empty()) {
        (false, _, _) | (true, true, _) => ExitCode::SUCCESS,
        (true, false, true) => ExitCode::from(PENDING),
        (true, false, false) => ExitCode::from(HISTORY),
    })
}
