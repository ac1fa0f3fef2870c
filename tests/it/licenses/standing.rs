//! Licenses that replace each other.

use coderdb::{
    licenses::{LicenseState, standings},
    model::{License, LicenseId, LicenseJwt},
};
use serde_json::json;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::support::licenses::base64;

const DAY: i64 = 24 * 60 * 60;
const NOW: i64 = 1_800_000_000;

/// A license of the account: issued, valid and ended so many days after now.
fn license(id: i32, account: &str, issued: i64, begin: i64, end: i64) -> License {
    let at = |days: i64| NOW + days * DAY;
    let claims = json!({
        "account_id": account, "iat": at(issued), "nbf": at(begin), "license_expires": at(end), "exp": at(end + 7),
    });
    let jwt = format!("{}.{}.{}", base64(b"{}"), base64(claims.to_string().as_bytes()), base64(b"signature"));
    License {
        id: LicenseId(id),
        uploaded_at: OffsetDateTime::UNIX_EPOCH,
        jwt: LicenseJwt::from(jwt),
        expires_at: OffsetDateTime::from_unix_timestamp(at(end + 7)).expect("a time"),
        uuid: Uuid::nil(),
    }
}

#[test]
fn standings_say_what_replaces_what_and_what_starts_later() {
    let now = OffsetDateTime::from_unix_timestamp(NOW).expect("a time");
    let licenses = [
        license(1, "a", -400, -400, -100),
        license(2, "a", -300, -300, 20),
        license(3, "a", -10, -5, 300),
        license(4, "a", -1, 15, 700),
        license(5, "b", -20, -20, -2),
        license(6, "", -20, -20, 10),
        License { jwt: LicenseJwt::from("no token".to_owned()), ..license(7, "a", 0, 0, 0) },
    ];
    let standings = standings(&licenses, now);
    let seen: Vec<_> = standings
        .iter()
        .map(|seen| {
            (seen.state, seen.days_left, seen.replaced_by.map(|by| by.0), seen.replaces.iter().map(|id| id.0).collect())
        })
        .collect();
    let expected = [
        (LicenseState::Expired, -100, None, vec![]),
        (LicenseState::Replaced, 20, Some(3), vec![]),
        (LicenseState::Valid, 300, None, vec![2]),
        (LicenseState::NotYetValid, 700, None, vec![2, 3]),
        (LicenseState::Grace, -2, None, vec![]),
        (LicenseState::Valid, 10, None, vec![]),
        (LicenseState::Valid, 7, None, vec![]),
    ];
    assert_eq!(seen, expected);
    assert_eq!(standings[3].starts_at, Some(now + Duration::days(15)));
    // When it has begun, both that it replaces say so.
    let later = now + Duration::days(16);
    let then = coderdb::licenses::standings(&licenses, later);
    assert_eq!(
        (then[1].replaced_by, then[2].replaced_by, then[3].state),
        (Some(LicenseId(4)), Some(LicenseId(4)), LicenseState::Valid)
    );
}
