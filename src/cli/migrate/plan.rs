//! `coderdb migrate plan`.

use std::process::ExitCode;

use serde_json::json;

use super::super::{
    error::CliError,
    output::{Output, print, print_json, table},
};
use crate::{
    migrate::{self, Migrations},
    store::PgConnection,
};

/// Show what `up` would run; changes nothing
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  coderdb migrate plan\n  coderdb migrate plan --sql\n  coderdb migrate plan --locks"
)]
pub(in crate::cli) struct Args {
    /// With the text of each migration
    #[arg(long)]
    sql: bool,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

pub(super) async fn run(conn: &mut PgConnection, migrations: &Migrations, args: &Args) -> Result<ExitCode, CliError> {
    let plan = migrate::plan(conn, migrations).await?;
    match args.output {
        Output::Json => {
            let pending: Vec<_> = plan
                .iter()
                .map(|planned| {
                    let mut entry = json!({
                        "version": planned.version,
                        "name": planned.name,
                        "transaction": planned.in_transaction,
                        "statements": planned.statements.len(),
                    });
                    if args.sql {
                        entry["sql"] = planned.sql.into();
                    }
                    entry
                })
                .collect();
            print_json(&json!({ "format": 1, "pending": pending }))?;
        }
        Output::Table if plan.is_empty() => print("Nothing is pending.\n")?,
        Output::Table if args.sql => {
            for planned in &plan {
                print(&format!("-- V{:04}__{}\n{}\n", planned.version, planned.name, planned.sql.trim_end()))?;
            }
        }
        Output::Table => {
            let rows = plan.iter().map(|planned| {
                [
                    format!("V{:04}", planned.version),
                    planned.name.to_owned(),
                    planned.statements.len().to_string(),
                    if planned.in_transaction { "one transaction" } else { "statement by statement" }.to_owned(),
                ]
            });
            print(&table(&["version", "name", "statements", "runs in"], rows))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
