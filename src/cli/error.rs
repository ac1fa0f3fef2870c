//! Errors as a person reads them, and the exit codes of docs/operations.md.

use std::{error::Error, io, process::ExitCode};

use sqlx::error::DatabaseError;

use super::note::note;
use crate::{authz::Denied, migrate, model::Entity, pool, postgres, store, watch};

/// Not found, or failed in a way that has no code of its own.
pub(super) const FAILED: u8 = 1;
/// The command line or the configuration is wrong.
pub(super) const USAGE: u8 = 2;
/// Migrations are pending.
pub(super) const PENDING: u8 = 3;
/// The database cannot be reached.
pub(super) const UNREACHABLE: u8 = 4;
const RUNNER_LOCK: u8 = 5;
const TABLE_LOCK: u8 = 6;
const SQL: u8 = 10;
const PARTLY_APPLIED: u8 = 11;
/// The migration history does not fit.
pub(super) const HISTORY: u8 = 12;
/// The schema is newer than this program can work with.
pub(super) const TOO_NEW: u8 = 13;
/// The connection is not one that migrations can use.
pub(super) const UNFIT: u8 = 14;
/// Lint found something.
pub(super) const LINT: u8 = 15;
/// There is something to know first.
pub(super) const REFUSED: u8 = 15;
/// Stopped by a signal; the command says by which.
const STOPPED: u8 = 143;

/// What went wrong, what to do next, and the exit code.
#[derive(Debug)]
pub(super) struct CliError {
    message: String,
    next: Option<String>,
    code: u8,
}

impl CliError {
    pub(super) fn new(code: u8, message: impl Into<String>) -> Self {
        Self { message: message.into(), next: None, code }
    }

    pub(super) fn next(self, next: impl Into<String>) -> Self {
        Self { next: Some(next.into()), ..self }
    }

    /// Prints the error and gives its exit code.
    pub(super) fn report(self) -> ExitCode {
        let Self { message, next, code } = self;
        // A SQLSTATE stands behind the word, as a code does with compilers.
        let separator = if message.starts_with('[') { "" } else { ": " };
        note(&format!("error{separator}{message}"));
        if let Some(next) = next {
            note(&format!("next:  {next}"));
        }
        ExitCode::from(code)
    }

    pub(super) fn no_schema() -> Self {
        Self::new(PENDING, "the database schema is missing or too old")
            .next("run `coderdb migrate up`, or `coderdb demo` for something to look at")
    }

    /// Whether the database could not be reached: the same may work later.
    pub(super) const fn is_unreachable(&self) -> bool {
        self.code == UNREACHABLE
    }

    /// Whether it was asked to stop.
    pub(super) const fn is_stop(&self) -> bool {
        self.code == STOPPED
    }

    pub(super) fn with_code(self, code: u8) -> Self {
        Self { code, ..self }
    }

    /// For a command that runs like `migrate up`.
    pub(super) fn instead_of_up(self, command: &str) -> Self {
        let next = self.next.map(|next| next.replace("`coderdb migrate up`", &format!("`coderdb migrate {command}`")));
        Self { next, ..self }
    }

    /// What went wrong, without what to do.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// With what could not be done, in front.
    pub(super) fn of(self, what: &str) -> Self {
        Self { message: format!("{what}: {}", self.message), ..self }
    }

    fn caused(code: u8, error: &(dyn Error + 'static)) -> Self {
        Self::new(code, chain(error))
    }
}

/// The error and its causes, each said once, without what sqlx adds of PostgreSQL's own source lines.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut cause = Some(error);
    while let Some(error) = cause {
        let said = match error.downcast_ref::<sqlx::Error>() {
            Some(sqlx::Error::Database(database)) => database.message().to_owned(),
            _ => error.to_string(),
        };
        if !text.contains(&said) {
            let separator = if text.is_empty() { "" } else { ": " };
            text = text + separator + &said;
        }
        // A database error has itself as its source.
        cause = error.source().filter(|_| !matches!(error.downcast_ref(), Some(sqlx::Error::Database(_))));
    }
    text
}

