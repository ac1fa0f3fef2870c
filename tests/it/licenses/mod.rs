//! Licenses: stored once, listed in order, never shown.

mod command;
mod keys;
mod standing;
mod stored;
mod verified;

use coderdb::{
    authz::{ReadLicenses, WriteLicenses},
    model::{DeleteLicenseOutcome, LicenseId, NewLicense},
    sqlx::{self, Connection, PgConnection},
    store::{self, Error},
};
use time::{Duration, OffsetDateTime, macros::datetime};
use uuid::Uuid;

use crate::support;

const NOW: OffsetDateTime = datetime!(2026-05-07 12:00 UTC);

fn new(jwt: &str) -> NewLicense {
    NewLicense {
        uploaded_at: NOW,
        jwt: jwt.to_owned().into(),
        expires_at: NOW + Duration::days(1),
        uuid: Uuid::from_u128(7),
    }
}

fn read() -> ReadLicenses {
    ReadLicenses::check(&support::operator()).expect("an operator may")
}

fn write() -> WriteLicenses {
    WriteLicenses::check(&support::operator()).expect("an operator may")
}

async fn count(conn: &mut PgConnection) -> usize {
    store::licenses::list(conn, &read()).await.expect("the list").len()
}

#[tokio::test]
async fn a_license_comes_back_as_it_was_given_with_an_id_that_grows() {
    let database = support::database().await;
    let mut conn = database.connect().await;
    let first = store::licenses::insert(&mut conn, &write(), &new("a.b.c")).await.expect("the license");
    let second = store::licenses::insert(&mut conn, &write(), &new("d.e.f")).await.expect("the license");
    assert_eq!((first.id, second.id), (LicenseId(1), LicenseId(2)));
    assert_eq!((first.uploaded_at, first.expires_at, first.uuid), (NOW, NOW + Duration::days(1), Uuid::from_u128(7)));
    assert_eq!(first.jwt.expose(), "a.b.c");
    assert_eq!(store::licenses::get(&mut conn, &read(), LicenseId(2)).await.expect("the license"), second);
    assert_eq!(store::licenses::list(&mut conn, &read()).await.expect("the list"), [first, second]);
    let error = store::licenses::get(&mut conn, &read(), LicenseId(3)).await.expect_err("none");
    assert_eq!(error.to_string(), "license not found: 3");
}

#[tokio::test]
async fn a_duplicate_is_a_conflict_and_does_not_end_the_callers_transaction() {
    let database = support::database().await;
    let mut conn = database.connect().await;
    let mut tx = conn.begin().await.expect("a transaction");
    store::licenses::insert(&mut tx, &write(), &new("a.b.c")).await.expect("the license");
    let other = NewLicense { uuid: Uuid::from_u128(8), ..new("a.b.c") };
    let error = store::licenses::insert(&mut tx, &write(), &other).await.expect_err("a duplicate");
    assert!(matches!(error, Error::Conflict { constraint: "licenses_jwt_key" }), "{error:?}");
    assert_eq!((error.code(), error.is_retryable()), ("conflict", false));
    assert!(!format!("{error} {error:?}").contains("a.b.c"));
    tx.commit().await.expect("committed");
    assert_eq!(count(&mut conn).await, 1);
}

#[tokio::test]
async fn of_many_who_add_one_license_one_does() {
    let database = support::database().await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let mut conn = database.connect().await;
        tasks.spawn(async move {
            match store::licenses::insert(&mut conn, &write(), &new("a.b.c")).await {
                Ok(_) => 1,
                Err(Error::Conflict { .. }) => 0,
                Err(other) => panic!("{other:?}"),
            }
        });
    }
    assert_eq!(tasks.join_all().await.into_iter().sum::<i32>(), 1);
    assert_eq!(count(&mut database.connect().await).await, 1);
}

#[tokio::test]
async fn the_list_has_expired_licenses_and_unexpired_has_not() {
    let database = support::database().await;
    let mut conn = database.connect().await;
    for (jwt, left) in [("now", 0), ("later", 1), ("before", -1), ("much later", 1_000_000)] {
        let license = NewLicense { expires_at: NOW + Duration::microseconds(left), ..new(jwt) };
        store::licenses::insert(&mut conn, &write(), &license).await.expect("the license");
    }
    let unexpired = store::licenses::unexpired(&mut conn, &read(), NOW).await.expect("the licenses");
    assert_eq!(unexpired.iter().map(|license| license.jwt.expose()).collect::<Vec<_>>(), ["later", "much later"]);
    assert_eq!(count(&mut conn).await, 4);
}

#[tokio::test]
async fn a_license_is_deleted_once() {
    let database = support::database().await;
    let mut conn = database.connect().await;
    let keep = store::licenses::insert(&mut conn, &write(), &new("keep")).await.expect("the license");
    let id = store::licenses::insert(&mut conn, &write(), &new("a.b.c")).await.expect("the license").id;
    for outcome in [DeleteLicenseOutcome::Deleted, DeleteLicenseOutcome::Unknown] {
        assert_eq!(store::licenses::delete(&mut conn, &write(), id).await.expect("an answer"), outcome);
    }
    assert_eq!(store::licenses::list(&mut conn, &read()).await.expect("the list"), [keep]);
}

#[tokio::test]
async fn a_text_that_cannot_be_stored_is_refused_by_name() {
    let database = support::database().await;
    let mut conn = database.connect().await;
    // Incompressible, or the index would hold it.
    let long: String = (0..10_000).map(|_| fastrand::alphanumeric()).collect();
    for bad in ["", "a\0b", &long] {
        let error = store::licenses::insert(&mut conn, &write(), &new(bad)).await.expect_err("refused");
        assert!(matches!(error, Error::Invalid { field: "jwt", .. }), "{error:?}");
        assert!(bad.is_empty() || !format!("{error} {error:?}").contains(bad));
    }
    let early = NewLicense { expires_at: datetime!(-5000-01-01 0:00 UTC), ..new("a.b.c") };
    let error = store::licenses::insert(&mut conn, &write(), &early).await.expect_err("refused");
    assert!(matches!(error, Error::Invalid { field: "expires_at", .. }), "{error:?}");
    assert_eq!(count(&mut conn).await, 0);
    // What real licenses measure fits.
    let real = &long[..2000];
    assert_eq!(store::licenses::insert(&mut conn, &write(), &new(real)).await.expect("fits").jwt.expose(), real);
}

#[tokio::test]
async fn neither_debug_nor_display_shows_the_text() {
    let database = support::database().await;
    let mut conn = database.connect().await;
    let new = new("secret");
    let license = store::licenses::insert(&mut conn, &write(), &new).await.expect("the license");
    let shown = format!("{new:?} {license:?} {license:#?} {} {:?}", license.jwt, license.jwt);
    assert!(!shown.contains("secret"), "{shown}");
    // Also not when the server cannot be asked.
    sqlx::raw_sql("ALTER TABLE licenses ADD CHECK (jwt <> 'hidden')").execute(&mut conn).await.expect("a check");
    let hidden = NewLicense { jwt: "hidden".to_owned().into(), ..new };
    let error = store::licenses::insert(&mut conn, &write(), &hidden).await.expect_err("refused");
    assert_eq!(error.to_string(), "the database refused licenses/insert (SQLSTATE 23514)");
}
