//! SIGTERM, SIGINT and SIGHUP, also as the first process of a container, where the kernel ignores signals without a
//! handler.

use std::{fs, process::ExitCode};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::error::CliError;

/// The signals that end a program.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// `None` if the parent process set it to be ignored, as `nohup` does.
    hangup: Option<Signal>,
}

/// The exit code of a program that a signal has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndedBy {
    Hangup = 129,
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
        let hangup = if is_hangup_ignored() { None } else { Some(signal(SignalKind::hangup())?) };
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())?, hangup })
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> EndedBy {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = hangup => EndedBy::Hangup,
            _ = self.interrupt.recv() => EndedBy::Interrupt,
            _ = self.terminate.recv() => EndedBy::Terminate,
        }
    }
}

/// Read from `/proc` on Linux; elsewhere it cannot be read without unsafe code.
fn is_hangup_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 != 0)
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
