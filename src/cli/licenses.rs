//! `coderdb licenses`.

use std::{
    fs::File,
    io::{self, Read},
    path::PathBuf,
    process::ExitCode,
};

use clap::Subcommand;
use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    connect::connect,
    error::{CliError, FAILED, USAGE},
    output::{Output, note, print, print_json, rfc_3339, table},
    resolve::OPERATOR,
};
use crate::{
    authz::{ReadLicenses, WriteLicenses},
    licenses::{self, AddOutcome, Claims, LicenseKeys, LicenseStanding, LicenseState, MAX_TEXT},
    model::{DeleteLicenseOutcome, License, LicenseId},
    store,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Add a license, from a file or from standard input, where no list of processes shows it
    ///
    /// With `--keys`, its signature, its claims and the deployment that it is for are checked. Without, it must only be
    /// a token that has not expired. White space, line breaks, quotation marks, `Bearer` and a byte order mark around
    /// it do not matter.
    #[command(after_help = "Examples:\n  coderdb licenses add --file license.jwt --keys keys.json\n  \
                            coderdb licenses add < license.jwt")]
    Add(Add),
    /// List the licenses, expired ones too, without the texts that one could use
    #[command(visible_alias = "ls")]
    #[command(after_help = "Examples:\n  coderdb licenses list\n  coderdb licenses list -o json")]
    List(List),
    /// Delete a license
    #[command(visible_alias = "rm", after_help = "Example:\n  coderdb licenses delete 2")]
    Delete(Delete),
}

#[derive(Debug, clap::Args)]
pub(super) struct Add {
    /// The file with the license; standard input if absent
    #[arg(short, long)]
    file: Option<PathBuf>,
    /// The public keys that verify licenses: a file with a JWK set, or the JWK set itself
    #[arg(
        long,
        value_name = "FILE",
        env = "CODERDB_LICENSE_KEYS",
        hide_env_values = true,
        default_value = "",
        hide_default_value = true
    )]
    keys: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct List {
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Debug, clap::Args)]
pub(super) struct Delete {
    /// The number of the license, from `list`
    id: String,
}

pub(super) async fn run(command: Command) -> Result<ExitCode, CliError> {
    match command {
        Command::Add(args) => add(&args).await,
        Command::List(args) => list(&args).await,
        Command::Delete(args) => delete(&args).await,
    }
}

async fn add(args: &Add) -> Result<ExitCode, CliError> {
    let keys = LicenseKeys::from_setting(&args.keys).map_err(|error| CliError::new(USAGE, error.to_string()))?;
    let text = text(args)?;
    let mut database = connect().await?;
    let (read, write) = (ReadLicenses::check(&OPERATOR)?, WriteLicenses::check(&OPERATOR)?);
    let now = OffsetDateTime::now_utc();
    let new = if keys.is_empty() {
        licenses::without_verification(&text, now)
    } else {
        let this = store::settings::deployment_id(&mut database, &read).await?;
        licenses::verify(&text, &keys, this.as_deref(), now)
    };
    let new = new.map_err(|why| CliError::new(FAILED, format!("Invalid license: {why}")))?;
    let license = match licenses::add(&mut database, &read, &write, &new).await? {
        AddOutcome::Added(license) => license,
        AddOutcome::Duplicate(id) => {
            return Err(CliError::new(FAILED, format!("the license is there already: number {id}")));
        }
    };
    note(&format!("License {} added, expires at {}", license.id, rfc_3339(license.expires_at)));
    if keys.is_empty() {
        note("Its signature was not checked: --keys or CODERDB_LICENSE_KEYS names the public keys for that");
    }
    database.close().await;
    Ok(ExitCode::SUCCESS)
}

/// The license as it was handed over; of one that is too long, the beginning.
fn text(args: &Add) -> Result<Vec<u8>, CliError> {
    let mut text = Vec::new();
    let mut read = |from: &mut dyn Read| from.take(MAX_TEXT as u64 + 1).read_to_end(&mut text);
    match &args.file {
        Some(path) => File::open(path)
            .and_then(|mut file| read(&mut file))
            .map_err(|error| CliError::new(USAGE, format!("cannot read {}: {error}", path.display())))?,
        None => read(&mut io::stdin().lock())?,
    };
    Ok(text)
}

/// A license as machines read it.
#[derive(Serialize)]
struct Shown {
    id: i32,
    uuid: Uuid,
    uploaded_at: String,
    expires_at: String,
    #[serde(flatten)]
    standing: LicenseStanding,
    claims: Claims,
}

impl Shown {
    fn new(license: &License, standing: LicenseStanding) -> Self {
        Self {
            id: license.id.0,
            uuid: license.uuid,
            uploaded_at: rfc_3339(license.uploaded_at),
            expires_at: rfc_3339(license.expires_at),
            standing,
            claims: licenses::claims(license).unwrap_or_default(),
        }
    }
}

async fn list(args: &List) -> Result<ExitCode, CliError> {
    let mut database = connect().await?;
    let licenses = store::licenses::list(&mut database, &ReadLicenses::check(&OPERATOR)?).await?;
    let standings = licenses::standings(&licenses, OffsetDateTime::now_utc());
    let listed = licenses.iter().zip(standings);
    match args.output {
        Output::Json => {
            print_json(&listed.map(|(license, standing)| Shown::new(license, standing)).collect::<Vec<_>>())?;
        }
        Output::Table if licenses.is_empty() => note("No licenses found"),
        Output::Table => print(&table(
            &["id", "uuid", "uploaded at", "expires at", "days left", "state"],
            listed.map(|(license, standing)| {
                [
                    license.id.to_string(),
                    license.uuid.to_string(),
                    rfc_3339(license.uploaded_at),
                    rfc_3339(license.expires_at),
                    if standing.state == LicenseState::Expired {
                        String::new()
                    } else {
                        standing.days_left.to_string()
                    },
                    state(&standing),
                ]
            }),
        ))?,
    }
    database.close().await;
    Ok(ExitCode::SUCCESS)
}

/// `not yet valid: starts at 2027-01-01T00:00:00Z, then replaces 1`
fn state(standing: &LicenseStanding) -> String {
    let replaces = standing.replaces.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let replacing = |how: &str| if replaces.is_empty() { String::new() } else { format!(", {how} {replaces}") };
    match (standing.state, standing.replaced_by, standing.starts_at) {
        (LicenseState::Expired, ..) => "expired".to_owned(),
        (LicenseState::NotYetValid, _, Some(start)) => {
            format!("not yet valid: starts at {}{}", rfc_3339(start), replacing("then replaces"))
        }
        (LicenseState::NotYetValid, ..) => "not yet valid".to_owned(),
        (LicenseState::Replaced, Some(by), _) => format!("valid, replaced by {by}"),
        (LicenseState::Grace, ..) => format!("in its grace period{}", replacing("replaces")),
        (LicenseState::Valid | LicenseState::Replaced, ..) => format!("valid{}", replacing("replaces")),
    }
}

async fn delete(args: &Delete) -> Result<ExitCode, CliError> {
    let id = args.id.parse().map_err(|_| CliError::new(USAGE, "License ID must be an integer"))?;
    let mut database = connect().await?;
    match store::licenses::delete(&mut database, &WriteLicenses::check(&OPERATOR)?, LicenseId(id)).await? {
        DeleteLicenseOutcome::Deleted => note(&format!("License {id} deleted")),
        DeleteLicenseOutcome::Unknown => return Err(CliError::new(FAILED, "Unknown license ID")),
    }
    database.close().await;
    Ok(ExitCode::SUCCESS)
}
