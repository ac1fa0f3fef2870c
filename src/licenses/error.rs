//! Why a license is refused.

use std::fmt;

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Why a license is refused. The text says it to a person; [`code`](Self::code) is for programs, and
/// [`message`](Self::message) with [`detail`](Self::detail) is what Coder's server answers.
///
/// Neither `Display` nor `Debug` shows any of the license's text.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LicenseError {
    /// There is no key, so nothing can be verified.
    #[error("there are no public keys here to verify its signature with; configure a JWK set")]
    NoKeys,
    /// It has more than [`MAX_TEXT`](super::MAX_TEXT) bytes.
    #[error("it is too long: expected {} bytes at most", super::MAX_TEXT)]
    TooLong,
    /// Its bytes are no text.
    #[error("it is not a text in UTF-8")]
    NotText,
    /// It is no token, for this reason.
    #[error("it is not a signed JSON web token: {0}")]
    Malformed(String),
    /// Its header names another algorithm, or none.
    #[error("its header does not name the algorithm EdDSA")]
    Algorithm,
    /// Its header asks for an extension (`crit`).
    #[error("its header asks for an extension that is not known here (crit)")]
    Extension,
    /// Its header names no key.
    #[error("its header does not name the key that it is signed with (kid)")]
    KeyIdMissing,
    /// Its header names a key that is not there; these are.
    #[error("it is signed with a key that is not known here; known is: {}", .0.join(", "))]
    KeyIdUnknown(Vec<String>),
    /// The signature is not that of the key that the header names.
    #[error("its signature is not that of the key that it names, or it was changed")]
    Signature,
    /// A claim is missing, or not what it must be.
    #[error("its {claim} {why}")]
    Claim {
        /// The name of the claim.
        claim: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It was issued later than now.
    #[error("it was issued in the future, at {} (iat)", rfc_3339(.0)) ]
    IssuedInFuture(OffsetDateTime),
    /// It has expired, its grace period included.
    #[error("it has expired, at {} (exp)", rfc_3339(.0))]
    Expired(OffsetDateTime),
    /// It begins when it has ended.
    #[error("it will never be valid: its nbf is not before its exp")]
    NeverValid,
    /// It is for other deployments.
    #[error("it is for other deployments than this one (deployment_ids)")]
    Deployment {
        /// The deployments that it is for.
        ids: Vec<String>,
        /// This one, if it has an id.
        this: Option<String>,
    },
}

/// The claims that are checked by name.
#[derive(Debug, Clone, Copy)]
pub(super) enum Claim {
    Version,
    Iat,
    Nbf,
    LicenseExpires,
    Exp,
    AccountType,
    AccountId,
}

impl Claim {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Iat => "iat",
            Self::Nbf => "nbf",
            Self::LicenseExpires => "license_expires",
            Self::Exp => "exp",
            Self::AccountType => "account_type",
            Self::AccountId => "account_id",
        }
    }
}

impl LicenseError {
    pub(super) const fn missing(claim: Claim) -> Self {
        Self::Claim { claim: claim.name(), why: "is missing" }
    }

    /// A name for the fault that stays the same between versions.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoKeys => "license_keys_missing",
            Self::TooLong => "license_too_long",
            Self::NotText => "license_not_text",
            Self::Malformed(_) => "license_malformed",
            Self::Algorithm => "license_algorithm",
            Self::Extension => "license_extension",
            Self::KeyIdMissing => "license_key_id_missing",
            Self::KeyIdUnknown(_) => "license_key_id_unknown",
            Self::Signature => "license_signature",
            Self::Claim { claim, .. } => match *claim {
                "version" => "license_version",
                "iat" => "license_iat",
                "nbf" => "license_nbf",
                "license_expires" => "license_expires",
                "exp" => "license_exp",
                "account_type" => "license_account_type",
                "account_id" => "license_account_id",
                _ => "license_claim_type",
            },
            Self::IssuedInFuture(_) => "license_issued_in_future",
            Self::Expired(_) => "license_expired",
            Self::NeverValid => "license_never_valid",
            Self::Deployment { .. } => "license_deployment",
        }
    }

    /// What Coder's server answers as the message.
    #[must_use]
    pub const fn message(&self) -> &'static str {
        match self {
            Self::NoKeys => "Licenses cannot be verified on this deployment",
            Self::Deployment { .. } => "License cannot be used on this deployment!",
            _ => "Invalid license",
        }
    }

    /// What Coder's server answers as the detail: one text for whatever is wrong with the token itself.
    #[must_use]
    pub fn detail(&self) -> String {
        const SEVERAL: &str = "license has multiple issues; contact support";
        let detail = match self {
            Self::NoKeys => return format!("{self}."),
            Self::Deployment { ids, this } => {
                // Text out of a license is escaped and cut.
                let shown = |id: &String| id.escape_debug().take(64).collect::<String>();
                let mut all: Vec<_> = ids.iter().take(10).map(shown).collect();
                if ids.len() > all.len() {
                    all.push(format!("{} more", ids.len() - all.len()));
                }
                let this = this.as_deref().map_or_else(|| "none".to_owned(), |id| id.escape_debug().collect());
                return format!("It is for the deployments: {}. The id of this deployment is: {this}.", all.join(", "));
            }
            Self::NeverValid => "license has invalid or missing nbf (not before) claim",
            Self::Claim { claim, .. } => match *claim {
                "version" => "license must be version 3",
                "iat" => "license has invalid or missing iat (issued at) claim",
                "nbf" => "license has invalid or missing nbf (not before) claim",
                "license_expires" => "license has invalid or missing license_expires claim",
                "exp" => "license has invalid or missing exp (expires at) claim",
                "account_type" => "license must contain valid account type",
                "account_id" => "license must contain valid account ID",
                _ => SEVERAL,
            },
            _ => SEVERAL,
        };
        detail.to_owned()
    }
}

/// By its name alone: claims are in some of the fields.
impl fmt::Debug for LicenseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LicenseError").field(&self.code()).finish()
    }
}

fn rfc_3339(time: &OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_default()
}
