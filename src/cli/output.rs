//! Tables for people, JSON for machines.

use std::{
    io::{self, Write},
    os::fd::AsFd as _,
};

use clap::ValueEnum;
use serde::Serialize;
use tokio::{io::Interest, net::unix::pipe::Sender};

use super::error::{CliError, FAILED};

pub(super) use super::{
    note::note,
    table::table,
    text::{escaped, printable, rfc_3339},
};

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// Columns for people
    Table,
    /// JSON for machines
    Json,
}

/// How a listing is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Columns for people, as wide as the terminal
    Table,
    /// More columns, not cut to the terminal, with exact times
    Wide,
    /// JSON for machines: an array
    Json,
    /// JSON for machines: an object per line
    Jsonl,
    /// The columns for machines, separated by commas
    Csv,
    /// Ids and nothing else, one per line
    Name,
}

/// Prints a result. A reader that has gone away, as `head` does, is no failure.
pub(super) fn print(text: &str) -> Result<(), CliError> {
    print_on(text).map(drop)
}

/// Prints a part of a result. Returns whether the reader is still there.
pub(super) fn print_on(text: &str) -> Result<bool, CliError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        written => Ok(written.is_ok()),
    }
}

/// Waits until the reader of standard output is gone. Never returns where that cannot be detected, as with a file.
pub(super) async fn nobody_reads() {
    // Unchecked: what is made sure of besides would make writing to it fail where it is to wait.
    let stdout = io::stdout().as_fd().try_clone_to_owned().and_then(Sender::from_owned_fd_unchecked);
    match stdout {
        Ok(stdout) => drop(stdout.ready(Interest::ERROR).await),
        Err(_) => std::future::pending().await,
    }
}

/// A JSON object per line.
pub(super) fn json_lines(values: impl IntoIterator<Item = impl Serialize>) -> Result<String, CliError> {
    let line = |value| Ok(escaped(&serde_json::to_string(&value)?) + "\n");
    values.into_iter().map(line).collect()
}

/// A JSON array that is printed while its elements come.
#[derive(Default)]
pub(super) struct Array {
    is_begun: bool,
}

impl Array {
    /// The text of these elements, behind those that were asked for before.
    pub(super) fn push(&mut self, values: impl IntoIterator<Item = impl Serialize>) -> Result<String, CliError> {
        let mut text = String::new();
        for value in values {
            text.push_str(if self.is_begun { "," } else { "[" });
            self.is_begun = true;
            // No text within has a line break: JSON escapes them.
            text.push_str(&format!("\n{}", escaped(&serde_json::to_string_pretty(&value)?)).replace('\n', "\n  "));
        }
        Ok(text)
    }

    /// What comes behind the last one.
    pub(super) const fn end(&self) -> &'static str {
        if self.is_begun { "\n]\n" } else { "[]\n" }
    }
}

/// Prints a result as JSON.
pub(super) fn print_json(value: &impl Serialize) -> Result<(), CliError> {
    print(&(escaped(&serde_json::to_string_pretty(value)?) + "\n"))
}

impl From<serde_json::Error> for CliError {
    fn from(error: serde_json::Error) -> Self {
        Self::new(FAILED, error.to_string())
    }
}
