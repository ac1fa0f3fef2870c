//! `coderdb migrate unadopt`.

use std::process::ExitCode;

use serde_json::json;

use super::{
    super::{
        connect::{Database, is_pooled},
        error::{CliError, USAGE},
        output::{Output, print, print_json},
        signals::Signals,
    },
    up::{Limits, pooled, say},
};
use crate::migrate::{self, MigrateOptions, Migrations};

/// Take everything of this layer away from a database that Coder's own server made; needs --yes
///
/// Its indexes, its constraint, and the schema `coderdb`: what is left is what was there before `adopt`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  coderdb migrate unadopt --yes")]
pub(in crate::cli) struct Args {
    /// Do it
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    limits: Limits,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

pub(super) async fn run(
    database: &mut Database,
    migrations: Migrations,
    args: &Args,
    signals: &mut Signals,
) -> Result<ExitCode, CliError> {
    if !args.yes {
        return Err(
            CliError::new(USAGE, "this drops the indexes and the history of coderdb").next("say --yes to do it")
        );
    }
    if is_pooled()? {
        return Err(pooled());
    }
    let options = MigrateOptions { observer: Some(database.options().clone()), ..args.limits.options(migrations) };
    let stop = options.stop.clone();
    let removing = async {
        let removed = migrate::unadopt(database, &options, |event| say(&event)).await;
        removed.map_err(|error| CliError::from(error).instead_of_up("unadopt --yes"))
    };
    let (removed, code) = args.limits.run(&stop, signals, removing).await?;
    match args.output {
        Output::Json => print_json(&json!({ "format": 1, "removed": removed }))?,
        Output::Table if removed.is_empty() => print("There is nothing of coderdb.\n")?,
        Output::Table => print(&(removed.join("\n") + "\n"))?,
    }
    Ok(code)
}
