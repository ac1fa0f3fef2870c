//! Who signs in with which token, and which tokens there are.

use coderdb::{
    authz::{Actor, ManageTokens, SignIn, System},
    model::{ApiKey, SessionToken, SignInError, UserId},
    sqlx::PgConnection,
    store::{self, api_keys::SignedIn},
};
use fastrand::Rng;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use super::world::{Row, World};
use crate::support::{
    self,
    adopted::run,
    random_database::{NOW, at, insert, one},
};

const SECRET: &str = "0123456789abcdefghijkl";

/// Keys of those who are there, some of them linked to where they sign in.
pub(super) async fn fill(conn: &mut PgConnection, rng: &mut Rng) {
    let users = super::rows::ids(conn, "SELECT id FROM users WHERE NOT deleted ORDER BY id").await;
    let keys: Vec<Value> = (0..rng.usize(..8))
        .map(|n| {
            let used = one(rng, &[OffsetDateTime::UNIX_EPOCH, NOW - Duration::HOUR, NOW - Duration::HOUR * 2]);
            json!({
                "id": format!("key{n:07}"), "hashed_secret": "\\x", "user_id": one(rng, &users), "last_used": at(used),
                "expires_at": at(NOW + Duration::seconds(one(rng, &[-1, 0, 1, 1, 1]))), "created_at": at(NOW), "updated_at": at(NOW),
                "login_type": one(rng, &["token", "token", "password", "github", "oidc", "oauth2_provider_app"]),
                "token_name": format!("name-{}", rng.u8(..3) * 10 + u8::try_from(n).expect("few")),
                "scopes": one(rng, &[["coder:all"], ["coder:all"], ["coder:application_connect"]]),
                "allow_list": one(rng, &[["*:*"], ["*:*"], ["workspace:*"]]),
            })
        })
        .collect();
    insert(conn, "api_keys", &keys).await;
    let links = format!(
        "UPDATE api_keys SET hashed_secret = sha256('{SECRET}');
         INSERT INTO user_links (user_id, login_type) SELECT DISTINCT user_id, login_type FROM api_keys WHERE login_type = 'github'"
    );
    run(conn, &links).await;
}

pub(super) async fn compare(conn: &mut PgConnection, world: &World<'_>, people: &[Actor]) {
    let permit = SignIn::check(&Actor::system(System::Authenticator)).expect("a permit");
    let token = |id: &str, secret: &str| format!("{id}-{secret}").parse::<SessionToken>().expect("a token");
    for key in world.all("api_keys") {
        let user = world.find("users", key.id("user_id")).expect("its user");
        let expected = match refused(world, key, user) {
            Some(refused) => Err(refused),
            None => Ok(SignedIn {
                actor: people
                    .iter()
                    .find(|who| who.user_id() == Some(UserId(user.id("id"))))
                    .expect("one of them")
                    .clone(),
                is_noted: key.at("last_used") >= NOW - Duration::HOUR,
            }),
        };
        let sign_in = token(&key.text("id"), SECRET);
        world.note("somebody signs in", expected.is_ok());
        world.note("a key is restricted", expected == Err(SignInError::Restricted));
        world.note("a key is not linked", expected == Err(SignInError::NotLinked));
        world.note("a key is expired", matches!(expected, Err(SignInError::Expired { .. })));
        assert_eq!(
            store::api_keys::session(conn, &permit, &sign_in, NOW).await.expect("an answer"),
            expected,
            "{key:?}"
        );
        let wrong = token(&key.text("id"), &SECRET.to_uppercase());
        let answer = store::api_keys::session(conn, &permit, &wrong, NOW).await.expect("an answer");
        assert_eq!(answer, Err(SignInError::WrongSecret));
    }
    let answer = store::api_keys::session(conn, &permit, &token("nobody0000", SECRET), NOW).await.expect("an answer");
    assert_eq!(answer, Err(SignInError::Unknown));

    let permit = ManageTokens::check(&support::operator()).expect("a permit");
    for user in world.all("users").map(|row| Some(UserId(row.id("id")))).chain([None]) {
        let mut expected: Vec<_> = world
            .all("api_keys")
            .filter(|key| key.text("login_type") == "token" && user.is_none_or(|user| user.0 == key.id("user_id")))
            .map(|key| ApiKey {
                id: key.text("id"),
                name: key.text("token_name"),
                user_id: key.id("user_id").into(),
                username: world.find("users", key.id("user_id")).expect("its user").text("username"),
                created_at: key.at("created_at"),
                last_used: Some(key.at("last_used")).filter(|at| *at != OffsetDateTime::UNIX_EPOCH),
                expires_at: key.at("expires_at"),
            })
            .collect();
        expected.sort_by_key(|key| (key.username.to_lowercase(), key.user_id, key.name.clone(), key.id.clone()));
        assert_eq!(store::api_keys::list(conn, &permit, user).await.expect("tokens"), expected);
    }
}

/// Why a key with the right secret lets nobody in.
fn refused(world: &World<'_>, key: &Row, user: &Row) -> Option<SignInError> {
    let (login, expires_at) = (key.text("login_type"), key.at("expires_at"));
    let is_linked =
        world.all("user_links").any(|link| link.id("user_id") == key.id("user_id") && link.text("login_type") == login);
    let has =
        |column: &str, text: &str| key.get(column).and_then(Value::as_array).expect("a list").contains(&json!(text));
    if expires_at < NOW {
        return Some(SignInError::Expired { expires_at });
    }
    if ["github", "oidc"].contains(&login.as_str()) && !is_linked {
        return Some(SignInError::NotLinked);
    }
    if user.text("status") == "suspended" {
        return Some(SignInError::Inactive { status: "suspended".to_owned() });
    }
    let is_whole = login != "oauth2_provider_app" && has("scopes", "coder:all") && has("allow_list", "*:*");
    (!is_whole).then_some(SignInError::Restricted)
}
