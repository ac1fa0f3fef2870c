//! What is said on standard error: to people, or to machines as a JSON object per line.

use std::{
    io::{self, Write as _},
    sync::atomic::{AtomicBool, Ordering},
};

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::text::{escaped, printable, rfc_3339};

static IS_JSON: AtomicBool = AtomicBool::new(false);

/// From now on, notes are JSON, too.
pub(super) fn log_as_json() {
    IS_JSON.store(true, Ordering::Relaxed);
}

/// Writes a message to standard error, as text or as a line of the log. A failed write is ignored: it must not end the
/// work.
pub(super) fn note(text: &str) {
    let text = printable(text);
    if IS_JSON.load(Ordering::Relaxed) {
        write(json!({ "event": "note", "level": "INFO", "message": text }));
    } else {
        let _ = writeln!(io::stderr(), "{text}");
    }
}

/// Writes a line of the log.
pub(super) fn write(mut line: Value) {
    line["time"] = rfc_3339(OffsetDateTime::now_utc()).into();
    // A failed write is ignored: it must not end the work.
    let _ = writeln!(io::stderr(), "{}", escaped(&line.to_string()));
}
