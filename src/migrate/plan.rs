//! What is applied, pending and wrong: a pure function of the history and the files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use refinery::Migration;
use serde::Serialize;

use super::{
    Error, StatementLocks, baseline::Baseline, files::File, history_table, locks, names, statements::line_and_column,
};

/// The state of a database's schema, migration by migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The newest version that is applied; `None` for a database without a schema.
    pub version: Option<i64>,
    /// The newest version that this library knows.
    pub newest: i64,
    /// Every migration that is known or applied, in the order of the versions.
    pub migrations: Vec<Entry>,
    /// The versions of Coder's schema in an adopted database; `None` for a database that this library made.
    pub adopted: Option<AdoptedFrom>,
    /// What was recorded then.
    #[serde(skip)]
    pub(super) baseline: Option<Baseline>,
}

/// The versions of Coder's own schema in an adopted database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct AdoptedFrom {
    /// The version when it was adopted.
    pub from: i64,
    /// The version now; `None` where this role may not read it.
    pub now: Option<i64>,
    /// Whether a migration of Coder's own server has failed halfway since then, so that it does not start.
    pub dirty: bool,
}

/// `adopted from Coder's version 440, now 447`
impl fmt::Display for AdoptedFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "adopted from Coder's version {}", self.from)?;
        if let Some(now) = self.now.filter(|now| *now != self.from) {
            write!(f, ", now {now}")?;
        }
        if self.dirty {
            f.write_str(
                ", of which a migration has failed halfway (schema_migrations.dirty): Coder's server does not start",
            )?;
        }
        Ok(())
    }
}

/// One migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its version.
    pub version: i64,
    /// Its name, as the file has it, or the history if there is no file.
    pub name: String,
    /// Where it stands.
    pub state: State,
    /// When it was applied, in RFC 3339; `None` when it was not.
    pub applied_on: Option<String>,
}

/// Where a migration stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The history has it as it is in the file.
    Applied,
    /// Its objects were there when the database was adopted.
    Adopted,
    /// It is not for a database that was adopted, unless that is asked for.
    LeftOut,
    /// It will be applied next, or after those before it.
    Pending,
    /// The history has its version, with another name or content.
    Changed,
    /// The history has a version that this library does not know, and that is not newer than all it knows.
    Unknown,
    /// A newer version of the library applied it, and this one can work with it.
    Newer,
    /// A newer version of the library applied it, and this one must not run any more.
    Breaking,
    /// It was never applied, though a later one was.
    Skipped,
}

impl State {
    /// The state in one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Adopted => "adopted",
            Self::LeftOut => "left_out",
            Self::Pending => "pending",
            Self::Changed => "changed",
            Self::Unknown => "unknown",
            Self::Newer => "newer",
            Self::Breaking => "breaking",
            Self::Skipped => "skipped",
        }
    }
}

/// A migration that keeps all others from being applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem(Entry);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entry { version, name, state, .. } = &self.0;
        write!(f, "V{version:04}__{name}: ")?;
        f.write_str(match state {
            State::Changed => "its file differs from what was applied",
            State::Unknown => "was applied by another coderdb",
            State::Breaking => "was applied by a newer coderdb, and this one cannot work with it",
            State::Skipped => "was never applied, though a later one was",
            State::Applied | State::Adopted | State::LeftOut | State::Pending | State::Newer => "is fine",
        })
    }
}

/// Whether a schema and this version of the library fit together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[must_use]
pub enum Fit {
    /// Every migration is applied, and no other.
    Current,
    /// Every migration is applied, and newer ones that leave this version working.
    Newer,
    /// Some are not applied yet.
    Pending,
    /// A newer migration is applied that this version cannot work with.
    TooNew,
    /// The history and the files do not fit together.
    Diverged,
}

