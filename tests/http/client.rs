//! A client of the router: in the test's own process, or over a socket where a test needs one.

use std::net::SocketAddr;

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    http::{HeaderMap, Method, Request, StatusCode, header},
};
use coderdb::{
    authz::{ManageTokens, ReadUsers},
    demo::{self, DemoOptions},
    http::{self, Api, Settings},
    model::{SessionToken, UserId},
    pool,
    sqlx::{self, AssertSqlSafe, PgConnection, postgres::PgRow},
    store::{api_keys, users},
    watch::{self, Watcher},
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};
use tokio::{net::TcpListener, sync::OnceCell};
use tower::ServiceExt as _;
use uuid::Uuid;

use crate::support::{self, Database, secrets};

pub const NOT_FOUND: &str = "Resource not found or you do not have access to this resource";
pub const TOKEN: &str = "Coder-Session-Token";

/// The thing of a kind with a number, of the demo: `0009` are jobs, `0008` builds, `0005` versions.
pub fn demo_id(kind: &str, n: u32) -> String {
    format!("c0de0000-{kind}-4000-8000-{n:012}")
}

pub fn job_id(n: u32) -> String {
    demo_id("0009", n)
}

pub fn query(pairs: &[(&str, &str)]) -> String {
    let pair = |(name, value): &(&str, &str)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC));
    pairs.iter().map(pair).collect::<Vec<_>>().join("&")
}

/// The contract over a database of a test's own.
pub struct Site {
    pub database: Database,
    pub api: Api,
    pub pool: pool::Pool,
    pub watcher: Watcher,
    pub router: Router,
    pub conn: PgConnection,
}

impl Site {
    /// The organization of the demo, where nothing but the tests counts requests.
    pub async fn demo() -> Self {
        static DEMO: OnceCell<Database> = OnceCell::const_new();
        let demo = DEMO.get_or_init(async || {
            let database = support::database().await;
            let mut conn = database.connect().await;
            let _ = demo::load(&mut conn, &DemoOptions::default(), |_| {}).await.expect("the demo");
            sqlx::Connection::close(conn).await.expect("a clean end");
            database
        });
        Self::over(demo.await.copy().await, Settings { requests_per_minute: None, ..Settings::default() }).await
    }

    pub async fn over(database: Database, settings: Settings) -> Self {
        let pool = database.pool(pool::Settings::default());
        // Announcements take a session; the poll is enough.
        let listen = !support::is_pooled();
        let watcher = Watcher::start(&pool, watch::Settings { listen, ..watch::Settings::default() });
        let api = Api::new(pool.clone(), watcher.clone(), settings);
        let router = http::router(&api).merge(http::probes(&api)).merge(http::fallback(&api));
        let conn = database.connect().await;
        Self { database, api, pool, watcher, router, conn }
    }

    /// The same with other settings.
    pub async fn with(self, settings: Settings) -> Self {
        drop(self.conn);
        Self::over(self.database, settings).await
    }

    pub async fn sql(&mut self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.conn).await.expect("the statement");
    }

    /// The only value that the query gives.
    pub async fn value<T>(&mut self, sql: &str) -> T
    where
        for<'r> T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
        for<'r> (T,): sqlx::FromRow<'r, PgRow>,
    {
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut self.conn).await.expect("a value")
    }

    /// Waits until no connection is in use: each comes back in its own time.
    pub async fn idle(&self) {
        let idle = async {
            while self.pool.metrics().in_use > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), idle).await.expect("all connections come back");
    }

    /// Somebody who is signed in with a token of the contract.
    pub async fn user(&mut self, username: &str) -> Client {
        let permit = ReadUsers::check(&support::operator()).expect("an operator reads users");
        let id = users::by_username(&mut self.conn, &permit, username).await.expect("the user").id;
        self.user_by_id(id).await
    }

    pub async fn user_by_id(&mut self, user: UserId) -> Client {
        let permit = ManageTokens::check(&support::operator()).expect("an operator makes tokens");
        let now = OffsetDateTime::now_utc();
        let name = Uuid::new_v4().to_string();
        let token =
            api_keys::create(&mut self.conn, &permit, user, &name, now, now + Duration::DAY).await.expect("a token");
        // All have the secret that is looked for in everything that anybody could read.
        let id = token.id().to_owned();
        sqlx::query("UPDATE api_keys SET hashed_secret = sha256($1::text::bytea) WHERE id = $2")
            .bind(secrets::TOKEN)
            .bind(&id)
            .execute(&mut self.conn)
            .await
            .expect("another secret");
        let token: SessionToken = format!("{id}-{}", secrets::TOKEN).parse().expect("a token");
        self.client(&token.expose())
    }

    /// Somebody who sends this token.
    pub fn client(&self, token: &str) -> Client {
        Client { router: self.router.clone(), token: token.to_owned() }
    }

    /// The router behind a socket.
    pub async fn serve(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let router = self.router.clone();
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }
}

