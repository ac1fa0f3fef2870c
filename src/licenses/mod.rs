//! Licenses as their texts say them: who signed one, what it claims, and whether this deployment may use it
//! (domain: licenses).
//!
//! [`verify`] checks an uploaded license, and [`add`] stores it once. [`claims`] is what listings show
//! of one that is stored. No error, `Debug` or span shows the text of a license.

mod claims;
mod error;
mod keys;
mod state;
mod token;

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

pub use self::{
    claims::Claims,
    error::LicenseError,
    keys::{LicenseKeys, LicenseKeysError},
    state::{LicenseStanding, LicenseState, standings},
};
use self::{error::Claim, token::Token};
use crate::{
    authz::{ReadLicenses, WriteLicenses},
    model::{License, LicenseId, LicenseJwt, NewLicense},
    store,
};

/// How long a text may be that is looked at, in bytes. What is stored is shorter: an index holds it.
pub const MAX_TEXT: usize = 64 * 1024;

/// The license in this text, if one of the keys signed it, its claims are what they must be, and this deployment is one
/// of those that it is for. The text may have white space, quotation marks, `Bearer` or a byte order mark around it;
/// what is to be stored has none of that.
///
/// # Errors
/// The first fault: of the signature, then of the claims in the order of docs/domain.md, then of the deployment.
pub fn verify(
    text: &[u8],
    keys: &LicenseKeys,
    deployment_id: Option<&str>,
    now: OffsetDateTime,
) -> Result<NewLicense, LicenseError> {
    if keys.is_empty() {
        return Err(LicenseError::NoKeys);
    }
    let token = Token::from_bytes(text)?;
    keys.verify(&token)?;
    let expires_at = token.claims.check(now)?;
    token.claims.check_deployment(deployment_id)?;
    Ok(new(token, expires_at, now))
}

/// The license in this text, without a check of its signature: for operators without keys who trust its source.
///
/// # Errors
/// When it is no token, its times are none, it has expired, or it will never be valid.
pub fn without_verification(text: &[u8], now: OffsetDateTime) -> Result<NewLicense, LicenseError> {
    let token = Token::from_bytes(text)?;
    let [expires_at, begin, issued, end] =
        [Claim::Exp, Claim::Nbf, Claim::Iat, Claim::LicenseExpires].map(|claim| token.claims.time(claim));
    let (expires_at, begin, _, _) = (expires_at?, begin?, issued?, end?);
    let expires_at = expires_at.ok_or_else(|| LicenseError::missing(Claim::Exp))?;
    claims::check_period(begin, expires_at, now)?;
    Ok(new(token, expires_at, now))
}

fn new(token: Token, expires_at: OffsetDateTime, now: OffsetDateTime) -> NewLicense {
    let uuid = token.claims.get("jti").and_then(|id| id.as_str()?.parse().ok()).unwrap_or_else(Uuid::new_v4);
    NewLicense { uploaded_at: now, jwt: LicenseJwt::from(token.text), expires_at, uuid }
}

/// What a stored license claims, without a check of its signature.
///
/// # Errors
/// [`LicenseError::Malformed`] when the stored text is no token. A listing shows no claims then.
pub fn claims(license: &License) -> Result<Claims, LicenseError> {
    Token::read(license.jwt.expose()).map(|token| token.claims)
}

/// What became of a license that was to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum AddOutcome {
    /// It was not there, and is now.
    Added(License),
    /// It is there already, with this number.
    Duplicate(LicenseId),
}

/// Adds a license, unless one with the same content is there, with whatever around it. Tells
/// [`store::licenses::CHANNEL`]. Two round trips.
///
/// # Errors
/// Those of [`store::licenses::insert`], but for the conflict.
pub async fn add(
    conn: &mut PgConnection,
    read: &ReadLicenses,
    write: &WriteLicenses,
    new: &NewLicense,
) -> store::Result<AddOutcome> {
    let content = |jwt: &LicenseJwt| Token::read(jwt.expose()).map(|token| token.text).ok();
    let added = content(&new.jwt);
    let is_same = |other: &License| other.jwt == new.jwt || (added.is_some() && content(&other.jwt) == added);
    loop {
        let stored = store::licenses::list(conn, read).await?;
        if let Some(same) = stored.iter().find(|license| is_same(license)) {
            return Ok(AddOutcome::Duplicate(same.id));
        }
        match store::licenses::insert(conn, write, new).await {
            // Another session has added it meanwhile.
            Err(store::Error::Conflict { .. }) => {}
            added => return added.map(AddOutcome::Added),
        }
    }
}