impl Status {
    /// Says of each version whether it was recorded without being run.
    pub(super) fn with_baseline(mut self, baseline: Option<Baseline>) -> Self {
        let Some(baseline) = baseline else { return self };
        for entry in self.migrations.iter_mut().filter(|entry| entry.state == State::Applied) {
            if baseline.left_out.contains(&entry.version) {
                entry.state = State::LeftOut;
            } else if baseline.adopted.contains(&entry.version) {
                entry.state = State::Adopted;
            }
        }
        let (now, dirty) = baseline.now.as_ref().map_or((None, false), |coder| (coder.version, coder.dirty));
        self.adopted = Some(AdoptedFrom { from: baseline.coder_version, now, dirty });
        self.baseline = Some(baseline);
        self
    }

    /// Whether nothing is pending and nothing is wrong.
    #[must_use]
    pub fn is_current(&self) -> bool {
        matches!(self.fit(), Fit::Current | Fit::Newer)
    }

    /// Whether the schema and this version of the library fit together.
    pub fn fit(&self) -> Fit {
        let has = |states: &[State]| self.migrations.iter().any(|entry| states.contains(&entry.state));
        if has(&[State::Changed, State::Unknown, State::Skipped]) {
            Fit::Diverged
        } else if has(&[State::Breaking]) {
            Fit::TooNew
        } else if has(&[State::Pending]) {
            Fit::Pending
        } else if has(&[State::Newer]) {
            Fit::Newer
        } else {
            Fit::Current
        }
    }

    /// What is wrong with the history; empty when the pending migrations can be applied.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let wrong =
            |entry: &&Entry| matches!(entry.state, State::Changed | State::Unknown | State::Breaking | State::Skipped);
        self.migrations.iter().filter(wrong).cloned().map(Problem).collect()
    }

    /// The migrations that are not applied yet, in their order.
    pub fn pending(&self) -> impl Iterator<Item = &Entry> {
        self.migrations.iter().filter(|entry| entry.state == State::Pending)
    }

    pub(super) fn check(self) -> Result<Self, Error> {
        match self.fit() {
            Fit::Diverged => Err(Error::History { problems: self.problems() }),
            Fit::TooNew => {
                let breaking = self.migrations.into_iter().find(|entry| entry.state == State::Breaking);
                let (version, name) = breaking.map(|entry| (entry.version, entry.name)).unwrap_or_default();
                Err(Error::TooNew { version, name })
            }
            Fit::Current | Fit::Newer | Fit::Pending => Ok(self),
        }
    }

    pub(super) fn pending_up_to(&self, target: Option<i64>) -> Vec<i64> {
        let wanted = |version: &i64| target.is_none_or(|target| *version <= target);
        self.pending().map(|entry| entry.version).filter(wanted).collect()
    }
}

/// A migration that is pending, and what it would run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned<'m> {
    /// Its version.
    pub version: i64,
    /// Its name.
    pub name: &'m str,
    /// Whether it is one transaction; else it runs statement by statement.
    pub in_transaction: bool,
    /// The whole text of its file.
    pub sql: &'m str,
    /// Its statements: the line of each, from 1, and its text without comments before it.
    pub statements: Vec<(usize, &'m str)>,
    /// What each statement locks and rewrites; `None` where that is not known: [`locks`](super::locks()) finds it out.
    pub locks: Option<Vec<StatementLocks>>,
}

impl<'m> Planned<'m> {
    pub(super) fn of(file: &'m File) -> Self {
        let sql = file.sql();
        let statements =
            file.statements().into_iter().map(|statement| (line_and_column(sql, statement.at).0, statement.text));
        Self {
            version: file.migration.version(),
            name: file.migration.name(),
            in_transaction: !file.is_stepwise,
            sql,
            statements: statements.collect(),
            locks: locks::embedded(&file.migration),
        }
    }
}

