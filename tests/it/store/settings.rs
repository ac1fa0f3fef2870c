//! Settings of the site: what nobody set, what changed, and what cannot be read.

use coderdb::{
    authz::{ReadChatSettings, ReadLicenses, ReadPrebuildsSettings, WritePrebuildsSettings},
    model::{PrebuildsSettings, SetOutcome},
    sqlx::{self, PgConnection},
    store::{self, Error},
};

use crate::support;

const PAUSED: PrebuildsSettings = PrebuildsSettings { reconciliation_paused: true };
const RUNNING: PrebuildsSettings = PrebuildsSettings { reconciliation_paused: false };

async fn get(conn: &mut PgConnection) -> store::Result<PrebuildsSettings> {
    store::settings::prebuilds(conn, &ReadPrebuildsSettings::check(&support::operator()).expect("may")).await
}

async fn set(conn: &mut PgConnection, settings: PrebuildsSettings) -> SetOutcome {
    let permit = WritePrebuildsSettings::check(&support::operator()).expect("may");
    store::settings::set_prebuilds(conn, &permit, settings).await.expect("set")
}

async fn stored(conn: &mut PgConnection) -> Option<String> {
    sqlx::query_scalar("SELECT value FROM site_configs WHERE key = 'prebuilds_settings'")
        .fetch_optional(conn)
        .await
        .expect("a text")
}

async fn store_text(conn: &mut PgConnection, key: &str, text: &str) {
    sqlx::query(
        "INSERT INTO site_configs (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value",
    )
    .bind(key)
    .bind(text)
    .execute(conn)
    .await
    .expect("stored");
}

#[tokio::test]
async fn the_reconciler_is_not_paused_when_nobody_paused_it() {
    let database = support::database().await;
    let mut conn = database.connect().await;
    assert_eq!(get(&mut conn).await.expect("settings"), RUNNING);
    assert_eq!(set(&mut conn, RUNNING).await, SetOutcome::Unchanged);
    assert_eq!(stored(&mut conn).await, None);
}

#[tokio::test]
async fn pausing_and_resuming_change_something_once_each() {
    let database = support::database().await;
    let mut conn = database.connect().await;
    for (settings, outcome, text) in [
        (PAUSED, SetOutcome::Changed, r#"{"reconciliation_paused":true}"#),
        (PAUSED, SetOutcome::Unchanged, r#"{"reconciliation_paused":true}"#),
        (RUNNING, SetOutcome::Changed, r#"{"reconciliation_paused":false}"#),
        (RUNNING, SetOutcome::Unchanged, r#"{"reconciliation_paused":false}"#),
    ] {
        assert_eq!(set(&mut conn, settings).await, outcome);
        assert_eq!(get(&mut conn).await.expect("settings"), settings);
        assert_eq!(stored(&mut conn).await.as_deref(), Some(text));
    }
}

#[tokio::test]
async fn what_another_writer_spelled_differently_is_not_a_change() {
    let database = support::database().await;
    let mut conn = database.connect().await;
    for (text, settings) in [
        ("{}", RUNNING),
        (" { } ", RUNNING),
        (r#"{"reconciliation_paused": false}"#, RUNNING),
        ("{\n \"reconciliation_paused\" :\ttrue }\n", PAUSED),
    ] {
        store_text(&mut conn, "prebuilds_settings", text).await;
        assert_eq!(get(&mut conn).await.expect("settings"), settings);
        assert_eq!(set(&mut conn, settings).await, SetOutcome::Unchanged, "{text}");
        assert_eq!(stored(&mut conn).await.as_deref(), Some(text));
        let other = PrebuildsSettings { reconciliation_paused: !settings.reconciliation_paused };
        assert_eq!(set(&mut conn, other).await, SetOutcome::Changed, "{text}");
        assert_eq!(get(&mut conn).await.expect("settings"), other);
    }
}

#[tokio::test]
async fn settings_that_this_version_does_not_know_stay() {
    let database = support::database().await;
    let mut conn = database.connect().await;
    for (before, after) in [
        (r#"{"reconciliation_paused": false, "limit": 3}"#, r#"{"limit":3,"reconciliation_paused":true}"#),
        (
            r#"{"a": {"reconciliation_paused": true}}"#,
            r#"{"a":{"reconciliation_paused":true},"reconciliation_paused":true}"#,
        ),
        (r#"{"reconciliation_paused": "no", "z": [1, null]}"#, r#"{"reconciliation_paused":true,"z":[1,null]}"#),
    ] {
        store_text(&mut conn, "prebuilds_settings", before).await;
        assert_eq!(set(&mut conn, PAUSED).await, SetOutcome::Changed, "{before}");
        assert_eq!(stored(&mut conn).await.as_deref(), Some(after));
        assert_eq!(set(&mut conn, PAUSED).await, SetOutcome::Unchanged);
        assert_eq!(stored(&mut conn).await.as_deref(), Some(after));
    }
}

#[tokio::test]
async fn what_cannot_be_read_says_so_and_is_replaced() {
    let database = support::database().await;
    let mut conn = database.connect().await;
    for text in ["", "paused", "null", "[]", r#"{"reconciliation_paused":"yes"}"#, r#"{"reconciliation_paused":true"#] {
        for settings in [PAUSED, RUNNING] {
            store_text(&mut conn, "prebuilds_settings", text).await;
            let error = get(&mut conn).await;
            // serde reads a list as a struct by position: an empty one has its default.
            assert!(matches!(error, Err(Error::Corrupt { .. })) || text == "[]", "{text}: {error:?}");
            assert_eq!(set(&mut conn, settings).await, SetOutcome::Changed, "{text}");
            assert_eq!(get(&mut conn).await.expect("settings"), settings);
        }
    }
}

#[tokio::test]
async fn of_many_who_pause_at_once_one_changes_it() {
    let database = support::database().await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let mut conn = database.connect().await;
        tasks.spawn(async move { usize::from(set(&mut conn, PAUSED).await == SetOutcome::Changed) });
    }
    assert_eq!(tasks.join_all().await.into_iter().sum::<usize>(), 1);
}

#[tokio::test]
async fn the_life_of_a_chats_workspace_is_what_was_stored() {
    let database = support::database().await;
    let mut conn = database.connect().await;
    let permit = ReadChatSettings::check(&support::operator()).expect("may");
    assert_eq!(store::settings::chat_workspace_ttl(&mut conn, &permit).await.expect("a text"), "");
    for text in ["8h", "", "0", "not a duration"] {
        store_text(&mut conn, "agents_workspace_ttl", text).await;
        assert_eq!(store::settings::chat_workspace_ttl(&mut conn, &permit).await.expect("a text"), text);
    }
}

#[tokio::test]
async fn a_deployment_has_an_id_when_it_was_given_one() {
    let database = support::database().await;
    let mut conn = database.connect().await;
    let permit = ReadLicenses::check(&support::operator()).expect("may");
    assert_eq!(store::settings::deployment_id(&mut conn, &permit).await.expect("none"), None);
    for (text, expected) in [("", None), ("7c9e6679", Some("7c9e6679".to_owned()))] {
        store_text(&mut conn, "deployment_id", text).await;
        assert_eq!(store::settings::deployment_id(&mut conn, &permit).await.expect("an id"), expected);
    }
}
