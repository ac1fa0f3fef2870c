//! `coderdb migrate status`.

use std::process::ExitCode;

use super::super::{
    error::{CliError, HISTORY, PENDING},
    output::{Output, print, print_json, table},
};
use crate::{migrate, store::PgConnection};

/// Show what is applied, pending and wrong; changes nothing
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coderdb migrate status\n  coderdb migrate status --exit-code -o json")]
pub(in crate::cli) struct Args {
    /// Exit with 3 when migrations are pending, and with 12 when the history is wrong
    #[arg(long)]
    exit_code: bool,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

pub(super) async fn run(conn: &mut PgConnection, args: &Args) -> Result<ExitCode, CliError> {
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
