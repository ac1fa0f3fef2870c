//! The files of the migrations: those of this version, or those of a directory.

use std::{borrow::Cow, collections::BTreeMap, fs, path::Path, time::Duration};

use refinery::Migration;
use time::OffsetDateTime;

use super::{
    Error,
    history_table::SCHEMA,
    names,
    statements::{self, Statement},
};
use crate::duration;

#[expect(clippy::unreadable_literal, reason = "nobody reads a checksum")]
mod embedded {
    // `MIGRATIONS`: version, name, refinery's checksum, and text of each. refinery's own macro compiles a regular expression
    // at every start, which costs as much as all else that `migrate check` does.
    include!(concat!(env!("OUT_DIR"), "/migrations.rs"));
}

/// Migrations, in the order of their versions.
#[derive(Debug, Clone)]
pub struct Migrations {
    files: Vec<File>,
    /// Of their history.
    schema: Cow<'static, str>,
}

/// The schema of the history, and the checksum of each migration.
#[cfg(all(feature = "pool", feature = "postgres"))]
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Identity(String, Vec<u64>);

/// One migration.
#[derive(Debug, Clone)]
pub(super) struct File {
    pub(super) migration: Migration,
    sql: Cow<'static, str>,
    /// Its path, for people.
    pub(super) path: String,
    /// Whether it runs statement by statement, because it cannot share a transaction.
    pub(super) is_stepwise: bool,
    /// Whether it is one of this version of the library.
    pub(super) is_embedded: bool,
    /// What its header says instead of [`MigrateOptions::lock_timeout`](super::MigrateOptions::lock_timeout).
    pub(super) lock_timeout: Option<Duration>,
    /// What its header says instead of [`MigrateOptions::statement_timeout`](super::MigrateOptions::statement_timeout).
    pub(super) statement_timeout: Option<Duration>,
}

impl Default for Migrations {
    fn default() -> Self {
        Self::embedded()
    }
}

impl Migrations {
    /// Those of this version of the library.
    #[must_use]
    pub fn embedded() -> Self {
        let files = embedded::MIGRATIONS.iter().map(|(version, name, checksum, sql)| {
            let path = format!("migrations/V{version:04}__{name}.sql");
            let file = File::new(*version, (*name).to_owned(), *checksum, Cow::Borrowed(*sql), path);
            File { is_embedded: true, ..file }
        });
        Self { files: files.collect(), schema: Cow::Borrowed(SCHEMA) }
    }

    /// Those of a directory: every file in it that ends in `.sql`. Line ends of any kind have one checksum.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::File`], with the place in the file; also for a directory without migrations, and for a
    /// file that looks like one and is not named like one.
    pub fn read(directory: &Path) -> Result<Self, Error> {
        let io = |path: &Path| {
            let path = path.display().to_string();
            move |source| Error::Io { path, source }
        };
        let mut files: BTreeMap<i64, File> = BTreeMap::new();
        for entry in fs::read_dir(directory).map_err(io(directory))? {
            let path = entry.map_err(io(directory))?.path();
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            if !names::is_meant(&file) {
                continue;
            }
            let shown = path.display().to_string();
            let wrong = |text: &str| Error::File { location: shown.clone(), problem: text.to_owned() };
            let named = file.strip_suffix(".sql").and_then(|stem| Some((stem, names::parse(stem)?.0)));
            let Some((stem, version)) = named else {
                return Err(wrong(&format!("the name is not like {}", names::EXPECTED)));
            };
            let sql = fs::read(&path).map_err(io(&path))?;
            let sql = String::from_utf8(sql).map_err(|_| wrong("is not UTF-8"))?.replace("\r\n", "\n");
            let migration = Migration::unapplied(stem, &sql).map_err(|error| wrong(&error.to_string()))?;
            check(&sql, &shown)?;
            let name = migration.name().to_owned();
            let new = File::new(version, name, migration.checksum(), Cow::Owned(sql), shown.clone());
            if let Some(other) = files.insert(version, new) {
                return Err(wrong(&format!("has the version of {}", other.path)));
            }
        }
        if files.is_empty() {
            let problem = format!("no migration is there, that is no file like {}", names::EXPECTED);
            return Err(Error::File { location: directory.display().to_string(), problem });
        }
        Ok(Self { files: files.into_values().collect(), schema: Cow::Borrowed(SCHEMA) })
    }

