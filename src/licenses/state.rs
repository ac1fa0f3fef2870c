//! Which of the stored licenses is in force, and which replaces which.

use serde::Serialize;
use time::OffsetDateTime;

use super::{claims, error::Claim};
use crate::model::{License, LicenseId};

/// Whether a license is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LicenseState {
    /// It is in force.
    Valid,
    /// Its end, the claim `license_expires`, is past; it is in force until `exp`.
    Grace,
    /// It is valid, and a newer license of the same account is, too.
    Replaced,
    /// It begins later.
    NotYetValid,
    /// It is not in force any more.
    Expired,
}

/// A license among those of the same account, which its claim `account_id` names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LicenseStanding {
    /// Whether it is in force.
    pub state: LicenseState,
    /// Full days until its end: the claim `license_expires`, or `exp` where that is missing. Negative once that is
    /// past.
    pub days_left: i64,
    /// When it begins to be valid; `None` where it does not say.
    #[serde(with = "time::serde::rfc3339::option")]
    pub starts_at: Option<OffsetDateTime>,
    /// The newest license that is valid now and was issued after it; `None` where there is none.
    pub replaced_by: Option<LicenseId>,
    /// The licenses that have not expired and were issued before it: it replaces them when it begins.
    pub replaces: Vec<LicenseId>,
}

/// The state of each of these licenses at a moment, in their order. The licenses are all that are stored: one that is
/// left out replaces nothing. A license without an account, or that cannot be read, replaces none and is not replaced.
#[must_use]
pub fn standings(licenses: &[License], now: OffsetDateTime) -> Vec<LicenseStanding> {
    let all: Vec<_> = licenses.iter().map(Period::of).collect();
    all.iter().map(|license| license.among(&all, now)).collect()
}

struct Period {
    id: LicenseId,
    account: Option<String>,
    issued_at: Option<OffsetDateTime>,
    starts_at: Option<OffsetDateTime>,
    ends_at: OffsetDateTime,
    expires_at: OffsetDateTime,
}

impl Period {
    fn of(license: &License) -> Self {
        let claims = claims(license).ok();
        let time = |claim| claims.as_ref()?.time(claim).ok().flatten();
        Self {
            id: license.id,
            account: claims.as_ref().and_then(|claims| Some(claims.get(Claim::AccountId.name())?.as_str()?.to_owned())),
            issued_at: time(Claim::Iat),
            starts_at: time(Claim::Nbf),
            ends_at: time(Claim::LicenseExpires).unwrap_or(license.expires_at),
            expires_at: license.expires_at,
        }
    }

    fn has_begun(&self, now: OffsetDateTime) -> bool {
        self.starts_at.is_none_or(|start| start <= now)
    }

    /// Whether it was issued after another license of its account. Of two that were issued together, the one that was
    /// added later is newer.
    fn is_newer_than(&self, other: &Self) -> bool {
        let is_of_one_account = self.account.is_some() && self.account == other.account;
        is_of_one_account && (self.issued_at, self.id) > (other.issued_at, other.id)
    }

    fn among(&self, all: &[Self], now: OffsetDateTime) -> LicenseStanding {
        let (is_expired, has_begun) = (self.expires_at <= now, self.has_begun(now));
        let in_force = |other: &&Self| other.expires_at > now && other.has_begun(now);
        let newer = all.iter().filter(|other| other.is_newer_than(self)).filter(in_force);
        let newest = newer.max_by_key(|other| (other.issued_at, other.id));
        let replaced_by = newest.filter(|_| !is_expired && has_begun).map(|other| other.id);
        let replaces = all.iter().filter(|other| !is_expired && other.expires_at > now && self.is_newer_than(other));
        LicenseStanding {
            state: match replaced_by {
                _ if is_expired => LicenseState::Expired,
                _ if !has_begun => LicenseState::NotYetValid,
                Some(_) => LicenseState::Replaced,
                None if self.ends_at <= now => LicenseState::Grace,
                None => LicenseState::Valid,
            },
            days_left: (self.ends_at - now).whole_days(),
            starts_at: self.starts_at,
            replaced_by,
            replaces: replaces.map(|other| other.id).collect(),
        }
    }
}
