//! `coderdb migrate new`.

use std::{
    fs::File,
    io::{ErrorKind, Write},
    path::PathBuf,
    process::ExitCode,
};

use super::{
    super::{
        error::{CliError, FAILED, USAGE},
        output::print,
    },
    lint::sql_files,
};
use crate::migrate::names;

/// Write the next migration's file, with its header to fill in
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  coderdb migrate new add_teams\n  coderdb migrate new --no-transaction teams_by_name\n\n\
                  Prints the path of the file. `coderdb migrate lint` says what is still to be filled in."
)]
pub(in crate::cli) struct Args {
    /// What it does, in lower-case letters, digits and underscores
    name: String,
    /// Where the migrations are
    #[arg(long, value_name = "DIRECTORY", default_value = "migrations")]
    dir: PathBuf,
    /// For what cannot share a transaction: indexes that are built beside their users
    #[arg(long)]
    no_transaction: bool,
    /// Tell versions that do not know it that they must not run on the new schema
    #[arg(long)]
    breaking: bool,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let mut name = args.name.clone();
    if args.breaking && !names::is_breaking(&name) {
        name.insert_str(0, "breaking_");
    }
    if names::parse(&format!("V0001__{name}")).is_none() {
        let expected = "expected lower-case letters, digits and underscores, such as add_teams";
        return Err(CliError::new(USAGE, format!("{:?} is no name for a migration: {expected}", args.name)));
    }
    if !args.dir.is_dir() {
        return Err(CliError::new(USAGE, format!("there is no directory {}", args.dir.display()))
            .next("name the directory of the migrations with --dir"));
    }
    let files = sql_files(&args.dir)?;
    let version = |path: &PathBuf| Some(names::parse(path.file_stem()?.to_str()?)?.0);
    let next = files.iter().filter_map(version).max().unwrap_or(0) + 1;
    let path = args.dir.join(format!("V{next:04}__{name}.sql"));
    let failed = |error: std::io::Error| CliError::new(FAILED, format!("cannot write {}: {error}", path.display()));
    let mut file = File::create_new(&path).map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            failed(error).next("check who owns the directory")
        }
        _ => failed(error),
    })?;
    file.write_all(template(args.no_transaction).as_bytes()).map_err(failed)?;
    print(&format!("{}\n", path.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn template(no_transaction: bool) -> String {
    const HEADER: &str = "\
-- What:
-- Locks:
-- Old code:
--
-- docs/adding-a-migration.md says what belongs there. More lines may begin with `-- coderdb:` and give a directive:
-- no-transaction, for what no transaction can hold; lock-timeout=2s; statement-timeout=10m.

";
    if no_transaction {
        format!("-- coderdb: no-transaction\n{HEADER}-- CREATE INDEX CONCURRENTLY name ON table (column);\n")
    } else {
        HEADER.to_owned()
    }
}