    /// Those that a service has beside this library's, as `refinery::embed_migrations!` embeds them. Their history and their
    /// log are in this schema, which is created for them, and their versions are their own.
    ///
    /// [`up`](super::up()) applies them with the same guarantees; [`status_of`](super::status_of()),
    /// [`plan`](super::plan()) and [`history_of`](super::history_of()) tell of them. [`verify`](super::verify()) names what they
    /// made as extras, and as drift where it can make this library's statements fail.
    ///
    /// ```
    /// # fn example() -> Result<(), coderdb::migrate::Error> {
    /// use coderdb::migrate::Migrations;
    ///
    /// mod own {
    ///     refinery::embed_migrations!("examples/service/migrations");
    /// }
    ///
    /// let own = Migrations::of_service(&own::migrations::runner(), "billing")?;
    /// assert_eq!(own.newest(), 2);
    /// # Ok(())
    /// # }
    /// # example().unwrap();
    /// ```
    ///
    /// # Errors
    /// [`Error::File`], with the place in the file, also for a version that is not positive or is there twice; and for a
    /// schema that is not like `lower_case`, or is one of PostgreSQL or of this library.
    pub fn of_service(runner: &refinery::Runner, schema: &str) -> Result<Self, Error> {
        let is_name = schema.starts_with(|c: char| c.is_ascii_lowercase())
            && schema.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_');
        if !is_name || schema.len() > 63 || schema.starts_with("pg_") || ["coderdb", "public"].contains(&schema) {
            let problem = "no schema for a history: it must be like `billing`, and not coderdb, public or pg_…";
            return Err(Error::File { location: schema.to_owned(), problem: problem.to_owned() });
        }
        let mut files: BTreeMap<i64, File> = BTreeMap::new();
        for migration in runner.get_migrations() {
            let (version, name) = (migration.version(), migration.name().to_owned());
            let path = format!("{schema}/V{version}__{name}");
            let wrong = |problem: &str| Error::File { location: path.clone(), problem: problem.to_owned() };
            if version < 1 || migration.prefix().to_string() != "V" {
                return Err(wrong(
                    "the name is not like V1__name: only versions from 1 on, in their order, are applied",
                ));
            }
            let sql = migration.sql().ok_or_else(|| wrong("has no statements"))?.to_owned();
            check(&sql, &path)?;
            let new = File::new(version, name, migration.checksum(), Cow::Owned(sql), path.clone());
            if files.insert(version, new).is_some() {
                return Err(wrong("has the version of another"));
            }
        }
        Ok(Self { files: files.into_values().collect(), schema: Cow::Owned(schema.to_owned()) })
    }

    /// The schema of their history.
    pub(super) fn schema(&self) -> &str {
        &self.schema
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

    /// Equal for sets that make equal databases.
    #[cfg(all(feature = "pool", feature = "postgres"))]
    pub(crate) fn identity(&self) -> Identity {
        Identity(self.schema.to_string(), self.files.iter().map(|file| file.migration.checksum()).collect())
    }

    pub(super) fn files(&self) -> &[File] {
        &self.files
    }

    pub(super) fn get(&self, version: i64) -> Option<&File> {
        let index = self.files.binary_search_by_key(&version, |file| file.migration.version());
        index.ok().map(|index| &self.files[index])
    }

    /// As the history has them.
    pub(super) fn as_applied(&self) -> Vec<Migration> {
        self.files.iter().map(|file| file.migration.clone()).collect()
    }

    /// As refinery's runner takes them.
    pub(super) fn to_apply(&self) -> Result<Vec<Migration>, refinery::Error> {
        self.files.iter().map(File::to_apply).collect()
    }
}

impl File {
    pub(super) fn new(version: i64, name: String, checksum: u64, sql: Cow<'static, str>, path: String) -> Self {
        let timeout = |name| statements::directive(&sql, name).and_then(duration::parse);
        Self {
            // The only way to say which checksum one has; when it was applied does not matter here.
            migration: Migration::applied(version, name, OffsetDateTime::UNIX_EPOCH, checksum),
            path,
            is_stepwise: statements::directive(&sql, "no-transaction").is_some(),
            is_embedded: false,
            lock_timeout: timeout("lock-timeout"),
            statement_timeout: timeout("statement-timeout"),
            sql,
        }
    }

    fn to_apply(&self) -> Result<Migration, refinery::Error> {
        Migration::unapplied(&format!("V{}__{}", self.migration.version(), self.migration.name()), &self.sql)
    }

    pub(super) fn sql(&self) -> &str {
        &self.sql
    }

    pub(super) fn statements(&self) -> Vec<Statement<'_>> {
        statements::split(&self.sql).unwrap_or_default()
    }
}

/// Whether it can be a migration; the build checks those of this version.
fn check(sql: &str, path: &str) -> Result<(), Error> {
    if let Some(problem) = statements::problems(sql).first() {
        let (line, column) = statements::line_and_column(sql, problem.at);
        return Err(Error::File { location: format!("{path}:{line}:{column}"), problem: problem.text.to_owned() });
    }
    match statements::wrong_directive(sql, |value| duration::parse(value).is_some()) {
        Some(problem) => Err(Error::File { location: path.to_owned(), problem }),
        None => Ok(()),
    }
}

/// The newest version that this library knows.
#[must_use]
pub fn newest() -> i64 {
    Migrations::embedded().newest()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_computes_the_checksums_of_refinery() {
        for file in &Migrations::embedded().files {
            assert_eq!(file.migration, file.to_apply().expect("a valid name"), "{}", file.path);
        }
    }
}