impl From<store::Error> for CliError {
    fn from(error: store::Error) -> Self {
        match &error {
            store::Error::NotFound { entity: Entity::DefaultOrganization, .. } => {
                Self::new(FAILED, "there is no default organization")
                    .next("name one with --org, or run `coderdb demo` for something to look at")
            }
            store::Error::NotFound { entity, key } => {
                let missing = Self::new(FAILED, error.to_string());
                match *entity {
                    Entity::Organization => missing.next("check --org and CODER_ORGANIZATION"),
                    Entity::Job => missing.next("it may be another organization's: name that with --org"),
                    Entity::Workspace => missing.next("name a workspace by its id if it or its owner was deleted"),
                    Entity::Initiator | Entity::User if key == "me" => {
                        missing.next("set CODERDB_USER to the username or id that `me` stands for")
                    }
                    Entity::Initiator | Entity::User => missing.next(
                        "name a user who was deleted by the id; `coderdb quota list -o json` and `coderdb provisioner jobs \
                         list -o json` show ids",
                    ),
                    Entity::Template => missing.next("name a template that was deleted by its id"),
                    _ => missing,
                }
            }
            store::Error::Schema(source) => {
                let missing = Self::no_schema();
                Self { message: format!("{}: {}", missing.message, chain(source)), ..missing }
            }
            store::Error::Unavailable(_) => {
                Self::caused(UNREACHABLE, &error).next("check that the server runs, and try again")
            }
            store::Error::Sql { source, .. } if has_unfit_state(source) => Self::caused(UNFIT, &error)
                .next("connect to the primary, with a role that may read and write the tables"),
            _ => Self::caused(FAILED, &error),
        }
    }
}

impl From<Denied> for CliError {
    fn from(denied: Denied) -> Self {
        store::Error::from(denied).into()
    }
}

impl From<migrate::Error> for CliError {
    fn from(error: migrate::Error) -> Self {
        use migrate::Error as E;
        let again = "run `coderdb migrate up` again";
        match &error {
            E::UnknownTarget { .. } | E::Io { .. } | E::File { .. } => Self::caused(USAGE, &error),
            E::History { .. } | E::MalformedHistory { .. } => Self::new(HISTORY, error.to_string()).next(
                "run the version of coderdb that this database was migrated with, or a newer one; or `coderdb migrate repair`",
            ),
            E::MadeByCoder { .. } => Self::new(HISTORY, error.to_string())
                .next("`coderdb migrate adopt --plan` says what that would do; it writes nothing"),
            E::Unconfirmed { .. } => Self::new(REFUSED, error.to_string()).next("say --yes to go on"),
            E::EditedMidway { .. } => {
                Self::new(HISTORY, error.to_string()).next("put the statement back, and add what is new behind it")
            }
            E::TooNew { .. } => {
                Self::new(TOO_NEW, error.to_string()).next("run a coderdb that knows this migration, or a newer one")
            }
            E::LockBusy { .. } | E::MigratorBusy { .. } => Self::new(RUNNER_LOCK, error.to_string()).next(again),
            E::Elsewhere { home: Some(home), .. } => Self::new(UNFIT, error.to_string()).next(format!(
                "name that schema first in the search_path: PGOPTIONS={}, or ALTER ROLE … SET search_path = {}",
                options(home),
                name(home)
            )),
            E::Elsewhere { .. } => Self::new(HISTORY, error.to_string()).next(
                "to begin anew, drop the schema coderdb, too; where the schema was put back, say so: ALTER TABLE \
                 coderdb.migration_log ALTER schema SET DEFAULT 'its name'::regnamespace::text",
            ),
            E::Rights { .. } => Self::new(UNFIT, error.to_string())
                .next("migrate as the role that owns the schema, or give this one what it needs"),
            E::SessionLost => Self::new(UNFIT, error.to_string()).next("migrate over a direct connection"),
            E::SessionShared => Self::new(UNFIT, error.to_string()).next("give each run a session of its own"),
            E::LockReleased => Self::new(UNFIT, error.to_string()).next(
                "take pg_advisory_unlock_all and DISCARD ALL out of the migration before, and run `coderdb migrate up` again",
            ),
            E::Unfit { .. } | E::CannotAdopt { .. } => Self::new(UNFIT, error.to_string()),
            E::TableLock(_) => Self::caused(TABLE_LOCK, &error).next(again),
            E::OlderTransactions(_) => Self::caused(TABLE_LOCK, &error)
                .next("end those transactions, or wait longer with --lock-patience, and run `coderdb migrate up` again"),
            E::Refused(refusal) => {
                let code = if is_unfit(&refusal.state) {
                    UNFIT
                } else if refusal.rolled_back {
                    SQL
                } else {
                    PARTLY_APPLIED
                };
                Self::new(code, error.to_string()).next(after(refusal))
            }
            E::InvalidIndex { .. } | E::Unprovable { .. } => Self::new(PARTLY_APPLIED, error.to_string()),
            E::Stopped => Self::new(STOPPED, error.to_string()).next(again),
            E::Unavailable(_) | E::LostCommit(_) => Self::caused(UNREACHABLE, &error).next(again),
            E::Sql(source) if has_unfit_state(source) => Self::caused(UNFIT, &error),
            _ => Self::caused(SQL, &error),
        }
    }
}

