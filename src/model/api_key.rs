//! API keys: what users sign in with (domain: session tokens).

use std::{fmt, str::FromStr};

use time::OffsetDateTime;

use super::UserId;

/// What a client sends to sign in: the id of an API key and its secret, as `<id>-<secret>`. It gives all rights of the
/// user, so neither `Debug` nor any error shows the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionToken([String; 2]);

/// A text that is no session token. It does not hold the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSessionToken {
    /// It is not two parts with a hyphen in between.
    #[error("incorrect amount of API key parts, expected 2 got {0}")]
    Parts(usize),
    /// The id is too short or too long.
    #[error("invalid API key ID length, expected 10 got {0}")]
    Id(usize),
    /// The secret is too short or too long.
    #[error("invalid API key secret length, expected 22 got {0}")]
    Secret(usize),
    /// The id has characters that no id has.
    #[error("invalid API key ID, expected letters and digits")]
    Characters,
}

impl SessionToken {
    /// How long an id is.
    pub const ID_LENGTH: usize = 10;
    /// How long a secret is.
    pub const SECRET_LENGTH: usize = 22;

    pub(crate) const fn new(id: String, secret: String) -> Self {
        Self([id, secret])
    }

    /// The id of the API key, which is no secret.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.0[0]
    }

    pub(crate) fn secret(&self) -> &str {
        &self.0[1]
    }

    /// The text that a client sends.
    #[must_use]
    pub fn expose(&self) -> String {
        self.0.join("-")
    }
}

impl FromStr for SessionToken {
    type Err = InvalidSessionToken;

    fn from_str(text: &str) -> Result<Self, InvalidSessionToken> {
        let parts: Vec<_> = text.split('-').collect();
        let [id, secret] = parts[..] else { return Err(InvalidSessionToken::Parts(parts.len())) };
        match (id.len(), secret.len()) {
            (Self::ID_LENGTH, Self::SECRET_LENGTH) if id.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                Ok(Self([id, secret].map(str::to_owned)))
            }
            (Self::ID_LENGTH, Self::SECRET_LENGTH) => Err(InvalidSessionToken::Characters),
            (Self::ID_LENGTH, length) => Err(InvalidSessionToken::Secret(length)),
            (length, _) => Err(InvalidSessionToken::Id(length)),
        }
    }
}

impl fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionToken({}-..)", self.id())
    }
}

/// An API key that a user made under a name, for a program. Its secret is shown once, when it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// The part of the token that is no secret.
    pub id: String,
    /// Unique among the tokens of the user.
    pub name: String,
    /// Whose it is.
    pub user_id: UserId,
    /// The name of that user.
    pub username: String,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it was used last, to the hour; `None` when it never was.
    pub last_used: Option<OffsetDateTime>,
    /// From when on it is refused.
    pub expires_at: OffsetDateTime,
}

/// Why a token is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignInError {
    /// There is no such API key: it never was, or is revoked, or its user was deleted.
    #[error("API key is invalid.")]
    Unknown,
    /// The id is right, and the secret is not.
    #[error("API key secret is invalid.")]
    WrongSecret,
    /// Its time is over.
    #[error("API key expired at {expires_at}.")]
    Expired {
        /// Since when.
        expires_at: OffsetDateTime,
    },
    /// It came from a sign-in at an identity provider to which the user is not linked any more.
    #[error("You must re-authenticate with the login provider.")]
    NotLinked,
    /// The user may do nothing.
    #[error("User is not active (status = \"{status}\").")]
    Inactive {
        /// The status of the user.
        status: String,
    },
    /// It may do only a part of what its user may: its scopes lack `coder:all`, its list of resources is not `*:*`, or
    /// it is for another audience. Such keys are refused here.
    #[error("API key is restricted to certain scopes, resources or an audience, which this API does not support.")]
    Restricted,
}
