//! `coderdb migrate lint`.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde::Serialize;

use super::super::{
    error::{CliError, LINT, USAGE},
    output::{Output, print, print_json, printable},
};
use crate::migrate::{
    lint::{Finding, Source, lint, sources},
    names,
};

/// The version of the JSON, raised when a key changes its meaning or goes.
const FORMAT: u32 = 1;

/// Look for what is dangerous or wrong in migrations, before anything runs
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  coderdb migrate lint\n  coderdb migrate lint migrations\n  coderdb migrate lint -o json \
                  migrations/V0015__add_teams.sql\n\nExits with 15 when something is found. Needs no database. The comment\n  \
                  -- squawk-ignore ban-drop-column\nabove a statement lets it pass one of squawk's rules."
)]
pub(in crate::cli) struct Args {
    /// Files, or directories with files that end in .sql; those of this version if there are none
    #[arg(value_name = "FILES")]
    files: Vec<PathBuf>,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

/// What `-o json` prints, in this order.
#[derive(Serialize)]
struct Document<'a> {
    format: u32,
    files: usize,
    findings: &'a [Finding],
}

pub(super) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let sources = if args.files.is_empty() { sources() } else { read(&args.files)? };
    let findings = lint(&sources);
    match args.output {
        Output::Json => print_json(&Document { format: FORMAT, files: sources.len(), findings: &findings })?,
        Output::Table => print(&printable(&report(sources.len(), &findings)))?,
    }
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(LINT) })
}

fn report(files: usize, findings: &[Finding]) -> String {
    let mut text = String::new();
    for Finding { file, line, column, rule, message, hint } in findings {
        let _ = writeln!(text, "{file}:{line}:{column}: {rule}: {message}");
        if let Some(hint) = hint {
            let _ = writeln!(text, "    hint: {hint}");
        }
    }
    if findings.is_empty() {
        let _ = writeln!(text, "{files} file{}: nothing found.", if files == 1 { "" } else { "s" });
    }
    text
}

fn read(paths: &[PathBuf]) -> Result<Vec<Source>, CliError> {
    let mut sources = Vec::new();
    for path in paths {
        if path.is_dir() {
            let files = sql_files(path)?;
            if files.is_empty() {
                return Err(CliError::new(USAGE, format!("{} has no file that ends in .sql", path.display())));
            }
            sources.extend(files.iter().map(|file| source(file)).collect::<Result<Vec<_>, _>>()?);
        } else {
            sources.push(source(path)?);
        }
    }
    Ok(sources)
}

/// The files of a directory that could be migrations.
pub(super) fn sql_files(directory: &Path) -> Result<Vec<PathBuf>, CliError> {
    let entries = fs::read_dir(directory).map_err(|error| unreadable(directory, &error))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| unreadable(directory, &error))?.path();
        if path.file_name().is_some_and(|name| names::is_meant(&name.to_string_lossy())) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn source(path: &Path) -> Result<Source, CliError> {
    let sql = fs::read(path).map_err(|error| unreadable(path, &error))?;
    let sql = String::from_utf8(sql).map_err(|error| unreadable(path, &error))?;
    Ok(Source { path: path.display().to_string(), sql })
}

fn unreadable(path: &Path, error: &dyn std::error::Error) -> CliError {
    CliError::new(USAGE, format!("cannot read {}: {error}", path.display()))
}
