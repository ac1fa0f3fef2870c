//! SIGTERM and SIGINT, also as the first process of a container, where the kernel ignores what nobody handles.

use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::error::CliError;

/// The signals that end a program.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

/// The exit code of a program that a signal has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndedBy {
    Interrupt = 130,
    Terminate = 143,
}

impl From<EndedBy> for ExitCode {
    fn from(signal: EndedBy) -> Self {
        Self::from(signal as u8)
    }
}

impl Signals {
    pub(super) fn new() -> Result<Self, CliError> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> EndedBy {
        tokio::select! {
            _ = self.interrupt.recv() => EndedBy::Interrupt,
            _ = self.terminate.recv() => EndedBy::Terminate,
        }
    }
}

/// Does the work, unless a signal comes first: for work that leaves nothing behind.
pub(super) async fn or_end<T>(
    signals: &mut Signals,
    work: impl Future<Output = Result<T, CliError>>,
) -> Result<T, CliError> {
    tokio::select! {
        done = work => done,
        signal = signals.next() => Err(CliError::new(signal as u8, "stopped by a signal")),
    }
}
