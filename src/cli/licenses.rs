//! `coderdb licenses`.

use std::{fs, io, path::PathBuf, process::ExitCode};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use clap::Subcommand;
use serde_json::{Map, Value, json};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{
    connect::connect,
    error::{CliError, FAILED, USAGE},
    output::{Output, note, print, print_json, rfc_3339, table},
    resolve::OPERATOR,
};
use crate::{
    authz::{ReadLicenses, WriteLicenses},
    model::{DeleteLicenseOutcome, License, LicenseId, LicenseJwt, NewLicense},
    store::{self, licenses},
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Add a license, from a file or from standard input, where no list of processes shows it
    ///
    /// What it says of itself is read; whether its signature is right, the server finds out.
    #[command(
        after_help = "Examples:\n  coderdb licenses add --file license.jwt\n  coderdb licenses add < license.jwt"
    )]
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
    let text = match &args.file {
        Some(path) => fs::read_to_string(path)
            .map_err(|error| CliError::new(USAGE, format!("cannot read {}: {error}", path.display())))?,
        None => io::read_to_string(io::stdin().lock())?,
    };
    let jwt = LicenseJwt::from(text.trim().to_owned());
    let now = OffsetDateTime::now_utc();
    let new = understood(jwt, now).map_err(|why| CliError::new(FAILED, format!("Invalid license: {why}")))?;
    let mut database = connect().await?;
    let license = match licenses::insert(&mut database, &WriteLicenses::check(&OPERATOR)?, &new).await {
        Err(store::Error::Conflict { .. }) => return Err(CliError::new(FAILED, "the license is there already")),
        added => added?,
    };
    note(&format!("License {} added, expires at {}", license.id, rfc_3339(license.expires_at)));
    database.close().await;
    Ok(ExitCode::SUCCESS)
}

/// The license with what its claims say of it (domain 10.7).
fn understood(jwt: LicenseJwt, now: OffsetDateTime) -> Result<NewLicense, &'static str> {
    let claims = claims(&jwt).ok_or("it is not a signed JSON web token")?;
    // Seconds, which some write as 1.8e9 or with a point.
    let time = |claim: &str| {
        OffsetDateTime::UNIX_EPOCH.checked_add(Duration::checked_seconds_f64(claims.get(claim)?.as_f64()?)?)
    };
    let expires_at = time("exp").ok_or("it does not say when it expires")?;
    if expires_at <= now {
        return Err("it has expired");
    }
    if time("nbf").is_some_and(|begin| begin >= expires_at) {
        return Err("it will never be valid");
    }
    let uuid = ["jti", "id"].iter().find_map(|claim| claims.get(*claim)?.as_str()?.parse().ok());
    Ok(NewLicense { uploaded_at: now, jwt, expires_at, uuid: uuid.unwrap_or_else(Uuid::new_v4) })
}

/// What a license says, unverified.
fn claims(jwt: &LicenseJwt) -> Option<Map<String, Value>> {
    let mut parts = jwt.expose().split('.');
    let (Some(_), Some(claims), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    if signature.is_empty() {
        return None;
    }
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
}

async fn list(args: &List) -> Result<ExitCode, CliError> {
    let mut database = connect().await?;
    let licenses = licenses::list(&mut database, &ReadLicenses::check(&OPERATOR)?).await?;
    let is_expired = |license: &License| license.expires_at <= OffsetDateTime::now_utc();
    match args.output {
        Output::Json => {
            let shown = |license: &License| {
                json!({
                    "id": license.id.0,
                    "uuid": license.uuid,
                    "uploaded_at": rfc_3339(license.uploaded_at),
                    "expires_at": rfc_3339(license.expires_at),
                    "claims": claims(&license.jwt).unwrap_or_default(),
                })
            };
            print_json(&licenses.iter().map(shown).collect::<Vec<_>>())?;
        }
        Output::Table if licenses.is_empty() => note("No licenses found"),
        Output::Table => print(&table(
            &["id", "uuid", "uploaded at", "expires at", "expired"],
            licenses.iter().map(|license| {
                let expired = if is_expired(license) { "yes" } else { "no" };
                [
                    license.id.to_string(),
                    license.uuid.to_string(),
                    rfc_3339(license.uploaded_at),
                    rfc_3339(license.expires_at),
                    expired.to_owned(),
                ]
            }),
        ))?,
    }
    database.close().await;
    Ok(ExitCode::SUCCESS)
}

async fn delete(args: &Delete) -> Result<ExitCode, CliError> {
    let id = args.id.parse().map_err(|_| CliError::new(USAGE, "License ID must be an integer"))?;
    let mut database = connect().await?;
    match licenses::delete(&mut database, &WriteLicenses::check(&OPERATOR)?, LicenseId(id)).await? {
        DeleteLicenseOutcome::Deleted => note(&format!("License {id} deleted")),
        DeleteLicenseOutcome::Unknown => return Err(CliError::new(FAILED, "Unknown license ID")),
    }
    database.close().await;
    Ok(ExitCode::SUCCESS)
}
