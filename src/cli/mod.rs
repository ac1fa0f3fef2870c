//! The command line. Results go to standard output; progress, notes and errors to standard error.

mod complete;
mod confirm;
mod connect;
mod daemons;
mod demo;
mod error;
mod filter;
mod jobs;
mod licenses;
mod log;
#[cfg(feature = "mcp")]
mod mcp;
mod migrate;
mod note;
mod organization;
mod output;
mod postgres;
mod prebuilds;
mod queue;
mod quota;
mod resolve;
#[cfg(feature = "serve")]
mod serve;
mod signals;
mod table;
mod text;
mod tokens;
mod values;

use std::{env, io::Write as _, process::ExitCode};

use clap::{
    ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand,
    builder::StyledStr,
    error::{ContextKind, ContextValue, ErrorKind},
};

use error::{CliError, USAGE};
use output::note;

/// The PostgreSQL layer under a fleet of remote-development workspaces.
///
/// Connects to DATABASE_URL, or to where the variables of libpq (PGHOST, …) point. Without them it starts a
/// private PostgreSQL server of its own, keeps its data between runs, and stops it when the last command is done.
#[derive(Debug, Parser)]
#[command(name = "coderdb", version, propagate_version = true, arg_required_else_help = true, max_term_width = 100)]
#[command(
    after_help = "Examples:\n  coderdb demo\n  coderdb provisioner jobs list --status pending\n\nExit codes: 0 done, 1 not found or failed, 2 usage or configuration, 3 the schema is not \
                        there yet, 4 the database is unreachable. docs/operations.md has all of them."
)]
struct Cli {
    /// When to use colours; `auto` asks the terminal and the environment
    #[arg(long, global = true, value_enum, default_value = "auto", value_name = "WHEN", display_order = 900)]
    color: ColorChoice,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Args),
    /// Bring the database to the schema of this version
    Migrate(migrate::Args),
    /// See what the provisioners have to do
    #[command(subcommand, visible_alias = "provisioners")]
    #[command(after_help = "Example:\n  coderdb provisioner jobs list --status pending")]
    Provisioner(Provisioner),
    /// The licenses of the deployment
    #[command(subcommand, visible_alias = "license", after_help = "Example:\n  coderdb licenses list")]
    Licenses(licenses::Command),
    /// Stop and start the making of prebuilt workspaces
    #[command(subcommand, visible_alias = "prebuild", after_help = "Example:\n  coderdb prebuilds pause")]
    Prebuilds(prebuilds::Command),
    /// See what users consume and may consume
    #[command(subcommand)]
    #[command(after_help = "Example:\n  coderdb quota show alice")]
    Quota(quota::Command),
    /// The tokens with which programs sign in over HTTP
    #[command(subcommand, visible_alias = "token")]
    #[command(after_help = "Example:\n  coderdb tokens create --user alice --name backup")]
    Tokens(tokens::Command),
    #[cfg(feature = "serve")]
    Serve(serve::Args),
    #[cfg(feature = "serve")]
    Openapi(serve::Openapi),
    #[cfg(feature = "mcp")]
    Mcp(mcp::Args),
    Completions(complete::Completions),
    Man(complete::Man),
    /// The private server that is used when no database is configured
    #[command(subcommand)]
    #[command(after_help = "Example:\n  coderdb postgres psql")]
    Postgres(postgres::Command),
}

#[derive(Debug, Subcommand)]
enum Provisioner {
    /// List the daemons that take jobs, as `daemons list` does
    #[command(visible_alias = "ls", after_help = "Example:\n  coderdb provisioner list")]
    List(daemons::List),
    /// The jobs of an organization
    #[command(subcommand, visible_alias = "job")]
    #[command(after_help = "Example:\n  coderdb provisioner jobs list --search 'status:pending created:>1h'")]
    Jobs(jobs::Command),
    /// The daemons that take jobs
    #[command(subcommand, visible_alias = "daemon", after_help = "Example:\n  coderdb provisioner daemons list")]
    Daemons(daemons::Command),
}

