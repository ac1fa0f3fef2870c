//! `coderdb migrate plan`.

use std::process::ExitCode;

use serde_json::json;

use super::super::{
    error::CliError,
    output::{Output, print, print_json, table},
};
use crate::{
    migrate::{self, Migrations, Planned},
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
    /// With the tables that each statement locks and rewrites, of those that are there before its migration
    #[arg(long, conflicts_with = "sql")]
    locks: bool,
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
                    if args.locks {
                        entry["locks"] = json!(planned.locks);
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
        Output::Table if args.locks => print(&locks(&plan))?,
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

/// A line for each table that a statement locks.
fn locks(plan: &[Planned<'_>]) -> String {
    let mut rows = Vec::new();
    for planned in plan {
        let migration = format!("V{:04}__{}", planned.version, planned.name);
        let Some(statements) = &planned.locks else {
            rows.push([migration, String::new(), "not known".to_owned(), String::new(), String::new()]);
            continue;
        };
        let before = rows.len();
        for of in statements {
            let line = planned.statements.get(of.statement - 1).map_or_else(String::new, |(line, _)| line.to_string());
            for (table, mode) in &of.locks {
                let rewrites = if of.rewrites.contains(table) { "rewritten" } else { "" };
                let mode = mode.strip_suffix("Lock").unwrap_or(mode).to_owned();
                rows.push([migration.clone(), line.clone(), table.clone(), mode, rewrites.to_owned()]);
            }
        }
        if rows.len() == before {
            rows.push([migration, String::new(), "none that is there before".to_owned(), String::new(), String::new()]);
        }
    }
    table(&["migration", "line", "table", "lock", ""], rows)
}
