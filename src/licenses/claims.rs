//! What a license says of itself.

use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, value::RawValue};
use time::{Duration, OffsetDateTime};

use super::error::{Claim, LicenseError};

/// The version of the claims that is known.
const VERSION: u64 = 3;

/// So far ahead a license may expire.
const LONGEST: Duration = Duration::days(5 * 365);

/// What a license says of itself. Serialized by `serde_json` it is the JSON object of the license to the letter, unknown
/// claims and the digits of numbers included; through a [`Value`] the digits would be lost.
#[derive(Clone)]
pub struct Claims {
    written: Box<RawValue>,
    values: Map<String, Value>,
}

impl Claims {
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let payload = str::from_utf8(payload).ok()?;
        Some(Self { values: serde_json::from_str(payload).ok()?, written: serde_json::from_str(payload).ok()? })
    }

    /// The claim with this name; `None` also when it is null.
    #[must_use]
    pub fn get(&self, claim: &str) -> Option<&Value> {
        self.values.get(claim).filter(|value| !value.is_null())
    }

    /// When the license begins to be valid, if it says so.
    #[must_use]
    pub fn not_before(&self) -> Option<OffsetDateTime> {
        self.time(Claim::Nbf).ok().flatten()
    }

    /// The time that the claim says in seconds since 1970, if it is there, or what is wrong with it.
    pub(super) fn time(&self, claim: Claim) -> Result<Option<OffsetDateTime>, LicenseError> {
        let at = |seconds: f64| {
            let time = OffsetDateTime::UNIX_EPOCH.checked_add(Duration::checked_seconds_f64(seconds)?)?;
            (1..=9999).contains(&time.year()).then_some(time)
        };
        let wrong = |why| Err(LicenseError::Claim { claim: claim.name(), why });
        let found = match self.get(claim.name()) {
            None => return Ok(None),
            Some(Value::Number(number)) => number.as_f64(),
            Some(Value::String(_)) => return wrong("is a text; expected a number of seconds since 1970"),
            Some(_) => return wrong("is no number; expected a number of seconds since 1970"),
        };
        match found.and_then(at) {
            Some(time) => Ok(Some(time)),
            None if found.is_some_and(|seconds| at(seconds / 1000.0).is_some()) => {
                wrong("is in milliseconds; expected a number of seconds since 1970")
            }
            None => wrong("is not in the years 1 to 9999; expected a number of seconds since 1970"),
        }
    }

    /// Checks all claims but the deployment, in the order in which Coder's server does, and returns the end of the license.
    pub(super) fn check(&self, now: OffsetDateTime) -> Result<OffsetDateTime, LicenseError> {
        let wrong = |claim: &'static str, why| Err(LicenseError::Claim { claim, why });
        if self.get(Claim::Version.name()).and_then(Value::as_u64) != Some(VERSION) {
            return wrong(Claim::Version.name(), "is not 3");
        }
        let time = |claim| self.time(claim)?.ok_or_else(|| LicenseError::missing(claim));
        let issued_at = time(Claim::Iat)?;
        if issued_at > now {
            return Err(LicenseError::IssuedInFuture(issued_at));
        }
        let begin = time(Claim::Nbf)?;
        if time(Claim::LicenseExpires)? > now.saturating_add(LONGEST) {
            return wrong(Claim::LicenseExpires.name(), "is more than five years ahead");
        }
        let expires_at = time(Claim::Exp)?;
        check_period(Some(begin), expires_at, now)?;
        for claim in [Claim::AccountType, Claim::AccountId] {
            if self.get(claim.name()).and_then(Value::as_str).is_none_or(str::is_empty) {
                return wrong(claim.name(), "is missing, empty or no text");
            }
        }
        for (claim, is_right, why) in TYPES {
            if self.get(claim).is_some_and(|value| !is_right(value)) {
                return wrong(claim, why);
            }
        }
        Ok(expires_at)
    }

    /// Checks that the license is for this deployment, if it names any.
    pub(super) fn check_deployment(&self, this: Option<&str>) -> Result<(), LicenseError> {
        let ids = self.get("deployment_ids").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let ids: Vec<_> = ids.iter().filter_map(Value::as_str).collect();
        if ids.is_empty() || this.is_some_and(|this| ids.contains(&this)) {
            return Ok(());
        }
        let ids = ids.into_iter().map(str::to_owned).collect();
        Err(LicenseError::Deployment { ids, this: this.map(str::to_owned) })
    }
}

/// Checks that the license has not expired, and does not begin when it has.
pub(super) fn check_period(
    begin: Option<OffsetDateTime>,
    expires_at: OffsetDateTime,
    now: OffsetDateTime,
) -> Result<(), LicenseError> {
    if expires_at <= now {
        return Err(LicenseError::Expired(expires_at));
    }
    if begin.is_some_and(|begin| begin >= expires_at) {
        return Err(LicenseError::NeverValid);
    }
    Ok(())
}

/// The name of a claim, what it must be, and what to say when it is not.
type Rule = (&'static str, fn(&Value) -> bool, &'static str);

/// What the other claims must be where they are there: Coder's server cannot read a license with others.
const TYPES: [Rule; 8] = [
    ("deployment_ids", are_texts, "is no list of texts"),
    ("trial", Value::is_boolean, "is neither true nor false"),
    ("all_features", Value::is_boolean, "is neither true nor false"),
    ("feature_set", Value::is_string, "is no text"),
    ("features", are_integers, "is no object of integers"),
    ("addons", are_texts, "is no list of texts"),
    ("require_telemetry", Value::is_boolean, "is neither true nor false"),
    ("publish_usage_data", Value::is_boolean, "is neither true nor false"),
];

fn are_texts(value: &Value) -> bool {
    value.as_array().is_some_and(|values| values.iter().all(Value::is_string))
}

fn are_integers(value: &Value) -> bool {
    value.as_object().is_some_and(|values| values.values().all(Value::is_i64))
}

/// No claims.
impl Default for Claims {
    fn default() -> Self {
        Self { written: RawValue::from_string("{}".to_owned()).expect("an object"), values: Map::new() }
    }
}

impl Serialize for Claims {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.written.serialize(serializer)
    }
}

/// Without what it says: that is for answers, not for logs.
impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Claims(..)")
    }
}
