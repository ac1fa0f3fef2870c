//! `coderdb migrate check`.

use std::{process::ExitCode, time::Duration};

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{
    super::{
        connect::is_pooled,
        error::CliError,
        output::{Output, note, print, print_json},
        values::length,
    },
    adopt,
    status::code,
};
use crate::{
    migrate::{self, Fit, Migrations},
    store::PgConnection,
};

/// From one look to the next.
const POLL: Duration = Duration::from_millis(500);

/// Say by the exit code whether the schema and this version fit together
///
/// For readiness probes and init containers: one round trip, a role that may only read, a standby will do. A schema
/// that is newer fits, unless one of its newer migrations is `breaking_`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  coderdb migrate check\n  coderdb migrate check --wait 5m\n\nExit codes: 0 fits, 3 \
                        migrations are pending, 4 unreachable, 5 somebody has locked what it reads, 12 the history is wrong, 13 the schema is too new."
)]
pub(in crate::cli) struct Args {
    /// Wait so long for the database, for another runner to apply pending migrations, and for locks on what it reads
    #[arg(long, value_name = "DURATION", value_parser = length)]
    pub(super) wait: Option<Duration>,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

pub(super) async fn run(conn: &mut PgConnection, migrations: &Migrations, args: &Args) -> Result<ExitCode, CliError> {
    let deadline = Instant::now() + args.wait.unwrap_or_default();
    let mut is_told = false;
    let (status, differences) = loop {
        let is_late = Instant::now() >= deadline;
        let status = migrate::status_of(conn, migrations).await?;
        let waits_for = match migrate::differences(conn, &status).await {
            // Coder's own server migrates.
            Err(error @ migrate::Error::MigratorBusy { .. }) if !is_late => error.to_string(),
            Ok(_) if status.fit() == Fit::Pending && !is_late => {
                format!("{} migrations that are pending", status.pending().count())
            }
            differences => break (status, differences?),
        };
        if !is_told {
            note(&format!("waiting for {waits_for}"));
            // A session that idles may be ended; one of a pooler is not ours to keep.
            if !is_pooled()? {
                migrate::pin(conn).await?;
            }
            is_told = true;
        }
        sleep(POLL.min(deadline.saturating_duration_since(Instant::now()))).await;
    };
    let fit = if differences.is_empty() { status.fit() } else { Fit::Diverged };
    let adopted = status.adopted.map_or_else(String::new, |adopted| format!("{adopted}: "));
    match args.output {
        Output::Json => {
            let mut document = json!({
                "format": 1,
                "fit": fit,
                "version": status.version,
                "newest": status.newest,
                "pending": status.pending().count(),
            });
            if status.adopted.is_some() {
                document["adopted"] = json!(status.adopted);
                document["differences"] = differences.iter().map(adopt::difference).collect();
            }
            print_json(&document)?;
        }
        Output::Table => {
            let version = status.version.map_or_else(|| "none".to_owned(), |version| version.to_string());
            let newest = status.newest;
            let text = match fit {
                _ if !differences.is_empty() => {
                    let differences: Vec<_> = differences.iter().map(ToString::to_string).collect();
                    format!("run `coderdb migrate adopt` again: {}\n", differences.join("; "))
                }
                Fit::Current => format!("fits: the schema is at version {version}\n"),
                Fit::Newer => {
                    format!("fits: the schema is at version {version}, newer than {newest}, and compatible\n")
                }
                Fit::Pending => {
                    let count = status.pending().count();
                    format!("pending: {count} migrations, from version {version} to {newest}\n")
                }
                Fit::TooNew | Fit::Diverged => {
                    let problems: Vec<_> = status.problems().iter().map(ToString::to_string).collect();
                    format!("does not fit: {}\n", problems.join("; "))
                }
            };
            print(&(adopted + &text))?;
        }
    }
    Ok(code(fit))
}
