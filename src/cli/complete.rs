//! `coderdb completions` and `coderdb man`.

mod bash;

use std::{ffi::OsStr, time::Duration};

use clap::Args;
use clap_complete::{
    CompletionCandidate, Shell,
    env::{CompleteEnv, Elvish, Fish, Powershell, Shells, Zsh},
};

use super::{
    error::{CliError, USAGE},
    output::print,
    resolve::OPERATOR,
    text::breaks_lines,
};
use crate::{
    authz::ReadOrganizations,
    connect::ConnectOptions,
    model::NameOrId,
    search::{Condition, Term},
    store::organizations,
};

/// The variable with which a shell asks for completions.
const VARIABLE: &str = "CODERDB_COMPLETE";

/// The script for bash that comes with the library inserts names that the shell then carries out.
const SHELLS: Shells<'static> = Shells(&[&bash::Bash, &Elvish, &Fish, &Powershell, &Zsh]);

/// How long a shell waits for names out of the database.
const TIME_LIMIT: Duration = Duration::from_millis(500);

/// Print what a shell needs to complete the arguments of coderdb
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  echo 'source <(coderdb completions bash)' >> ~/.bashrc\n  echo 'source <(coderdb \
                        completions zsh)' >> ~/.zshrc\n  coderdb completions fish > \
                        ~/.config/fish/completions/coderdb.fish\n\nThe shell asks coderdb at each Tab; it asks the \
                        configured database for the names of organizations, half a second at most."
)]
pub(super) struct Completions {
    shell: Shell,
}

/// Print the manual page of coderdb, or of one of its commands
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  coderdb man | man -l -\n  coderdb man provisioner jobs list > \
                        coderdb-provisioner-jobs-list.1")]
pub(super) struct Man {
    /// The command, as in `coderdb man provisioner jobs list`
    command: Vec<String>,
}

/// Answers a shell that asks for completions, and ends the program if one did.
pub(super) fn answer() {
    CompleteEnv::with_factory(super::command).var(VARIABLE).shells(SHELLS).complete();
}

pub(super) fn completions(args: &Completions) -> Result<(), CliError> {
    let mut script = Vec::new();
    if let Some(shell) = SHELLS.completer(&args.shell.to_string()) {
        shell.write_registration(VARIABLE, "coderdb", "coderdb", "coderdb", &mut script)?;
    }
    print(&String::from_utf8_lossy(&script))
}

pub(super) fn man(args: &Man) -> Result<(), CliError> {
    let mut root = super::command();
    // Gives the commands their full names.
    root.build();
    let mut command = &root;
    for name in &args.command {
        command = command.find_subcommand(name).ok_or_else(|| {
            CliError::new(USAGE, format!("{} has no command {name}", command.get_display_name().unwrap_or("coderdb")))
        })?;
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    let variables = command.get_arguments().filter_map(|arg| {
        Some((arg.get_env()?.to_str()?.to_owned(), format!("the default of --{}", arg.get_long().unwrap_or_default())))
    });
    let database = ("DATABASE_URL".to_owned(), "the database; docs/operations.md has the other variables".to_owned());
    let codes = EXIT_CODES.map(|(code, meaning)| (code.to_owned(), meaning.to_owned()));
    let page = String::from_utf8_lossy(&page).into_owned();
    print(&(page + &section("ENVIRONMENT", variables.chain([database])) + &section("EXIT STATUS", codes)))
}

/// What most commands end with; docs/operations.md has the rest.
const EXIT_CODES: [(&str, &str); 7] = [
    ("0", "done, or nothing to do"),
    ("1", "what was named does not exist, or the operation failed"),
    ("2", "usage or configuration"),
    ("3", "migrations are pending, or the schema is missing"),
    ("4", "the database is unreachable, or the connection was lost"),
    ("14", "a standby, a session that may only read, a missing privilege, a full disk"),
    ("129, 130, 143", "stopped by SIGHUP, SIGINT or SIGTERM"),
];

/// A section of a manual page: names, and what they mean.
fn section(title: &str, items: impl IntoIterator<Item = (String, String)>) -> String {
    let item = |(name, meaning): (String, String)| format!(".TP\n\\fB{name}\\fR\n{}\n", meaning.replace('-', "\\-"));
    format!(".SH \"{title}\"\n{}", items.into_iter().map(item).collect::<String>())
}

/// The organizations of the configured database; nothing when it does not answer soon.
pub(super) fn organizations() -> Vec<CompletionCandidate> {
    organization_names().into_iter().map(CompletionCandidate::new).collect()
}

/// Their names; no shell can insert one that steers the terminal.
fn organization_names() -> Vec<String> {
    let names = async {
        let mut conn = ConnectOptions::from_environment().ok()??.disable_statement_logging().connect().await.ok()?;
        organizations::list(&mut conn, &ReadOrganizations::check(&OPERATOR)).await.ok()
    };
    let within = async { tokio::time::timeout(TIME_LIMIT, names).await.ok().flatten() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let found = runtime.ok().and_then(|runtime| {
        let found = runtime.block_on(within);
        // A name server that does not answer would hold a drop of the runtime.
        runtime.shutdown_background();
        found
    });
    let names = found.unwrap_or_default().into_iter().map(|organization| organization.name);
    names.filter(|name| !name.chars().any(breaks_lines)).collect()
}

/// How the last term of a search may go on: with a key, or with a value of its key.
pub(super) fn search(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(text) = current.to_str() else { return Vec::new() };
    let term = text.rfind(char::is_whitespace).map_or(0, |space| space + 1);
    let (before, term) = text.split_at(term);
    let (sign, term) = term.strip_prefix('-').map_or(("", term), |term| ("-", term));
    let options: Vec<String> = match term.split_once(':') {
        None => Condition::KEYS.iter().map(|key| format!("{key}:")).collect(),
        Some(("organization", _)) => organization_names().into_iter().map(organization).collect(),
        Some((key, values)) => {
            let chosen = values.rfind(',').map_or("", |comma| &values[..=comma]);
            Condition::values(key).into_iter().map(|value| format!("{key}:{chosen}{value}")).collect()
        }
    };
    let fits = options.into_iter().filter(|option| option.starts_with(term));
    fits.map(|option| CompletionCandidate::new(format!("{before}{sign}{option}"))).collect()
}

/// The term that asks for it, with the quotes that a search needs.
fn organization(name: String) -> String {
    Term { negated: false, condition: Condition::Organization(NameOrId::Name(name)) }.to_string()
}
