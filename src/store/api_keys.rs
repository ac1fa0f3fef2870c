//! API keys: what users sign in with (domain: session tokens). No error and no span shows a secret.

use ring::{
    digest::{SHA256, digest},
    rand::{SecureRandom as _, SystemRandom},
};
use sqlx::PgConnection;
use subtle::ConstantTimeEq as _;
use time::{Duration, OffsetDateTime};

use super::{
    Error, Result, StoredJson, Text, Timestamp,
    actors::{permissions, texts},
    input,
    query::Query as _,
};
use crate::{
    authz::{Actor, ManageTokens, SignIn},
    model::{ApiKey, Entity, OrganizationId, SessionToken, SignInError, UserId},
};

/// Its use is noted at most so often.
const NOTED: Duration = Duration::HOUR;

/// A user who has signed in with a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedIn {
    /// The user.
    pub actor: Actor,
    /// Whether it is noted that the key was used in the hour before; if not, [`touch`] notes it.
    pub is_noted: bool,
}

struct SessionRow {
    hashed_secret: Vec<u8>,
    user_id: UserId,
    last_used: Timestamp,
    expires_at: Timestamp,
    scopes: Vec<Text>,
    allow_list: Vec<Text>,
    is_linked: bool,
    is_for_an_audience: bool,
    deleted: bool,
    status: Text,
    site_roles: Vec<Text>,
    organization_id: Option<OrganizationId>,
    organization_roles: Option<Vec<Text>>,
    custom_roles: Option<StoredJson>,
}

/// The user of the token, or why it is refused (domain: session tokens). The secret is compared in constant time. One
/// round trip, no locks.
#[tracing::instrument(name = "db.api_keys.session", skip_all)]
pub async fn session(
    conn: &mut PgConnection,
    _permit: &SignIn,
    token: &SessionToken,
    now: OffsetDateTime,
) -> Result<std::result::Result<SignedIn, SignInError>> {
    input::time("now", now)?;
    let rows = sqlx::query_file_as!(SessionRow, "queries/api_keys/session.sql", token.id())
        .fetch_all(conn)
        .of_query("api_keys/session")
        .await?;
    let Some(key) = rows.first() else { return Ok(Err(SignInError::Unknown)) };
    let secret = digest(&SHA256, token.secret().as_bytes());
    let has = |texts: &[Text], text: &str| texts.iter().any(|it| it.0 == text);
    let refused = if !bool::from(secret.as_ref().ct_eq(&key.hashed_secret)) {
        Some(SignInError::WrongSecret)
    } else if key.expires_at.0 < now {
        Some(SignInError::Expired { expires_at: key.expires_at.0 })
    } else if key.deleted {
        Some(SignInError::Unknown)
    } else if !key.is_linked {
        Some(SignInError::NotLinked)
    } else if key.status.0 == "suspended" {
        Some(SignInError::Inactive { status: key.status.0.clone() })
    } else if key.is_for_an_audience || !has(&key.scopes, "coder:all") || !has(&key.allow_list, "*:*") {
        Some(SignInError::Restricted)
    } else {
        None
    };
    if let Some(refused) = refused {
        return Ok(Err(refused));
    }
    let (user, site) = (key.user_id, texts(key.site_roles.clone()));
    let is_noted = key.last_used.0 >= now - NOTED;
    let membership = |row: SessionRow| {
        let permissions = permissions(&row.custom_roles.and_then(|stored| stored.0).unwrap_or_default());
        Some((row.organization_id?, texts(row.organization_roles?), permissions))
    };
    Ok(Ok(SignedIn { actor: Actor::user(user, &site, rows.into_iter().filter_map(membership)), is_noted }))
}

/// Records that the API key was used, unless that was recorded within the last hour. One round trip; locks the row, and
/// does nothing if it is locked.
#[tracing::instrument(name = "db.api_keys.touch", skip_all)]
pub async fn touch(conn: &mut PgConnection, _permit: &SignIn, id: &str, now: OffsetDateTime) -> Result<()> {
    input::text("id", id)?;
    let (at, before) = (input::time("now", now)?, input::time("now", now - NOTED)?);
    sqlx::query_file!("queries/api_keys/touch.sql", id, at, before).execute(conn).of_query("api_keys/touch").await?;
    Ok(())
}

/// Makes a token for the user and returns what a client has to send, which is stored nowhere. One round trip.
///
/// # Errors
/// [`Error::NotFound`] when there is no such user, or the user is deleted; [`Error::Conflict`] with `idx_api_key_name` when
/// the user has a token with this name; [`Error::Invalid`] for an empty name and for NUL characters.
#[tracing::instrument(name = "db.api_keys.create", skip_all)]
pub async fn create(
    conn: &mut PgConnection,
    _permit: &ManageTokens,
    user: UserId,
    name: &str,
    now: OffsetDateTime,
    expires_at: OffsetDateTime,
) -> Result<SessionToken> {
    input::name("name", name)?;
    let (now, expires_at) = (input::time("now", now)?, input::time("expires_at", expires_at)?);
    let token = SessionToken::new(random(SessionToken::ID_LENGTH), random(SessionToken::SECRET_LENGTH));
    let hash = digest(&SHA256, token.secret().as_bytes());
    sqlx::query_file!("queries/api_keys/create.sql", token.id(), hash.as_ref(), user.0, name, now, expires_at)
        .fetch_optional(conn)
        .in_span("api_keys/create")
        .await
        .map_err(|e| Error::conflict("api_keys/create", &["idx_api_key_name"], e))?
        .ok_or_else(|| Error::not_found(Entity::User, user))?;
    Ok(token)
}

/// The tokens of a user, or of all users, by user and name; expired ones, too. Keys of sessions in a browser are not
/// among them. One round trip.
#[tracing::instrument(name = "db.api_keys.list", skip_all)]
pub async fn list(conn: &mut PgConnection, _permit: &ManageTokens, user: Option<UserId>) -> Result<Vec<ApiKey>> {
    let rows = sqlx::query_file!("queries/api_keys/list.sql", user.map(|user| user.0))
        .fetch_all(conn)
        .of_query("api_keys/list")
        .await?;
    let keys = rows.into_iter().map(|row| ApiKey {
        id: row.id.0,
        name: row.name.0,
        user_id: row.user_id,
        username: row.username.0,
        created_at: row.created_at.0,
        last_used: Some(row.last_used.0).filter(|at| *at > OffsetDateTime::UNIX_EPOCH),
        expires_at: row.expires_at.0,
    });
    Ok(keys.collect())
}

/// Revokes the token with this id: requests with it are refused from now on. One round trip; locks the row.
///
/// # Errors
/// [`Error::NotFound`] when there is no such token.
#[tracing::instrument(name = "db.api_keys.revoke", skip_all)]
pub async fn revoke(conn: &mut PgConnection, _permit: &ManageTokens, id: &str) -> Result<()> {
    input::text("id", id)?;
    let done = sqlx::query_file!("queries/api_keys/revoke.sql", id).execute(conn).of_query("api_keys/revoke").await?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(Error::not_found(Entity::ApiKey, id)) }
}

/// So many letters and digits, each as likely as the others.
fn random(length: usize) -> String {
    const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut text = String::with_capacity(length);
    while text.len() < length {
        let mut bytes = [0; 32];
        SystemRandom::new().fill(&mut bytes).expect("the system has randomness");
        // Those above the last multiple of 62 would prefer the first characters.
        let drawn = bytes.iter().filter(|byte| **byte < 248).map(|byte| char::from(ALPHABET[usize::from(*byte) % 62]));
        text.extend(drawn.take(length - text.len()));
    }
    text
}
