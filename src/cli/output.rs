//! Tables for people, JSON for machines.

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::{Table, presets};
use serde::Serialize;

use super::{
    error::{CliError, FAILED},
    log,
};

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// Columns for people
    Table,
    /// JSON for machines
    Json,
}

/// Prints a result. A reader that has gone away, as `head` does, is no failure.
pub(super) fn print(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Tells a person something on standard error. When nobody can read it, the work goes on all the same.
pub(super) fn note(text: &str) {
    let text = printable(text);
    if !log::note(&text) {
        let _ = writeln!(io::stderr(), "{text}");
    }
}

/// The text without what steers a terminal; its line breaks stay.
pub(super) fn printable(text: &str) -> String {
    text.replace(|c| !matches!(c, '\n' | '\t') && breaks_lines(c), " ")
}

/// Whether a character ends a line, steers a terminal, or shows the text after it in another order.
fn breaks_lines(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Prints a result as JSON.
pub(super) fn print_json(value: &impl Serialize) -> Result<(), CliError> {
    let json = serde_json::to_string_pretty(value).map_err(|error| CliError::new(FAILED, error.to_string()))?;
    print(&(json + "\n"))
}

/// A table with a line of headings in capitals and a line per row.
pub(super) fn table<I, R>(headings: &[&str], rows: I) -> String
where
    I: IntoIterator<Item = R>,
    R: IntoIterator<Item = String>,
{
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(headings.iter().map(|heading| heading.to_uppercase()));
    for row in rows {
        table.add_row(row.into_iter().map(|cell| one_line(&cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A stored text may hold line breaks, control characters, and a megabyte. A row is one line, and its widest cell pads
/// all the others; JSON has the whole text.
pub(super) fn one_line(cell: &str) -> String {
    const WIDEST: usize = 400;
    let mut line: String = cell.chars().take(WIDEST).map(|c| if breaks_lines(c) { ' ' } else { c }).collect();
    if cell.chars().nth(WIDEST).is_some() {
        line.push('…');
    }
    line
}
