//! `coderdb migrate up`.

use std::{process::ExitCode, time::Duration};

use serde_json::json;

use super::super::{
    connect::is_pooled,
    error::{CliError, UNFIT},
    output::{Output, note, print, print_json, table},
};
use crate::{
    migrate::{self, Applied, Event, Options},
    store::PgConnection,
};

/// Apply what is pending
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  coderdb migrate up\n  coderdb migrate up --target 5\n\nSafe when several start at \
                        once: one applies, the others wait for it."
)]
pub(in crate::cli) struct Args {
    /// Stop after this version
    #[arg(long, value_name = "VERSION")]
    target: Option<i64>,
    /// How many seconds to wait for another runner to finish
    #[arg(long, value_name = "SECONDS", env = "CODERDB_RUNNER_LOCK_TIMEOUT", default_value_t = 900)]
    runner_lock_timeout: u64,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

pub(super) async fn run(conn: &mut PgConnection, args: &Args) -> Result<ExitCode, CliError> {
    let options = Options {
        target: args.target,
        runner_lock_timeout: Duration::from_secs(args.runner_lock_timeout),
        ..Options::default()
    };
    let applied = up(conn, &options).await?;
    match args.output {
        Output::Json => print_json(&json!({ "applied": applied }))?,
        Output::Table => print(&report(&applied))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Migrates, and says on standard error what takes long.
pub(in crate::cli) async fn up(conn: &mut PgConnection, options: &Options) -> Result<Vec<Applied>, CliError> {
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
pub(in crate::cli) fn report(applied: &[Applied]) -> String {
    if applied.is_empty() {
        return "The schema is up to date.\n".to_owned();
    }
    let rows = applied.iter().map(|migration| {
        [format!("V{:04}", migration.version), migration.name.clone(), format!("{} ms", migration.milliseconds)]
    });
    table(&["version", "name", "took"], rows)
}
