//! What is wrong with a query.

use crate::store;

/// A text that is no query: what is wrong with it, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("character {position}: {problem}")]
pub struct ParseError {
    /// Where the problem begins, in characters, counted from 1.
    pub position: usize,
    /// What it is.
    pub problem: Problem,
}

/// Why something is no term of a query.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// There is no such key.
    #[error("{found:?} is no key; {}", suggestion(*.nearest, super::Condition::KEYS))]
    UnknownKey {
        /// The key as it was given.
        found: String,
        /// The key that was probably meant.
        nearest: Option<&'static str>,
    },
    /// The key has a closed set of values, and this is none of them.
    #[error("{found:?} is no value of {key}; {}", suggestion(*.nearest, .expected))]
    UnknownValue {
        /// The key.
        key: &'static str,
        /// The value as it was given.
        found: String,
        /// The value that was probably meant.
        nearest: Option<&'static str>,
        /// All values of the key.
        expected: Vec<&'static str>,
    },
    /// A word without a key.
    #[error("{found:?} has no key; {}", .meant.as_ref().map_or_else(|| "expected key:value".to_owned(), |meant| format!("did you mean {meant}?")))]
    NoKey {
        /// The word.
        found: String,
        /// What was probably meant.
        meant: Option<String>,
    },
    /// The value is missing.
    #[error("{key} has no value; write {key}:VALUE, without spaces")]
    NoValue {
        /// The key.
        key: &'static str,
    },
    /// A value that cannot be read.
    #[error("{found:?} is no value of {key}; expected {expected}")]
    Unreadable {
        /// The key.
        key: &'static str,
        /// The value as it was given.
        found: String,
        /// What it should be, in words.
        expected: &'static str,
    },
    /// More than one value, where a job can have only one.
    #[error("{key} takes one value; {instead}")]
    SeveralValues {
        /// The key.
        key: &'static str,
        /// What to do instead.
        instead: &'static str,
    },
    /// The same was asked for before.
    #[error("{key} is asked for twice; {instead}")]
    Repeated {
        /// The key.
        key: &'static str,
        /// What to do instead.
        instead: &'static str,
    },
    /// The negation of a term that has none.
    #[error("{key} cannot be negated; {instead}")]
    NotNegatable {
        /// The key.
        key: &'static str,
        /// What to do instead.
        instead: &'static str,
    },
    /// Nothing lies between the two ends.
    #[error("the range {found:?} is empty; write the smaller end first")]
    EmptyRange {
        /// The range as it was given.
        found: String,
    },
    /// A quotation that does not end.
    #[error("the quotation mark has no second one")]
    OpenQuote,
}

/// Why a query has no filter.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// A name in it means nothing that the asker may see, or the database could not be asked.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Several owners have a workspace with this name.
    #[error("several workspaces are called {name}")]
    Ambiguous {
        /// The name as it was given.
        name: String,
        /// What to write instead: one of these.
        candidates: Vec<String>,
    },
}

impl From<crate::authz::Denied> for ResolveError {
    fn from(denied: crate::authz::Denied) -> Self {
        Self::Store(denied.into())
    }
}

fn suggestion(nearest: Option<&str>, all: &[&str]) -> String {
    nearest.map_or_else(|| format!("expected one of {}", all.join(", ")), |nearest| format!("did you mean {nearest}?"))
}

/// The candidate that a mistyped word was meant to be, if one is near enough.
///
/// Written here, because the library without features takes no crate for it.
pub(super) fn nearest(word: &str, candidates: &[&'static str]) -> Option<&'static str> {
    let word: Vec<char> = word.chars().take(64).flat_map(char::to_lowercase).collect();
    let distances = candidates.iter().map(|candidate| {
        let other: Vec<char> = candidate.to_lowercase().chars().collect();
        let begins = word.len() >= 3 && other.starts_with(&word);
        (if begins { 0 } else { distance(&word, &other) }, *candidate)
    });
    let (distance, candidate) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= (candidate.len() / 3).max(1)).then_some(candidate)
}

/// How many characters must be added, removed, replaced, or swapped with the next.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut least = (rows[i][j] + usize::from(x != y)).min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                least = least.min(rows[i - 1][j - 1] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_word_is_near_to_what_was_meant_and_another_word_to_nothing() {
        let keys = super::super::Condition::KEYS;
        for (word, expected) in [
            ("stauts", "status"),
            ("inititator", "initiator"),
            ("org", "organization"),
            ("tags", "tag"),
            ("WORKSPACES", "workspace"),
            ("creatde", "created"),
            ("error-code", "error_code"),
        ] {
            assert_eq!(nearest(word, keys), Some(expected), "{word}");
        }
        for word in ["", "x", "colour", "zzzzzzzz", "né"] {
            assert_eq!(nearest(word, keys), None, "{word}");
        }
    }

    #[test]
    fn a_distance_is_the_least_number_of_changes() {
        let of = |a: &str, b: &str| distance(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>());
        let cases = [("", "", 0), ("", "ab", 2), ("ab", "ba", 1), ("kitten", "sitting", 3), ("abc", "abc", 0)];
        for (a, b, expected) in cases {
            assert_eq!((of(a, b), of(b, a)), (expected, expected), "{a} {b}");
        }
    }
}
