//! The files of the migrations: those of this version, or those of a directory.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use refinery::Migration;

use super::{
    Error, names,
    statements::{self, Statement},
};
use crate::duration;

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// Migrations, in the order of their versions.
#[derive(Debug, Clone)]
pub struct Migrations {
    files: Vec<File>,
}

/// One migration.
#[derive(Debug, Clone)]
pub(super) struct File {
    pub(super) migration: Migration,
    /// Its path, for people.
    pub(super) path: String,
    /// Whether it runs statement by statement, because it cannot share a transaction.
    pub(super) is_stepwise: bool,
    /// What its header says instead of [`Options::lock_timeout`](super::Options::lock_timeout).
    pub(super) lock_timeout: Option<Duration>,
    /// What its header says instead of [`Options::statement_timeout`](super::Options::statement_timeout).
    pub(super) statement_timeout: Option<Duration>,
}

impl Default for Migrations {
    fn default() -> Self {
        Self::embedded()
    }
}

impl Migrations {
    /// Those of this version of the library.
    ///
    /// # Panics
    /// Never: the build refuses files that cannot be read.
    #[must_use]
    pub fn embedded() -> Self {
        let migrations = embedded::migrations::runner().get_migrations().clone();
        let files = migrations.into_iter().map(|migration| {
            let path = format!("migrations/V{:04}__{}.sql", migration.version(), migration.name());
            file(migration, path).expect("what the build has checked")
        });
        let mut files: Vec<_> = files.collect();
        files.sort_by_key(|file| file.migration.version());
        Self { files }
    }

    /// Those of a directory: every file in it that ends in `.sql`. Line ends of any kind have one checksum.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::File`], with the place in the file.
    pub fn read(directory: &Path) -> Result<Self, Error> {
        let io = |path: &Path| {
            let path = path.display().to_string();
            move |source| Error::Io { path, source }
        };
        let mut files: BTreeMap<i64, File> = BTreeMap::new();
        for entry in fs::read_dir(directory).map_err(io(directory))? {
            let path = entry.map_err(io(directory))?.path();
            if path.extension().is_none_or(|extension| extension != "sql") {
                continue;
            }
            let shown = path.display().to_string();
            let wrong = |text: &str| Error::File { place: shown.clone(), problem: text.to_owned() };
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let Some((version, _)) = names::parse(stem) else {
                return Err(wrong(&format!("the name is not like {}", names::EXPECTED)));
            };
            let sql = fs::read(&path).map_err(io(&path))?;
            let sql = String::from_utf8(sql).map_err(|_| wrong("is not UTF-8"))?.replace("\r\n", "\n");
            let migration = Migration::unapplied(stem, &sql).map_err(|error| wrong(&error.to_string()))?;
            let new = file(migration, shown.clone())?;
            if let Some(other) = files.insert(version, new) {
                return Err(wrong(&format!("has the version of {}", other.path)));
            }
        }
        Ok(Self { files: files.into_values().collect() })
    }

    /// The newest version; 0 for none.
    #[must_use]
    pub fn newest(&self) -> i64 {
        self.files.last().map_or(0, |file| file.migration.version())
    }

    /// The versions, with the text of each.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &str)> {
        self.files.iter().map(|file| (file.migration.version(), file.sql()))
    }

    pub(super) fn files(&self) -> &[File] {
        &self.files
    }

    pub(super) fn get(&self, version: i64) -> Option<&File> {
        let place = self.files.binary_search_by_key(&version, |file| file.migration.version());
        place.ok().map(|place| &self.files[place])
    }

    pub(super) fn refinery(&self) -> Vec<Migration> {
        self.files.iter().map(|file| file.migration.clone()).collect()
    }
}

impl File {
    pub(super) fn sql(&self) -> &str {
        self.migration.sql().unwrap_or_default()
    }

    pub(super) fn statements(&self) -> Vec<Statement<'_>> {
        statements::split(self.sql()).unwrap_or_default()
    }
}

fn file(migration: Migration, path: String) -> Result<File, Error> {
    let sql = migration.sql().unwrap_or_default();
    if let Some(problem) = statements::problems(sql).first() {
        let (line, column) = statements::line_and_column(sql, problem.at);
        return Err(Error::File { place: format!("{path}:{line}:{column}"), problem: problem.text.to_owned() });
    }
    let timeout = |name| statements::directive(sql, name).and_then(duration::parse);
    let (lock_timeout, statement_timeout) = (timeout("lock-timeout"), timeout("statement-timeout"));
    let is_stepwise = statements::directive(sql, "no-transaction").is_some();
    if let Some(problem) = statements::wrong_directive(sql, |value| duration::parse(value).is_some()) {
        return Err(Error::File { place: path, problem });
    }
    Ok(File { migration, path, is_stepwise, lock_timeout, statement_timeout })
}
