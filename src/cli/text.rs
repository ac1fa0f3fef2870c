//! Texts as a terminal may get them.

use std::fmt::Write as _;

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// The text without what steers a terminal; its line breaks stay.
pub(super) fn printable(text: &str) -> String {
    text.replace(|c| !matches!(c, '\n' | '\t') && breaks_lines(c), " ")
}

/// Whether a character ends a line, steers a terminal, or shows the text after it in another order.
pub(super) fn breaks_lines(c: char) -> bool {
    let is_invisible =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || is_invisible
}

/// A moment for machines.
pub(super) fn rfc_3339(time: OffsetDateTime) -> String {
    // A year beyond 9999 has no such form.
    time.format(&Rfc3339).unwrap_or_default()
}

/// The same JSON for a terminal: what steers one, and JSON allows in a string, is escaped.
pub(super) fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if !c.is_ascii_control() && breaks_lines(c) || c == '\u{7f}' {
            let _ = write!(text, "\\u{:04x}", u32::from(c));
        } else {
            text.push(c);
        }
    }
    text
}