/// A name as SQL has it.
fn name(name: &str) -> String {
    let is_plain = name.chars().all(|c| c.is_ascii_lowercase() || c == '_') && !name.is_empty();
    if is_plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// The options of a session that works in the schema, as a shell takes them: blanks divide them, and a backslash keeps one.
fn options(schema: &str) -> String {
    let escaped: String = name(schema)
        .chars()
        .flat_map(|c| (c == '\\' || c.is_ascii_whitespace()).then_some('\\').into_iter().chain([c]))
        .collect();
    format!("'-c search_path={}'", escaped.replace('\'', r"'\''"))
}

/// What to do about a statement that the server refused.
fn after(refusal: &migrate::Refusal) -> &'static str {
    match refusal.state.as_str() {
        state if is_unfit(state) => "give the role or the server what is missing, and run `coderdb migrate up` again",
        "57014" => {
            "run `coderdb migrate up` again: its time was over (--statement-timeout), or somebody canceled it \
             (pg_cancel_backend)"
        }
        // A table, type or schema, a function, a column is there.
        "42P07" | "42710" | "42P06" | "42723" | "42701" if refusal.is_first => {
            "the database has this schema, or a part of it, and no history. If a dump without rows was restored \
             (--schema-only): migrate an empty database instead, or restore the rows, too. If it has rows, and only the \
             history was lost: `coderdb migrate repair mark-applied VERSION --yes` with the last version that was applied, \
             then `coderdb migrate verify`"
        }
        "42P07" | "42710" | "42P06" | "42723" | "42701" => {
            "something of this name is there that no migration has made: rename or drop it, and run `coderdb migrate up` \
             again; or, if it is what the migration makes, `coderdb migrate repair mark-applied VERSION --yes`"
        }
        _ if refusal.is_embedded => "mend what stands in the way in the database, and run `coderdb migrate up` again",
        _ if refusal.rolled_back => "fix the file and run `coderdb migrate up` again",
        _ => "fix the statement, leave those before it as they are, and run `coderdb migrate up` again",
    }
}

/// Whether this role, or this server, cannot do it: no privilege, a standby or read-only, no schema to create anything
/// in, no room.
fn is_unfit(state: &str) -> bool {
    ["42501", "25006", "3F000"].contains(&state) || state.starts_with("53")
}

fn has_unfit_state(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(DatabaseError::code).is_some_and(|code| is_unfit(&code))
}

impl From<postgres::Error> for CliError {
    fn from(error: postgres::Error) -> Self {
        use postgres::Error as E;
        let elsewhere = "set CODERDB_DATA_DIR to a directory of yours, or DATABASE_URL to use a server of your own";
        match &error {
            E::BadBinDir { .. } | E::NoBinaries { .. } | E::WrongVersion { .. } | E::NoUser => {
                Self::caused(USAGE, &error)
            }
            E::NoHome(_) | E::UnsafeSocketDir(_) => Self::caused(USAGE, &error),
            E::Io { .. } => Self::caused(FAILED, &error).next(elsewhere),
            E::InUse { .. } | E::NoPsql { .. } => Self::caused(FAILED, &error),
            E::Fetch { .. } | E::Start { .. } | E::Stuck { .. } => Self::caused(UNREACHABLE, &error),
        }
    }
}

impl From<pool::Error> for CliError {
    fn from(error: pool::Error) -> Self {
        match error {
            pool::Error::Connect(error) => error.into(),
            _ => Self::new(UNREACHABLE, error.to_string()),
        }
    }
}

impl From<watch::Error> for CliError {
    fn from(error: watch::Error) -> Self {
        match error {
            watch::Error::Store(error) => error.into(),
            watch::Error::Pool(error) => error.into(),
            watch::Error::Queue(_) | watch::Error::Deadline { .. } => Self::new(UNREACHABLE, error.to_string()),
        }
    }
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        Self::caused(FAILED, &error)
    }
}
