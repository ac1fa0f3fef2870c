//! `coderdb migrate status`.

use std::process::ExitCode;

use serde_json::json;

use super::super::{
    error::{CliError, HISTORY, PENDING, TOO_NEW},
    output::{Output, note, print, print_json, table},
};
use crate::{
    migrate::{self, Fit, Migrations},
    store::PgConnection,
};

/// Show what is applied, pending and wrong; changes nothing
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coderdb migrate status\n  coderdb migrate status --exit-code -o json")]
pub(in crate::cli) struct Args {
    /// Exit with 3 when migrations are pending, 12 when the history is wrong, 13 when the schema is too new
    #[arg(long)]
    exit_code: bool,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

pub(super) async fn run(conn: &mut PgConnection, migrations: &Migrations, args: &Args) -> Result<ExitCode, CliError> {
    let status = migrate::status_of(conn, migrations).await?;
    match args.output {
        Output::Json => {
            let mut document = json!({
                "format": 1,
                "fit": status.fit(),
                "version": status.version,
                "newest": status.newest,
                "migrations": status.migrations,
            });
            if status.adopted.is_some() {
                document["adopted"] = json!(status.adopted);
            }
            print_json(&document)?;
        }
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
            if let Some(adopted) = status.adopted {
                note(&adopted.to_string());
            }
        }
    }
    Ok(if args.exit_code { code(status.fit()) } else { ExitCode::SUCCESS })
}

/// The exit code that says how a schema fits.
pub(super) fn code(fit: Fit) -> ExitCode {
    match fit {
        Fit::Current | Fit::Newer => ExitCode::SUCCESS,
        Fit::Pending => ExitCode::from(PENDING),
        Fit::TooNew => ExitCode::from(TOO_NEW),
        Fit::Diverged => ExitCode::from(HISTORY),
    }
}
