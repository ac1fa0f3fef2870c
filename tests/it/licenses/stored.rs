//! Licenses out of verified texts: added once, shown as they are written, announced.

use coderdb::{
    licenses::{self, AddOutcome, Claims},
    model::{DeleteLicenseOutcome, License, LicenseId, NewLicense},
    sqlx::{
        self, Connection as _,
        postgres::{PgListener, PgPoolOptions},
    },
    store,
};
use tokio::task::JoinSet;

use super::{NOW, new, read, write};
use crate::support::{
    self,
    licenses::{Signer, base64, claims},
    secrets::{self, CANARY},
};

fn license(jwt: &str) -> License {
    let NewLicense { uploaded_at, jwt, expires_at, uuid } = new(jwt);
    License { id: LicenseId(1), uploaded_at, jwt, expires_at, uuid }
}

#[tokio::test]
async fn add_knows_a_license_by_its_content() {
    let database = support::database().await;
    let mut conn = database.connect().await;
    let signer = Signer::new("key");
    let text = signer.sign(&claims(NOW));
    let license = licenses::verify(text.as_bytes(), &signer.keys(), None, NOW).expect("a license");
    let (head, tail) = text.split_at(50);
    for stored in [text.clone(), format!("Bearer {text}"), format!("{head}\n{tail}")] {
        let id = store::licenses::insert(&mut conn, &write(), &new(&stored)).await.expect("stored").id;
        let outcome = licenses::add(&mut conn, &read(), &write(), &license).await.expect("an answer");
        assert_eq!(outcome, AddOutcome::Duplicate(id));
        assert_eq!(
            store::licenses::delete(&mut conn, &write(), id).await.expect("an answer"),
            DeleteLicenseOutcome::Deleted
        );
    }
    let other = licenses::verify(signer.sign(&claims(NOW)).as_bytes(), &signer.keys(), None, NOW).expect("a license");
    assert_eq!(other.jwt, license.jwt, "a signature is the same each time");
    let AddOutcome::Added(added) = licenses::add(&mut conn, &read(), &write(), &license).await.expect("an answer")
    else {
        panic!("it is not there");
    };
    assert_eq!((added.jwt.expose(), added.uuid), (text.as_str(), license.uuid));
    // What is no token is compared by its text.
    for expected in [true, false] {
        let outcome = licenses::add(&mut conn, &read(), &write(), &new("no token")).await.expect("an answer");
        assert_eq!(matches!(outcome, AddOutcome::Added(_)), expected);
    }
}

#[tokio::test]
async fn of_many_who_add_one_license_the_others_learn_its_number() {
    let database = support::database().await;
    let mut tasks = JoinSet::new();
    for _ in 0..16 {
        let mut conn = database.connect().await;
        tasks.spawn(async move { licenses::add(&mut conn, &read(), &write(), &new("a.b.c")).await });
    }
    let outcomes = tasks.join_all().await.into_iter().map(|outcome| outcome.expect("an answer"));
    let ids: Vec<_> = outcomes
        .map(|outcome| match outcome {
            AddOutcome::Added(license) => (true, license.id),
            AddOutcome::Duplicate(id) => (false, id),
        })
        .collect();
    assert_eq!(ids.iter().filter(|(added, _)| *added).count(), 1, "{ids:?}");
    assert!(ids.iter().all(|(_, id)| *id == ids[0].1), "{ids:?}");
}

#[test]
fn claims_are_shown_to_the_letter() {
    let payload = r#"{ "n": 12345678901234567890123, "f": 1.10, "e": 1E2, "z": -0, "exp": 1, "a": [1.0,"\u00e9"] }"#;
    let text = format!("{}.{}.AAAA", base64("{}"), base64(payload));
    for stored in [text.clone(), format!("\"Bearer {text}\"\n")] {
        let claims = licenses::claims(&license(&stored)).expect("claims");
        assert_eq!(serde_json::to_string(&claims).expect("JSON"), payload);
        assert_eq!(claims.get("exp"), Some(&1.into()));
        assert_eq!((claims.get("nbf"), claims.not_before()), (None, None));
    }
    // An expired one, signed by nobody, is shown; what is none has no claims.
    for stored in ["no token", "", "a.b.c", "demo.not-a-real-license.unsigned"] {
        let error = licenses::claims(&license(stored)).expect_err("no token");
        assert_eq!(error.code(), "license_malformed");
    }
    assert_eq!(serde_json::to_string(&Claims::default()).expect("JSON"), "{}");
}

#[tokio::test]
async fn changes_are_announced_when_they_are_committed() {
    let database = support::database().await;
    let options = database.directly();
    let mut conn = options.connect().await;
    let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(options.options());
    let mut listener = PgListener::connect_with(&pool).await.expect("a listener");
    listener.listen("licenses").await.expect("the channel");

    // Nothing was changed by any of these.
    let mut tx = conn.begin().await.expect("a transaction");
    store::licenses::insert(&mut tx, &write(), &new("taken back")).await.expect("the license");
    store::licenses::refresh(&mut tx, &write()).await.expect("said");
    tx.rollback().await.expect("taken back");
    assert_eq!(
        store::licenses::delete(&mut conn, &write(), LicenseId(99)).await.expect("an answer"),
        DeleteLicenseOutcome::Unknown
    );
    let id = store::licenses::insert(&mut conn, &write(), &new("a.b.c")).await.expect("the license").id;
    store::licenses::insert(&mut conn, &write(), &new("a.b.c")).await.expect_err("a duplicate");
    store::licenses::refresh(&mut conn, &write()).await.expect("said");
    let outcome = store::licenses::delete(&mut conn, &write(), id).await.expect("an answer");
    assert_eq!(outcome, DeleteLicenseOutcome::Deleted);
    for expected in ["add", "refresh", "delete"] {
        assert_eq!(listener.recv().await.expect("heard").payload(), expected);
    }
}

/// The log of all tests is looked through for the canary, which is the signature here.
#[tokio::test]
async fn nothing_on_the_way_shows_the_text() {
    let database = support::database().await;
    let mut conn = database.connect().await;
    let text = format!("{}.{}.{CANARY}", base64("{}"), base64(claims(NOW).to_string()));
    let new = licenses::without_verification(text.as_bytes(), NOW).expect("a license");
    assert!(new.jwt.expose().contains(&CANARY[..CANARY.len() - 1]));
    let show = |what: &dyn std::fmt::Debug| {
        let shown = format!("{what:?} {what:#?}");
        assert!(!shown.contains(&CANARY[..CANARY.len() - 1]) && !shown.contains("acme"), "{shown}");
    };
    show(&new);
    let added = licenses::add(&mut conn, &read(), &write(), &new).await;
    show(&added);
    show(&licenses::add(&mut conn, &read(), &write(), &new).await);
    show(&store::licenses::insert(&mut conn, &write(), &new).await);
    for license in store::licenses::list(&mut conn, &read()).await.expect("the list") {
        show(&licenses::claims(&license));
        show(&license);
    }
    sqlx::raw_sql("DROP TABLE licenses").execute(&mut conn).await.expect("dropped");
    show(&licenses::add(&mut conn, &read(), &write(), &new).await);
    secrets::check("the list", "");
}
