//! Tables for people: a line per row, as wide as the terminal where there is one.

use std::{
    env,
    io::{self, IsTerminal},
};

use anstyle::{AnsiColor, Style};
use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

/// Between two columns.
const GAP: usize = 2;

/// What a column is cut to before others are cut that say more when they are whole.
const ENOUGH: usize = 8;
/// What a column is cut to at last.
const LEAST: usize = 4;

/// What the place where a table goes asks for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Medium {
    /// How many cells a line has; `None` for any number.
    pub(super) width: Option<usize>,
    /// Whether it shows colours.
    pub(super) colored: bool,
    /// Whether a person looks at it now, to whom "2 hours ago" says more than a time.
    pub(super) is_live: bool,
}

impl Medium {
    /// Standard output: what COLUMNS says, else the width of the terminal, if it is one.
    pub(super) fn stdout() -> Self {
        let columns = env::var("COLUMNS").ok().and_then(|text| text.parse().ok()).filter(|columns| *columns > 0);
        let terminal = || terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| usize::from(width.0));
        let choice = anstream::AutoStream::choice(&io::stdout());
        Self {
            width: columns.or_else(terminal),
            colored: choice != anstream::ColorChoice::Never,
            is_live: io::stdout().is_terminal(),
        }
    }
}

/// A text, and how it looks where there are colours.
#[derive(Debug, Clone, Default)]
pub(super) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    pub(super) fn colored(text: impl Into<String>, color: AnsiColor) -> Self {
        Self { text: text.into(), style: Style::new().fg_color(Some(color.into())) }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), style: Style::new() }
    }
}

/// A column: its heading, and when it is cut.
#[derive(Debug, Clone)]
pub(super) struct Heading {
    pub(super) text: String,
    pub(super) truncation: Truncation,
}

/// When a column is cut: one of a later kind only when cutting those of the earlier ones is not enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Truncation {
    First,
    Later,
    Last,
}

/// A table that may come in several pages: the headings once, and columns that only grow.
pub(super) struct Table {
    headings: Vec<Heading>,
    medium: Medium,
    natural: Vec<usize>,
    is_begun: bool,
}

impl Table {
    pub(super) fn new(headings: impl IntoIterator<Item = Heading>, medium: Medium) -> Self {
        let capitals = |heading: Heading| Heading { text: heading.text.to_uppercase(), ..heading };
        let headings: Vec<_> = headings.into_iter().map(capitals).collect();
        let natural = headings.iter().map(|heading| heading.text.width()).collect();
        Self { headings, medium, natural, is_begun: false }
    }

    /// The lines of these rows, below those that were asked for before.
    pub(super) fn page(&mut self, rows: Vec<Vec<Cell>>) -> String {
        let rows: Vec<Vec<Cell>> = rows
            .into_iter()
            .map(|row| row.into_iter().map(|cell| Cell { text: one_line(&cell.text), ..cell }).collect())
            .collect();
        for row in &rows {
            for (widest, cell) in self.natural.iter_mut().zip(row) {
                *widest = (*widest).max(cell.text.width());
            }
        }
        let widths = match self.medium.width {
            Some(width) => self.fit(width.saturating_sub(GAP * self.headings.len().saturating_sub(1))),
            None => self.natural.clone(),
        };
        let mut text = String::new();
        if !self.is_begun {
            let bold = |heading: &Heading| Cell { text: heading.text.clone(), style: Style::new().bold() };
            self.line(&mut text, &widths, &self.headings.iter().map(bold).collect::<Vec<_>>());
            self.is_begun = true;
        }
        for row in &rows {
            self.line(&mut text, &widths, row);
        }
        text
    }

    fn line(&self, text: &mut String, widths: &[usize], cells: &[Cell]) {
        // Spaces that are owed to the next cell: a line ends with its last character.
        let mut owed = 0;
        for (cell, width) in cells.iter().zip(widths) {
            let shown = truncate(&cell.text, *width);
            if !shown.is_empty() {
                text.extend(std::iter::repeat_n(' ', owed));
                owed = 0;
                if self.medium.colored && cell.style != Style::new() {
                    text.extend([
                        cell.style.render().to_string(),
                        shown.clone(),
                        cell.style.render_reset().to_string(),
                    ]);
                } else {
                    text.push_str(&shown);
                }
            }
            owed += width.saturating_sub(shown.width()) + GAP;
        }
        text.push('\n');
    }

    /// Widths of the columns that come to no more than this, if there is any way.
    fn fit(&self, available: usize) -> Vec<usize> {
        if self.natural.iter().sum::<usize>() <= available {
            return self.natural.clone();
        }
        // What is cut before is as narrow as it gets, what is cut later is whole.
        let fixed = |now: Truncation, truncation: Truncation, width: usize| {
            if truncation < now { width.min(LEAST) } else { width }
        };
        let columns = || self.headings.iter().map(|heading| heading.truncation).zip(self.natural.iter().copied());
        let others = |now: Truncation| -> usize {
            columns()
                .filter(|(truncation, _)| *truncation != now)
                .map(|(truncation, width)| fixed(now, truncation, width))
                .sum()
        };
        let capped = |now: Truncation, cap: usize| -> usize {
            columns().filter(|(truncation, _)| *truncation == now).map(|(_, width)| width.min(cap)).sum()
        };
        let is_enough = |now: Truncation, cap: usize| others(now) + capped(now, cap) <= available;
        let now = match () {
            () if is_enough(Truncation::First, ENOUGH) => Truncation::First,
            () if is_enough(Truncation::Later, LEAST) => Truncation::Later,
            () => Truncation::Last,
        };
        // Columns that are cut share what there is; what is narrower leaves its part to the others.
        let rest = available.saturating_sub(others(now));
        let cap = (LEAST..=rest.max(LEAST)).rev().find(|cap| capped(now, *cap) <= rest).unwrap_or(LEAST);
        let mut left = rest.saturating_sub(capped(now, cap));
        let widths = columns().map(|(truncation, width)| {
            if truncation != now {
                return fixed(now, truncation, width);
            }
            let is_wider = width > cap && left > 0;
            left -= usize::from(is_wider);
            width.min(cap + usize::from(is_wider))
        });
        widths.collect()
    }
}