/// All commands and their arguments.
#[must_use]
pub fn command() -> clap::Command {
    // `list` alone has these: a variable for a listing must not change what `cancel` cancels.
    let variable = |id: &str| match id {
        "status" => Some("CODER_PROVISIONER_JOB_LIST_STATUS"),
        "initiator" => Some("CODER_PROVISIONER_JOB_LIST_INITIATOR"),
        _ => None,
    };
    let list = |list: clap::Command| {
        list.mut_args(|arg| match variable(arg.get_id().as_str()) {
            Some(name) => arg.env(name),
            None => arg,
        })
    };
    let provisioner = |it: clap::Command| it.mut_subcommand("jobs", |jobs| jobs.mut_subcommand("list", list));
    without_empty_variables(Cli::command().mut_subcommand("provisioner", provisioner))
}

/// An empty variable is an unset one.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |arg: &clap::Arg| arg.get_env().and_then(env::var_os).is_some_and(|value| value.is_empty());
    command.mut_args(|arg| if is_empty(&arg) { arg.env(None) } else { arg }).mut_subcommands(without_empty_variables)
}

/// Parses the arguments, runs the command, and says how it went.
#[must_use]
pub fn main() -> ExitCode {
    complete::answer();
    let cli = command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let command = match cli {
        Ok(cli) => {
            match cli.color {
                ColorChoice::Auto => anstream::ColorChoice::Auto,
                ColorChoice::Always => anstream::ColorChoice::Always,
                ColorChoice::Never => anstream::ColorChoice::Never,
            }
            .write_global();
            cli.command
        }
        Err(error) => return explain(&error),
    };
    #[cfg(feature = "serve")]
    let is_served = matches!(command, Command::Serve(_));
    let run = async {
        log::start()?;
        match command {
            Command::Demo(args) => demo::run(args).await,
            Command::Migrate(args) => migrate::run(args).await,
            Command::Provisioner(Provisioner::Jobs(command)) => jobs::run(command).await,
            Command::Provisioner(Provisioner::Daemons(command)) => daemons::run(command).await,
            Command::Provisioner(Provisioner::List(args)) => daemons::list(args).await,
            Command::Licenses(command) => licenses::run(command).await,
            Command::Prebuilds(command) => prebuilds::run(command).await,
            Command::Quota(command) => quota::run(command).await,
            Command::Tokens(command) => tokens::run(command).await,
            #[cfg(feature = "serve")]
            Command::Serve(args) => serve::run(args).await,
            #[cfg(feature = "serve")]
            Command::Openapi(args) => serve::openapi(&args),
            #[cfg(feature = "mcp")]
            Command::Mcp(args) => mcp::run(args).await,
            Command::Postgres(command) => postgres::run(command),
            Command::Completions(args) => complete::completions(&args).map(|()| ExitCode::SUCCESS),
            Command::Man(args) => complete::man(&args).map(|()| ExitCode::SUCCESS),
        }
    };
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    // One thread is enough for a command, and none for a service.
    #[cfg(feature = "serve")]
    if is_served {
        runtime = tokio::runtime::Builder::new_multi_thread();
    }
    let runtime = runtime.enable_all().build();
    let done = runtime.map_err(CliError::from).and_then(|runtime| {
        let done = runtime.block_on(run);
        // A name server that does not answer holds a thread, for which a drop of the runtime would wait.
        runtime.shutdown_background();
        done
    });
    match done {
        Ok(code) => code,
        Err(error) => error.report(),
    }
}

/// Prints what clap says of the arguments: help as a result, also where a command is missing, and what is wrong with
/// them as an error, without what in them steers a terminal.
fn explain(error: &clap::Error) -> ExitCode {
    let help = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Some(error.render()),
        ErrorKind::MissingSubcommand => help_of_group(error),
        _ => None,
    };
    if let Some(help) = help {
        // A reader that closes the pipe early, such as `head`, is no error.
        let _ = write!(anstream::stdout(), "{}", help.ansi());
        return ExitCode::SUCCESS;
    }
    if error.use_stderr() {
        note(error.render().to_string().trim_end());
        return USAGE.into();
    }
    error.exit()
}

/// The help of the group that was named alone, where a variable stands for an argument.
fn help_of_group(error: &clap::Error) -> Option<StyledStr> {
    let Some(ContextValue::String(path)) = error.get(ContextKind::InvalidSubcommand) else { return None };
    let mut root = command();
    root.build();
    let group = path.split(' ').skip(1).try_fold(&mut root, |group, name| group.find_subcommand_mut(name));
    group.map(clap::Command::render_help)
}