pub(super) fn status(applied: &[Migration], files: &[Migration]) -> Status {
    let version = applied.iter().map(Migration::version).max();
    let by_version: BTreeMap<i64, &Migration> = applied.iter().map(|row| (row.version(), row)).collect();
    let known: BTreeSet<i64> = files.iter().map(Migration::version).collect();
    let history = |v| by_version.get(&v).copied();
    let mut migrations: Vec<Entry> = files
        .iter()
        .map(|file| {
            let state = match history(file.version()) {
                Some(row) if row == file => State::Applied,
                Some(_) => State::Changed,
                None if version.is_some_and(|v| v > file.version()) => State::Skipped,
                None => State::Pending,
            };
            entry(file, state, history(file.version()))
        })
        .collect();
    let newest = files.iter().map(Migration::version).max().unwrap_or_default();
    let unknown = applied.iter().filter(|row| !known.contains(&row.version()));
    migrations.extend(unknown.map(|row| {
        let state = match row.version() > newest {
            false => State::Unknown,
            true if names::is_breaking(row.name()) => State::Breaking,
            true => State::Newer,
        };
        entry(row, state, Some(row))
    }));
    migrations.sort_by_key(|entry| entry.version);
    Status { version, newest, migrations, adopted: None, baseline: None }
}

fn entry(named_by: &Migration, state: State, applied: Option<&Migration>) -> Entry {
    let applied_on = applied.and_then(history_table::applied_on);
    Entry { version: named_by.version(), name: named_by.name().to_owned(), state, applied_on }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(version: i64, sql: &str) -> Migration {
        Migration::unapplied(&format!("V{version}__m"), sql).expect("a valid name")
    }

    fn applied(of: &Migration) -> Migration {
        Migration::applied(of.version(), of.name().to_owned(), time::OffsetDateTime::UNIX_EPOCH, of.checksum())
    }

    fn states(history: &[Migration], files: &[Migration]) -> Vec<State> {
        status(history, files).migrations.into_iter().map(|entry| entry.state).collect()
    }

    #[test]
    fn each_migration_has_exactly_one_state() {
        use State::{Applied, Breaking, Changed, Newer, Pending, Skipped, Unknown};
        let files = [file(1, "a"), file(2, "b"), file(3, "c")];
        let [one, two, three] = [applied(&files[0]), applied(&files[1]), applied(&files[2])];
        assert_eq!(states(&[], &files), [Pending, Pending, Pending]);
        assert_eq!(states(std::slice::from_ref(&one), &files), [Applied, Pending, Pending]);
        assert_eq!(states(&[one.clone(), two, three.clone()], &files), [Applied, Applied, Applied]);
        assert_eq!(states(&[one.clone(), three.clone()], &files), [Applied, Skipped, Applied]);
        assert_eq!(states(&[applied(&file(1, "edited"))], &files), [Changed, Pending, Pending]);
        assert_eq!(states(&[one.clone(), applied(&file(9, "z"))], &files[..1]), [Applied, Newer]);
        assert_eq!(
            states(&[one.clone(), applied(&file(2, "z")), three], &[file(1, "a"), file(3, "c")]),
            [Applied, Unknown, Applied]
        );
        let breaking = Migration::unapplied("V9__breaking_m", "z").expect("a valid name");
        assert_eq!(states(&[one, applied(&breaking)], &files[..1]), [Applied, Breaking]);
    }

    #[test]
    fn an_older_library_fits_a_newer_schema_unless_that_breaks_it() {
        let files = [file(1, "a"), file(2, "b")];
        let [one, two] = [applied(&files[0]), applied(&files[1])];
        let fit = |history: &[Migration]| status(history, &files).fit();
        let newer = |name: &str| applied(&Migration::unapplied(name, "z").expect("a valid name"));
        assert_eq!(fit(&[one.clone(), two.clone()]), Fit::Current);
        assert_eq!(fit(std::slice::from_ref(&one)), Fit::Pending);
        assert_eq!(fit(&[one.clone(), two.clone(), newer("V3__m")]), Fit::Newer);
        assert_eq!(fit(&[one.clone(), two.clone(), newer("V3__breaking_m"), newer("V4__m")]), Fit::TooNew);
        assert_eq!(fit(&[one, newer("V3__breaking_m")]), Fit::Diverged);
    }

    #[test]
    fn a_problem_stops_everything_and_names_the_migration() {
        let files = [file(1, "a"), file(2, "b")];
        let error = status(&[applied(&files[1])], &files).check().unwrap_err();
        assert!(error.to_string().contains("V0001__m: was never applied"), "{error}");
    }
}