/// A table on standard output whose first column names the rows, and is cut last.
pub(super) fn listing(headings: &[&str]) -> Table {
    let heading = |(n, text): (usize, &&str)| Heading {
        text: (*text).to_owned(),
        truncation: if n == 0 { Truncation::Last } else { Truncation::First },
    };
    Table::new(headings.iter().enumerate().map(heading), Medium::stdout())
}

/// A table on standard output: a line of headings in capitals and a line per row.
pub(super) fn table<I, R>(headings: &[&str], rows: I) -> String
where
    I: IntoIterator<Item = R>,
    R: IntoIterator<Item = String>,
{
    listing(headings).page(rows.into_iter().map(|row| row.into_iter().map(Cell::from).collect()).collect())
}

/// As many whole characters as fit, with an ellipsis for the rest.
pub(super) fn truncate(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut shown = String::new();
    for character in text.graphemes(true) {
        if shown.width() + character.width() + 1 > width {
            break;
        }
        shown.push_str(character);
    }
    if width > 0 {
        shown.push('…');
    }
    shown
}

/// A stored text may hold line breaks, control characters, and a megabyte. A row is one line, and its widest cell pads
/// all the others; JSON has the whole text.
pub(super) fn one_line(cell: &str) -> String {
    const WIDEST: usize = 400;
    let mut line: String =
        cell.chars().take(WIDEST).map(|c| if super::text::breaks_lines(c) { ' ' } else { c }).collect();
    if cell.chars().nth(WIDEST).is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn widths(natural: &[(usize, Truncation)], available: usize) -> Vec<usize> {
        let headings =
            natural.iter().map(|(width, truncation)| Heading { text: "x".repeat(*width), truncation: *truncation });
        Table::new(headings, Medium::default()).fit(available)
    }

    #[test]
    fn what_says_more_when_it_is_whole_is_cut_last() {
        let natural =
            [(36, Truncation::Later), (40, Truncation::First), (9, Truncation::Later), (12, Truncation::First)];
        assert_eq!(widths(&natural, 97), [36, 40, 9, 12]);
        assert_eq!(widths(&natural, 96), [36, 39, 9, 12]);
        assert_eq!(widths(&natural, 70), [36, 13, 9, 12]);
        assert_eq!(widths(&natural, 61), [36, 8, 9, 8]);
        assert_eq!(widths(&natural, 60), [36, 4, 9, 4], "the keys have room again");
        assert_eq!(widths(&natural, 40), [23, 4, 9, 4]);
        assert_eq!(widths(&natural, 3), [4, 4, 4, 4], "narrower than this says nothing");
        let with_id = [
            (20, Truncation::Later),
            (36, Truncation::Last),
            (24, Truncation::First),
            (9, Truncation::Later),
            (30, Truncation::First),
        ];
        assert_eq!(widths(&with_id, 73), [20, 36, 4, 9, 4]);
        assert_eq!(widths(&with_id, 60), [8, 36, 4, 8, 4]);
        assert_eq!(widths(&with_id, 52), [4, 36, 4, 4, 4]);
        assert_eq!(widths(&with_id, 51), [4, 35, 4, 4, 4], "an id that is cut is no id");
    }

    #[test]
    fn widths_never_exceed_what_there_is_and_use_it_up() {
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..10_000 {
            let natural: Vec<_> = (0..rng.usize(1..9))
                .map(|_| (rng.usize(1..60), [Truncation::First, Truncation::Later, Truncation::Last][rng.usize(0..3)]))
                .collect();
            let (least, most) = natural.iter().fold((0, 0), |(a, b), (width, _)| (a + width.min(&LEAST), b + width));
            let available = rng.usize(least..=most);
            let sum: usize = widths(&natural, available).iter().sum();
            assert!(sum <= available, "{natural:?} in {available}: {sum}");
        }
    }

    #[test]
    fn a_text_is_cut_between_characters_as_people_see_them() {
        for (text, width, shown) in [
            ("abc", 3, "abc"),
            ("abcd", 3, "ab…"),
            ("日本語", 6, "日本語"),
            ("日本語", 5, "日本…"),
            ("日本語", 4, "日…"),
            ("👨‍👩‍👧x", 3, "👨‍👩‍👧x"),
            ("👨‍👩‍👧xy", 3, "👨‍👩‍👧…"),
            ("👨‍👩‍👧", 1, "…"),
            ("e\u{301}e\u{301}e\u{301}", 2, "e\u{301}…"),
            ("abc", 0, ""),
        ] {
            assert_eq!(truncate(text, width), shown, "{text} in {width}");
            assert!(truncate(text, width).width() <= width, "{text} in {width}");
        }
    }
}
