//! `coderdb migrate history`.

use std::process::ExitCode;

use serde_json::json;

use super::super::{
    error::CliError,
    output::{Output, print, print_json, table},
};
use crate::{migrate, store::PgConnection};

/// Show who changed the schema, when, from where, how long it took, and with which program
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coderdb migrate history\n  coderdb migrate history -o json")]
pub(in crate::cli) struct Args {
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

pub(super) async fn run(conn: &mut PgConnection, args: &Args) -> Result<ExitCode, CliError> {
    let done = migrate::history(conn).await?;
    match args.output {
        Output::Json => print_json(&json!({ "format": 1, "history": done }))?,
        Output::Table => {
            let rows = done.iter().map(|done| {
                let version = done.version.map(|version| format!("V{version:04}"));
                let statement = done.statement.map(|statement| format!(" {statement}"));
                let from = [&done.host, &done.address].into_iter().flatten().map(String::as_str).collect::<Vec<_>>();
                let millis = |millis: Option<i64>| millis.map_or_else(String::new, |millis| format!("{millis} ms"));
                [
                    done.at.clone(),
                    format!("{}{}", done.action, statement.unwrap_or_default()),
                    version.unwrap_or_default(),
                    done.name.clone().unwrap_or_default(),
                    millis(done.milliseconds),
                    millis(done.delay_milliseconds),
                    done.role.clone().unwrap_or_default(),
                    from.join(" "),
                    done.program.clone().unwrap_or_default(),
                ]
            });
            let headings = ["at", "action", "version", "name", "took", "delayed others", "by", "from", "with"];
            print(&table(&headings, rows))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