/// Sends requests with a token.
#[derive(Clone)]
pub struct Client {
    router: Router,
    pub token: String,
}

/// A request without a body and without a token.
pub fn request(method: &str, uri: &str) -> Request<Body> {
    Request::builder().method(method).uri(uri).body(Body::empty()).expect("a request")
}

impl Client {
    pub fn id(&self) -> &str {
        self.token.split('-').next().expect("an id")
    }

    /// Below `/api/v2`.
    pub fn request(&self, method: &str, path: &str, body: impl Into<Body>) -> Request<Body> {
        let request = Request::builder().method(method).uri(format!("/api/v2/{path}")).header(TOKEN, &self.token);
        request.body(body.into()).expect("a request")
    }

    pub async fn call(&self, method: &str, path: &str, body: impl Into<Body>) -> Answer {
        self.send(self.request(method, path, body)).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, Body::empty()).await
    }

    pub async fn patch(&self, path: &str) -> Answer {
        self.call("PATCH", path, Body::empty()).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.call("PUT", path, body.to_string()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call("POST", path, body.to_string()).await
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        send(&self.router, request).await
    }
}

/// Sends it, and looks at what every answer must have.
pub async fn send(router: &Router, request: Request<Body>) -> Answer {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let response = router.clone().oneshot(request).await.expect("an answer");
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.expect("the whole body");
    let answer = Answer { status: parts.status, headers: parts.headers, body, what: format!("{method} {uri}") };
    answer.must_be_in_order(&method);
    answer
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    what: String,
}

impl Answer {
    fn must_be_in_order(&self, method: &Method) {
        let Self { what, headers, .. } = self;
        secrets::check(what, &self.text());
        secrets::check(what, &format!("{headers:?}"));
        let id = self.header("x-coder-request-id").unwrap_or_else(|| panic!("{what}: no request id"));
        assert_eq!(id.parse::<Uuid>().expect("an id").get_version_num(), 4, "{what}");
        assert_eq!(self.header("x-content-type-options"), Some("nosniff"), "{what}");
        assert!(self.header("x-coder-build-version").is_some_and(|version| version.starts_with("coderdb-v")), "{what}");
        if self.status.as_u16() < 400 || method == Method::HEAD {
            return;
        }
        let body = self.json();
        let fields = body.as_object().unwrap_or_else(|| panic!("{what}: {body}"));
        assert!(fields["message"].as_str().is_some_and(|message| !message.is_empty()), "{what}: {body}");
        for (name, value) in fields {
            match name.as_str() {
                "message" | "detail" => assert!(value.is_string(), "{what}: {body}"),
                "validations" => {
                    let faults = value.as_array().expect("an array");
                    assert!(!faults.is_empty() && faults.iter().all(|it| it["field"].is_string()), "{what}: {body}");
                }
                other => panic!("{what}: {other} in {body}"),
            }
        }
        assert_eq!(self.status == 401, headers.contains_key(header::WWW_AUTHENTICATE), "{what}");
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("a text"))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{}: {}", self.what, self.text());
        serde_json::from_slice(&self.body).unwrap_or_else(|why| panic!("{}: {why}: {}", self.what, self.text()))
    }

    /// The body of a success.
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}: {}", self.what, self.text());
        self.json()
    }

    /// The ids of the things in a list.
    pub fn ids(&self) -> Vec<String> {
        let id = |thing: &Value| thing["id"].as_str().expect("an id").to_owned();
        self.ok().as_array().expect("a list").iter().map(id).collect()
    }

    /// The ids of the lines of a log.
    pub fn ids_of_lines(&self) -> Vec<i64> {
        self.ok().as_array().expect("a list").iter().map(|line| line["id"].as_i64().expect("an id")).collect()
    }

    #[track_caller]
    pub fn is(&self, status: u16, body: &Value) {
        assert_eq!((self.status.as_u16(), &self.json()), (status, body), "{}", self.what);
    }

    #[track_caller]
    pub fn says(&self, status: u16, message: &str) {
        self.is(status, &json!({ "message": message }));
    }

    #[track_caller]
    pub fn says_more(&self, status: u16, message: &str, detail: &str) {
        self.is(status, &json!({ "message": message, "detail": detail }));
    }

    #[track_caller]
    pub fn not_found(&self) {
        self.says(404, NOT_FOUND);
    }

    /// These parameters are wrong, in this order.
    #[track_caller]
    pub fn faults(&self, faults: &[(&str, &str)]) {
        let faults: Vec<_> = faults.iter().map(|(field, detail)| json!({ "field": field, "detail": detail })).collect();
        self.is(400, &json!({ "message": "Invalid query parameters.", "validations": faults }));
    }
}
