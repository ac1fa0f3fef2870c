//! `coderdb migrate up`.

use std::{env, fs, process::ExitCode, time::Duration};

use serde_json::json;

use super::{
    super::{
        connect::{Database, is_pooled},
        error::{CliError, UNFIT},
        output::{Output, note, print, print_json, table},
        signals::Signals,
        values::length,
    },
    Limit, length_or_none,
};
use crate::migrate::{self, Applied, Event, MigrateOptions, Migrations, Stop};

/// Apply what is pending
///
/// Safe when several start at once: one applies, the others wait for it. On SIGTERM or SIGINT it stops before the next
/// migration; after the time of grace, or on a second signal, it cancels the statement under way.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  coderdb migrate up\n  coderdb migrate up --target 5\n  coderdb migrate up --max-stall \
                        100ms --output json"
)]
pub(in crate::cli) struct Args {
    /// Stop after this version
    #[arg(long, value_name = "VERSION")]
    target: Option<i64>,
    #[command(flatten)]
    limits: Limits,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

/// How long a run waits for what.
#[derive(Debug, clap::Args)]
pub(super) struct Limits {
    /// How long to wait for another runner to finish
    #[arg(long, value_name = "DURATION", env = "CODERDB_RUNNER_LOCK_TIMEOUT", default_value = "15m", value_parser = seconds)]
    runner_lock_timeout: Duration,
    /// How long others may be delayed because a migration waits for a table; `none` for as long as it waits
    #[arg(long, value_name = "DURATION", env = "CODERDB_MAX_STALL", default_value = "250ms", value_parser = length_or_none)]
    max_stall: Limit,
    /// How long one attempt may wait for a table where only an autovacuum is in the way, or where there is no
    /// `--max-stall`
    #[arg(long, value_name = "DURATION", env = "CODERDB_LOCK_TIMEOUT", default_value = "2s", value_parser = length)]
    lock_timeout: Duration,
    /// How long to try to get the tables of one migration, and to wait for transactions that are older than an index
    #[arg(long, value_name = "DURATION", env = "CODERDB_LOCK_PATIENCE", default_value = "60s", value_parser = length)]
    lock_patience: Duration,
    /// How long a statement may run; 0 for as long as it takes
    #[arg(long, value_name = "DURATION", env = "CODERDB_STATEMENT_TIMEOUT", default_value = "0", value_parser = length)]
    statement_timeout: Duration,
    /// How long the statement under way may go on after a signal
    #[arg(long, value_name = "DURATION", env = "CODERDB_GRACE", default_value = "25s", value_parser = length)]
    grace: Duration,
}

impl Limits {
    pub(super) fn options(&self, migrations: Migrations) -> MigrateOptions {
        MigrateOptions {
            runner_lock_timeout: self.runner_lock_timeout,
            max_stall: self.max_stall.0,
            lock_timeout: self.lock_timeout,
            lock_retry_budget: self.lock_patience,
            statement_timeout: self.statement_timeout,
            ..who(migrations)
        }
    }

