//! `coderdb postgres`.

use std::{ffi::OsString, process::ExitCode, thread};

use clap::Subcommand;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::{
    error::{CliError, FAILED},
    output::{Output, note, print, print_json, table},
};
use crate::{
    connect::configured,
    postgres::{DATABASE, Server, Settings, Stopped, status, stop, supervise},
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print the connection URL of the private server
    #[command(after_help = "Example:\n  psql \"$(coderdb postgres url)\"     while `coderdb postgres run` keeps it up")]
    Url,
    /// Show whether the private server runs; starts nothing
    #[command(after_help = "Example:\n  coderdb postgres status -o json")]
    Status {
        #[arg(short, long, value_enum, default_value = "table")]
        output: Output,
    },
    /// Keep the private server up until Ctrl-C, for programs that are not coderdb
    #[command(after_help = "Example:\n  coderdb postgres run")]
    Run,
    /// Stop the private server
    #[command(after_help = "Examples:\n  coderdb postgres stop\n  coderdb postgres stop --force")]
    Stop {
        /// Also when other commands use it
        #[arg(long)]
        force: bool,
    },
    /// Open psql on the private server
    #[command(after_help = "Example:\n  coderdb postgres psql -- -c 'SELECT count(*) FROM provisioner_jobs'")]
    Psql {
        /// Arguments for psql
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    #[command(hide = true)]
    Supervise {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

pub(super) fn run(command: Command) -> Result<ExitCode, CliError> {
    if let Command::Supervise { args } = command {
        return Ok(supervise(args));
    }
    if let Some(variable) = configured() {
        note(&format!("note: {variable} is set, so the other commands use that database, not the private server"));
    }
    let settings = Settings::development()?;
    let open = || Server::open(&settings, |notice| note(&notice.to_string()));
    match command {
        Command::Url => print(&format!("{}\n", open()?.url(DATABASE)))?,
        Command::Status { output } => show_status(&settings, output)?,
        Command::Run => {
            let server = open()?;
            print(&format!("{}\n", server.url(DATABASE)))?;
            note("the private server stays up until Ctrl-C");
            // The kernel lets go for this process when it is killed, and the server stops then.
            loop {
                thread::park();
            }
        }
        Command::Stop { force } => match stop(&settings, force)? {
            Stopped::Stopped => print("stopped\n")?,
            Stopped::NotRunning => print("not running\n")?,
        },
        Command::Psql { args } => {
            // Ctrl-C is for psql; ours would take the server from under it.
            let _ours = signal(SignalKind::interrupt())?;
            let code = open()?.psql_command(DATABASE)?.args(args).status()?.code();
            return Ok(ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED)));
        }
        Command::Supervise { .. } => unreachable!("handled above"),
    }
    Ok(ExitCode::SUCCESS)
}

fn show_status(settings: &Settings, output: Output) -> Result<(), CliError> {
    let status = status(settings)?;
    let running = status.running.as_ref();
    if output == Output::Json {
        return print_json(&json!({
            "running": running.is_some(),
            "data_dir": status.data_dir.to_string_lossy(),
            "pid": running.map(|r| r.pid),
            "version": running.map(|r| &r.version),
            "socket_dir": running.map(|r| r.socket_dir.to_string_lossy()),
            "url": running.map(|r| &r.url),
            "connections": running.and_then(|r| r.connections),
        }));
    }
    let mut rows = vec![
        ["running".to_owned(), if running.is_some() { "yes" } else { "no" }.to_owned()],
        ["data directory".to_owned(), status.data_dir.display().to_string()],
    ];
    if let Some(running) = running {
        rows.extend([
            ["process".to_owned(), running.pid.to_string()],
            ["version".to_owned(), running.version.clone()],
            ["socket directory".to_owned(), running.socket_dir.display().to_string()],
            ["url".to_owned(), running.url.clone()],
            ["connections".to_owned(), running.connections.map(|n| n.to_string()).unwrap_or_default()],
        ]);
    }
    print(&table(&["property", "value"], rows))
}
