//! `coderdb migrate adopt`.

use std::{fmt::Write as _, process::ExitCode};

use serde_json::json;

use super::{
    super::{
        connect::{Database, is_pooled},
        error::{CliError, REFUSED},
        output::{Output, note, print, print_json},
        signals::Signals,
    },
    up::{Limits, pooled, report, say},
};
use crate::{
    migrate::{self, Adoption, Drift, Examination, IndexState, MigrateOptions, Migrations},
    store::PgConnection,
};

/// Take over a database that Coder's own server made and goes on writing to
///
/// Compares it with what this version's statements need, records what is there, and builds the indexes of this version beside its
/// users. Nothing else is changed; everything of its own is in the schema `coderdb`, and `unadopt` takes it away again.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
#[command(
    after_help = "Examples:\n  coderdb migrate adopt --plan\n  coderdb migrate adopt\n  coderdb migrate adopt --print-grants \
                  coderdb_service | psql\n\nAfter an upgrade of Coder, `check` says whether to run it again. Only --plan, \
                  --print-sql and --print-grants are for a role that may only read."
)]
pub(in crate::cli) struct Args {
    /// Only say what it would do, and what breaks
    #[arg(long)]
    plan: bool,
    /// Go on although statements of this version fail, or a publication of all tables takes the schema `coderdb` along
    #[arg(long)]
    yes: bool,
    /// Let `error_code` of jobs be only what this version knows: not while a newer server may write another one
    #[arg(long)]
    with_error_code_check: bool,
    /// Print what the owner of the tables is to run, where another role adopts
    #[arg(long, conflicts_with_all = ["plan", "yes"])]
    print_sql: bool,
    /// Print what a role is to be granted that services work as
    #[arg(long, value_name = "ROLE", conflicts_with_all = ["plan", "yes", "print_sql"])]
    print_grants: Option<String>,
    #[command(flatten)]
    limits: Limits,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

impl Args {
    /// Whether nothing is written.
    pub(super) const fn only_looks(&self) -> bool {
        self.plan || self.print_sql || self.print_grants.is_some()
    }

    const fn how(&self) -> Adoption {
        Adoption { yes: self.yes, error_code_check: self.with_error_code_check }
    }
}

pub(super) async fn look(conn: &mut PgConnection, args: &Args) -> Result<ExitCode, CliError> {
    if args.print_sql {
        print(&migrate::owner_sql(conn, args.how()).await?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(role) = &args.print_grants {
        print(&migrate::grants(conn, role).await?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let examination = migrate::examine(conn, args.how()).await?;
    let refused = !examination.obstacles().is_empty() || !args.yes && !examination.warnings().is_empty();
    match args.output {
        Output::Json => print_json(&document(&examination))?,
        Output::Table => {
            print(&plan(&examination, args.how()))?;
            for reason in examination.obstacles() {
                note(&format!("in the way: {reason}"));
            }
            for warning in examination.warnings() {
                note(&format!("only with --yes: {warning}"));
            }
        }
    }
    Ok(if refused { ExitCode::from(REFUSED) } else { ExitCode::SUCCESS })
}

pub(super) async fn run(
    database: &mut Database,
    migrations: Migrations,
    args: &Args,
    signals: &mut Signals,
) -> Result<ExitCode, CliError> {
    if is_pooled()? {
        return Err(pooled());
    }
    let options = MigrateOptions { observer: Some(database.options().clone()), ..args.limits.options(migrations) };
    let stop = options.stop.clone();
    let adopting = async {
        let adopted = migrate::adopt(database, &options, args.how(), |event| say(&event)).await;
        adopted.map_err(|error| match &error {
            migrate::Error::Rights { .. } => CliError::from(error).next(
                "give it that; where the tables belong to another role, adopt as that one, or let it run what \
                 `coderdb migrate adopt --print-sql` prints, and adopt then",
            ),
            _ => CliError::from(error).instead_of_up("adopt"),
        })
    };
    let (adopted, code) = args.limits.run(&stop, signals, adopting).await?;
    match args.output {
        Output::Json => print_json(&json!({
            "format": 1,
            "coder_version": adopted.version,
            "recorded": adopted.recorded,
            "applied": adopted.applied,
            "rebuilt": adopted.rebuilt,
        }))?,
        Output::Table => {
            let version = adopted.version.map(|version| format!(" {version}")).unwrap_or_default();
            let rebuilt =
                adopted.rebuilt.iter().fold(String::new(), |text, index| text + "Built again: " + index + "\n");
            print(&format!("Adopted from Coder's version{version}.\n{}{rebuilt}", report(&adopted.applied)))?;
        }
    }
    Ok(code)
}

fn plan(examination: &Examination, how: Adoption) -> String {
    let Examination { coder, adopted_from, owner, server, indexes, .. } = examination;
    let mut text = format!("A database of Coder, {coder}, on PostgreSQL {server}; the tables belong to {owner}.\n");
    if let Some(version) = adopted_from {
        let _ = writeln!(text, "It is adopted from version {version}.");
    }
    let checked = if how.error_code_check { "with" } else { "without" };
    let _ = writeln!(text, "The history goes into the schema coderdb, {checked} the closed set of error codes.");
    for index in indexes {
        let what = match index.state {
            IndexState::Missing => "to be built",
            IndexState::Invalid => "to be built anew: it is invalid",
            IndexState::Built => "is there",
            IndexState::Foreign => "another one has this name",
        };
        let _ = writeln!(text, "index {} on {}: {what}", index.name, index.table);
    }
    text
}

fn document(examination: &Examination) -> serde_json::Value {
    let differences: Vec<_> = examination.differences.iter().map(difference).collect();
    json!({
        "format": 1,
        "coder": examination.coder,
        "adopted_from": examination.adopted_from,
        "owner": examination.owner,
        "server": examination.server,
        "differences": differences,
        "publications": examination.publications,
        "indexes": examination.indexes,
        "error_codes": examination.error_codes,
        "obstacles": examination.obstacles(),
        "warnings": examination.warnings(),
    })
}

/// A difference, as `-o json` has it.
pub(super) fn difference(difference: &migrate::Difference) -> serde_json::Value {
    let drift: &Drift = &difference.drift;
    let object = drift.object();
    json!({
        "drift": drift.as_str(),
        "kind": object.kind,
        "table": object.table,
        "name": object.name,
        "expected": drift.expected().map(|object| &object.definition),
        "found": drift.found().map(|object| &object.definition),
        "breaks": difference.breaks,
    })
}