    /// Runs to the end, or until it is stopped by a signal. Gives what was done, and which signal came.
    pub(super) async fn run<T>(
        &self,
        stop: &Stop,
        signals: &mut Signals,
        run: impl Future<Output = Result<T, CliError>>,
    ) -> Result<(T, ExitCode), CliError> {
        let mut ended_by = None;
        let result = {
            tokio::pin!(run);
            tokio::select! {
                result = &mut run => result,
                () = until_canceled(stop, self.grace, signals, &mut ended_by) => {
                    // A statement that is canceled is rolled back. One that does not react to the cancel is left
                    // behind.
                    tokio::time::timeout(Duration::from_secs(3), run).await.unwrap_or(Err(stopped()))
                }
            }
        };
        match (result, ended_by) {
            // Also if everything was done by then: the sender of a signal expects its exit code.
            (Ok(done), _) => Ok((done, ended_by.map_or(ExitCode::SUCCESS, ExitCode::from))),
            (Err(error), Some(signal)) if error.is_stop() => Err(error.with_code(signal)),
            (Err(error), _) => Err(error),
        }
    }
}

/// A duration; a bare number is one of seconds.
fn seconds(text: &str) -> Result<Duration, String> {
    text.parse().map(Duration::from_secs).or_else(|_| length(text))
}

pub(super) async fn run(
    database: &mut Database,
    migrations: Migrations,
    args: &Args,
    signals: &mut Signals,
) -> Result<ExitCode, CliError> {
    let options = MigrateOptions { target: args.target, ..args.limits.options(migrations) };
    let stop = options.stop.clone();
    let (applied, code) = args.limits.run(&stop, signals, up(database, options)).await?;
    match args.output {
        Output::Json => print_json(&json!({ "format": 1, "applied": applied }))?,
        Output::Table => print(&report(&applied))?,
    }
    Ok(code)
}

fn stopped() -> CliError {
    migrate::Error::Stopped.into()
}

/// Asks the run to stop at the first signal, and cancels it at the second one, or after the time of grace.
async fn until_canceled(stop: &Stop, grace: Duration, signals: &mut Signals, ended_by: &mut Option<u8>) {
    *ended_by = Some(signals.next().await as u8);
    note(&format!("stopping before the next migration, at the latest in {} s", grace.as_secs()));
    stop.request();
    tokio::select! {
        _ = signals.next() => {}
        () = tokio::time::sleep(grace) => {}
    }
    note("canceling the statement under way");
    stop.cancel();
}

/// Migrates, and says on standard error what takes long.
pub(in crate::cli) async fn up(database: &mut Database, mut options: MigrateOptions) -> Result<Vec<Applied>, CliError> {
    if is_pooled()? && !migrate::status_of(database, &options.migrations).await?.is_current() {
        return Err(pooled());
    }
    options.observer = Some(database.options().clone());
    Ok(migrate::up(database, &options, |event| say(&event)).await?)
}

/// A runner's lock is one of its session.
pub(super) fn pooled() -> CliError {
    CliError::new(UNFIT, "a migration holds a lock of its session, and a transaction pooler lends it none")
        .next("migrate over a direct connection, without CODERDB_POOLER")
}

/// Says what takes long.
pub(super) fn say(event: &Event<'_>) {
    let of = |version: i64| if version == 0 { "indexes".to_owned() } else { format!("V{version:04}") };
    match event {
        Event::Waiting { holders } => {
            let holders: Vec<_> = holders.iter().map(ToString::to_string).collect();
            note(&format!("waiting for another runner: {}", holders.join(", ")));
        }
        Event::Started { version, name } => note(&format!("applying {}__{name}", of(*version))),
        Event::Retrying { version, attempt, blockers } => {
            let behind = if blockers.is_empty() { String::new() } else { format!(", behind {blockers}") };
            let version = of(*version);
            note(&format!("{version}: no table lock in attempt {attempt}{behind}; trying again"));
        }
        Event::Building { version, progress } => {
            let migrate::Progress { phase, done, total, blockers } = progress;
            let version = of(*version);
            let of = if *total > 0 { format!(", {done} of {total}") } else { String::new() };
            let behind = if blockers.is_empty() { String::new() } else { format!(", behind {blockers}") };
            note(&format!("{version}: {phase}{of}{behind}"));
        }
    }
}

/// What is said of who runs this.
pub(in crate::cli) fn who(migrations: Migrations) -> MigrateOptions {
    let host = env::var("HOSTNAME").ok().or_else(|| fs::read_to_string("/etc/hostname").ok());
    let host = host.map(|host| host.trim().to_owned()).filter(|host| !host.is_empty());
    MigrateOptions { migrations, host, ..MigrateOptions::default() }
}

/// What was applied, for people.
pub(in crate::cli) fn report(applied: &[Applied]) -> String {
    if applied.is_empty() {
        return "The schema is up to date.\n".to_owned();
    }
    let rows = applied.iter().map(|migration| {
        [
            format!("V{:04}", migration.version),
            migration.name.clone(),
            format!("{} ms", migration.milliseconds),
            migration.delay_milliseconds.map_or_else(String::new, |delay| format!("{delay} ms")),
        ]
    });
    table(&["version", "name", "took", "delayed others"], rows)
}
