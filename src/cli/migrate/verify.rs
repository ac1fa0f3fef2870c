//! `coderdb migrate verify`.

use std::{fmt::Write, process::ExitCode};

use serde::Serialize;
use similar::TextDiff;

use super::super::{
    error::{CliError, HISTORY, PENDING},
    output::{Output, note, print, print_json, printable},
};
use crate::{
    migrate::{self, AdoptedFrom, Drift, Object, State, Verification},
    store::PgConnection,
};

/// The version of the JSON, raised when a key changes its meaning or goes.
const FORMAT: u32 = 1;

/// Find what differs from the schema that the migrations made; changes nothing
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  coderdb migrate verify\n  coderdb migrate verify -o json | jq '.drifts[].name'\n\nExits \
                  with 12 when there is a difference, and with 3 when migrations are pending: then nothing is \
                  compared.\nA role that may only read is enough, and a standby."
)]
pub(in crate::cli) struct Args {
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

pub(super) async fn run(conn: &mut PgConnection, args: &Args) -> Result<ExitCode, CliError> {
    let verification = migrate::verify(conn).await?;
    match args.output {
        Output::Json => print_json(&Document::new(&verification))?,
        Output::Table => {
            print(&printable(&report(&verification)))?;
            for text in notes(&verification) {
                note(&text);
            }
        }
    }
    let can_migrate = verification.status.problems().is_empty();
    Ok(match verification.drifts {
        None if can_migrate => ExitCode::from(PENDING),
        _ if verification.is_clean() => ExitCode::SUCCESS,
        _ => ExitCode::from(HISTORY),
    })
}

/// What `-o json` prints, in this order.
#[derive(Serialize)]
struct Document<'a> {
    format: u32,
    clean: bool,
    version: Option<i64>,
    newest: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    adopted: Option<AdoptedFrom>,
    history: Vec<String>,
    drifts: Option<Vec<Difference<'a>>>,
    extras: &'a [Object],
}

#[derive(Serialize)]
struct Difference<'a> {
    drift: &'static str,
    kind: &'a str,
    table: Option<&'a str>,
    name: &'a str,
    expected: Option<&'a str>,
    found: Option<&'a str>,
}

impl<'a> Document<'a> {
    fn new(verification: &'a Verification) -> Self {
        let difference = |drift: &'a Drift| {
            let Object { kind, table, name, .. } = drift.object();
            let [expected, found] = [drift.expected(), drift.found()].map(|o| o.map(|o| o.definition.as_str()));
            Difference { drift: drift.as_str(), kind, table: table.as_deref(), name, expected, found }
        };
        Self {
            format: FORMAT,
            clean: verification.is_clean(),
            version: verification.status.version,
            newest: verification.status.newest,
            adopted: verification.status.adopted,
            history: verification.status.problems().iter().map(ToString::to_string).collect(),
            drifts: verification.drifts.as_ref().map(|drifts| drifts.iter().map(difference).collect()),
            extras: &verification.extras,
        }
    }
}

fn report(verification: &Verification) -> String {
    let mut text = String::new();
    for problem in verification.status.problems() {
        let _ = writeln!(text, "{problem}");
    }
    for drift in verification.drifts.iter().flatten() {
        let _ = writeln!(text, "{}: {}", drift.object(), drift.as_str());
        text.push_str(&difference(drift));
    }
    if verification.is_clean() {
        let newest = verification.status.newest;
        let _ = match verification.status.adopted {
            Some(_) => writeln!(text, "What version {newest} needs is there, and what it made."),
            None => writeln!(text, "The schema is as version {newest} made it."),
        };
    }
    text
}

/// Both definitions, or of long ones the lines that differ.
fn difference(drift: &Drift) -> String {
    let (expected, found) = (drift.expected(), drift.found());
    let lines: Vec<String> = match (expected, found) {
        (Some(expected), Some(found)) if (expected.definition.clone() + &found.definition).contains('\n') => {
            // Without a last line break it would say so of both.
            let [expected, found] = [expected, found].map(|object| object.definition.trim_end().to_owned() + "\n");
            let diff = TextDiff::from_lines(&expected, &found).unified_diff().header("expected", "found").to_string();
            diff.lines().map(str::to_owned).collect()
        }
        _ => {
            let line = |label, object: &Object| (label, object.definition.trim().replace('\n', "\n              "));
            let both = [expected.map(|object| line("expected", object)), found.map(|object| line("found", object))];
            both.into_iter().flatten().map(|(label, definition)| format!("{label:<8}  {definition}")).collect()
        }
    };
    lines.iter().fold(String::new(), |text, line| text + "    " + line + "\n")
}

/// What is no result: why nothing was compared, and what others have beside this schema.
fn notes(verification: &Verification) -> Vec<String> {
    const NAMED: usize = 5;
    let status = &verification.status;
    let mut notes: Vec<_> = status.adopted.iter().map(ToString::to_string).collect();
    if verification.drifts.is_none() {
        let pending = status.migrations.iter().filter(|entry| entry.state == State::Pending).count();
        let migrations = if pending == 1 { "1 migration is".to_owned() } else { format!("{pending} migrations are") };
        notes.push(format!("not compared: {migrations} pending\nnext:  run `coderdb migrate up`, then verify"));
    }
    if let Some(version) = status.version.filter(|version| *version > status.newest) {
        notes.push(format!(
            "the database is at version {version}, and this coderdb knows {}: what came later shows as a difference",
            status.newest
        ));
    }
    let extras = &verification.extras;
    if !extras.is_empty() {
        let named: Vec<_> = extras.iter().take(NAMED).map(ToString::to_string).collect();
        let more = if extras.len() > NAMED {
            format!(", and {} more (`-o json` has them)", extras.len() - NAMED)
        } else {
            String::new()
        };
        notes.push(format!("beside this schema, and no difference: {}{more}", named.join(", ")));
    }
    notes
}
