//! Licenses.

use std::fmt;

use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

/// The id of a license: a number that grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct LicenseId(pub i32);

impl fmt::Display for LicenseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A signed license text. The text is the license, so neither `Debug` nor `Display` shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct LicenseJwt(String);

impl LicenseJwt {
    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for LicenseJwt {
    fn from(jwt: String) -> Self {
        Self(jwt)
    }
}

impl fmt::Debug for LicenseJwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LicenseJwt(..)")
    }
}

impl fmt::Display for LicenseJwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// A license (domain: licenses). It does not serialize: answers show its claims, never its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct License {
    /// The primary key.
    pub id: LicenseId,
    /// When it was added.
    pub uploaded_at: OffsetDateTime,
    /// The signed text, unique.
    pub jwt: LicenseJwt,
    /// When it expires, out of its claims.
    pub expires_at: OffsetDateTime,
    /// The id out of its claims, or a random one.
    pub uuid: Uuid,
}

/// A license that is not stored yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewLicense {
    /// Now.
    pub uploaded_at: OffsetDateTime,
    /// The signed text, whose claims have been checked.
    pub jwt: LicenseJwt,
    /// When it expires, out of its claims.
    pub expires_at: OffsetDateTime,
    /// The id out of its claims, or a random one.
    pub uuid: Uuid,
}

/// What became of a license that was to be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum DeleteLicenseOutcome {
    /// It was there, and is gone.
    Deleted,
    /// There was none.
    Unknown,
}
