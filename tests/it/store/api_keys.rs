//! When it is recorded that an API key was used.

use coderdb::{
    authz::{Actor, SignIn, System},
    sqlx::{self, Connection as _},
    store::api_keys,
};
use time::Duration;

use crate::support::rows::{NOW, Rows};

const LAST_USED: &str = "SELECT extract(epoch FROM last_used - at_second(0))::bigint FROM api_keys";

async fn rows() -> Rows {
    let mut rows = Rows::new().await;
    rows.run(
        "INSERT INTO api_keys (id, hashed_secret, user_id, last_used, expires_at, created_at, updated_at, login_type, scopes,
             allow_list)
         VALUES ('abcdefghij', '', u(1), at_second(0), at_second(99999), at_second(0), at_second(0), 'token', '{coder:all}',
             '{*:*}')",
    )
    .await;
    rows
}

async fn touch(rows: &mut Rows, seconds: i64) -> String {
    let permit = SignIn::check(&Actor::system(System::Authenticator)).expect("the authenticator");
    let now = NOW + Duration::seconds(seconds);
    api_keys::touch(&mut rows.conn, &permit, "abcdefghij", now).await.expect("an answer");
    rows.one(LAST_USED).await
}

#[tokio::test]
async fn touch_records_a_use_at_most_once_an_hour() {
    let mut rows = rows().await;
    let mut recorded = Vec::new();
    for seconds in [3_600, 3_601, 3_602, 7_201, 7_202] {
        recorded.push(touch(&mut rows, seconds).await);
    }
    assert_eq!(recorded, ["0", "3601", "3601", "3601", "7202"]);
}

#[tokio::test]
async fn touch_neither_waits_for_a_key_that_is_locked_nor_records_its_use() {
    let mut rows = rows().await;
    let mut other = rows.database.connect().await;
    let mut holder = other.begin().await.expect("a transaction");
    sqlx::raw_sql("SELECT FROM api_keys FOR NO KEY UPDATE").execute(&mut *holder).await.expect("a lock");
    // Whoever waited would be canceled.
    rows.run("SET lock_timeout = '100ms'").await;
    assert_eq!(touch(&mut rows, 9_999).await, "0");
    holder.rollback().await.expect("the end");
    assert_eq!(touch(&mut rows, 9_999).await, "9999");
}
