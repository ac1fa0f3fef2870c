//! `coderdb licenses`.

mod token;

use std::{
    fs,
    io::{self, Read as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::Subcommand;
use serde_json::json;
use time::OffsetDateTime;
use token::Token;
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
    /// What it says of itself is read; whether its signature is right, the server finds out. White space, line breaks,
    /// quotation marks, `Bearer` and a byte order mark around it do not matter.
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
    let mut bytes = Vec::new();
    if let Some(path) = &args.file {
        bytes =
            fs::read(path).map_err(|error| CliError::new(USAGE, format!("cannot read {}: {error}", path.display())))?;
    } else {
        io::stdin().lock().read_to_end(&mut bytes)?;
    }
    let new = understood(&bytes, OffsetDateTime::now_utc())
        .map_err(|why| CliError::new(FAILED, format!("Invalid license: {why}")))?;
    let mut database = connect().await?;
    // The text is unique, but one that was stored before may have something around it.
    let is_same = |license: &License| Token::read(license.jwt.expose()).is_ok_and(|it| it.text == new.jwt.expose());
    let stored = licenses::list(&mut database, &ReadLicenses::check(&OPERATOR)?).await?;
    if let Some(license) = stored.iter().find(|license| is_same(license)) {
        return Err(CliError::new(FAILED, format!("the license is there already: number {}", license.id)));
    }
    let license = match licenses::insert(&mut database, &WriteLicenses::check(&OPERATOR)?, &new).await {
        Err(store::Error::Conflict { .. }) => return Err(CliError::new(FAILED, "the license is there already")),
        added => added?,
    };
    note(&format!("License {} added, expires at {}", license.id, rfc_3339(license.expires_at)));
    database.close().await;
    Ok(ExitCode::SUCCESS)
}

/// The claims that are times.
const TIMES: [&str; 4] = ["exp", "nbf", "iat", "license_expires"];

/// The license with what its claims say of it (domain: licenses).
fn understood(bytes: &[u8], now: OffsetDateTime) -> Result<NewLicense, String> {
    let text = token::text(bytes).ok_or("it is not a text in UTF-8")?;
    let token = Token::read(&text).map_err(|why| format!("it is not a signed JSON web token: {why}"))?;
    let [expires_at, begin, issued, grace] = TIMES.map(|claim| token.time(claim));
    let (expires_at, begin, _, _) = (expires_at?, begin?, issued?, grace?);
    let expires_at = expires_at.ok_or("it does not say when it expires: it has no exp")?;
    if expires_at <= now {
        return Err(format!("it has expired, at {}", rfc_3339(expires_at)));
    }
    if begin.is_some_and(|begin| begin >= expires_at) {
        return Err("it will never be valid: its nbf is not before its exp".to_owned());
    }
    let uuid = ["jti", "id"].iter().find_map(|claim| token.claims.get(*claim)?.as_str()?.parse().ok());
    let uuid = uuid.unwrap_or_else(Uuid::new_v4);
    Ok(NewLicense { uploaded_at: now, jwt: LicenseJwt::from(token.text), expires_at, uuid })
}

async fn list(args: &List) -> Result<ExitCode, CliError> {
    let mut database = connect().await?;
    let licenses = licenses::list(&mut database, &ReadLicenses::check(&OPERATOR)?).await?;
    let now = OffsetDateTime::now_utc();
    let claims = |license: &License| Token::read(license.jwt.expose()).map(|token| token.claims).unwrap_or_default();
    match args.output {
        Output::Json => {
            let shown = |license: &License| {
                json!({
                    "id": license.id.0,
                    "uuid": license.uuid,
                    "uploaded_at": rfc_3339(license.uploaded_at),
                    "expires_at": rfc_3339(license.expires_at),
                    "claims": claims(license),
                })
            };
            print_json(&licenses.iter().map(shown).collect::<Vec<_>>())?;
        }
        Output::Table if licenses.is_empty() => note("No licenses found"),
        Output::Table => print(&table(
            &["id", "uuid", "uploaded at", "expires at", "state"],
            licenses.iter().map(|license| {
                [
                    license.id.to_string(),
                    license.uuid.to_string(),
                    rfc_3339(license.uploaded_at),
                    rfc_3339(license.expires_at),
                    state(license, now).to_owned(),
                ]
            }),
        ))?,
    }
    database.close().await;
    Ok(ExitCode::SUCCESS)
}

fn state(license: &License, now: OffsetDateTime) -> &'static str {
    let begin = Token::read(license.jwt.expose()).and_then(|token| token.time("nbf"));
    match begin {
        _ if license.expires_at <= now => "expired",
        Ok(Some(begin)) if begin > now => "not yet valid",
        _ => "valid",
    }
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
