//! The HTTP contract: a router for services to mount, made of the operations of this library and nothing else.
//!
//! It listens nowhere, records no metrics and handles no signals: that is up to the service, or to `coderdb serve`. Every
//! route below `/api/v2` needs the token of an API key, and what a session may do its roles say, as everywhere in
//! [`authz`](crate::authz). docs/http.md has the contract, and where it differs from that of Coder's own server.
//!
//! ```no_run
//! use coderdb::{http, pool::Pool, watch::{Settings, Watcher}};
//!
//! # async fn doc(pool: Pool) -> std::io::Result<()> {
//! let watcher = Watcher::start(&pool, Settings::default());
//! let api = http::Api::new(pool, watcher, http::Settings::default());
//! let service = axum::Router::new().merge(http::router(&api));
//! # let _ = service; Ok(()) }
//! ```

mod body;
mod cancel;
mod daemons;
mod document;
mod error;
mod jobs;
mod layers;
mod licenses;
mod logs;
mod path;
mod prebuilds;
mod probes;
mod query;
mod quota;
mod session;

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    http::{StatusCode, header},
    middleware,
    routing::{any, get},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use utoipa_axum::{router::OpenApiRouter, routes};

pub use document::document;
pub use error::{Message, Validation};
pub use probes::probes;

use crate::{
    licenses::LicenseKeys,
    pool::{Connection, Pool},
    watch::Watcher,
};
use error::Failure;
use session::Limits;

/// How the router behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How many requests a token may send per minute to each route; `None` for any number.
    pub requests_per_minute: Option<NonZeroU32>,
    /// How long a request may take, its body included. Logs that are followed go on for longer.
    pub timeout: Duration,
    /// How many bytes a body may have.
    pub body_limit: usize,
    /// Whose signatures licenses may have; without a key, none can be added.
    pub license_keys: LicenseKeys,
}

/// 512 requests per minute, token and route; 30 seconds; 256 KiB; no keys.
impl Default for Settings {
    fn default() -> Self {
        Self {
            requests_per_minute: NonZeroU32::new(512),
            timeout: Duration::from_secs(30),
            body_limit: 256 * 1024,
            license_keys: LicenseKeys::none(),
        }
    }
}

/// What the router needs. A clone is the same.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

struct Inner {
    pool: Pool,
    watcher: Watcher,
    limits: Option<Limits>,
    settings: Settings,
    refreshed: licenses::Refreshed,
    /// The streams of logs, which outlive their requests.
    streams: TaskTracker,
    ending: CancellationToken,
}

impl Api {
    /// Connections come from the pool; logs are followed on the watcher.
    #[must_use]
    pub fn new(pool: Pool, watcher: Watcher, settings: Settings) -> Self {
        Self(Arc::new(Inner {
            pool,
            watcher,
            limits: settings.requests_per_minute.map(Limits::new),
            settings,
            refreshed: licenses::Refreshed::default(),
            streams: TaskTracker::new(),
            ending: CancellationToken::new(),
        }))
    }

    /// Ends the streams of logs, each with a close frame, and returns when they are closed. New ones end at once.
    pub async fn close_streams(&self) {
        self.0.ending.cancel();
        self.0.streams.close();
        self.0.streams.wait().await;
    }

    async fn connection(&self) -> Result<Connection, Failure> {
        Ok(self.0.pool.get().await?)
    }

    fn limits(&self) -> Option<&Limits> {
        self.0.limits.as_ref()
    }

    fn watcher(&self) -> &Watcher {
        &self.0.watcher
    }
}

/// The routes with their documentation: one cannot be there without the other.
#[expect(deprecated, reason = "the document says so of the operation")]
fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(document::base())
        .routes(routes!(jobs::list))
        .routes(routes!(jobs::get))
        .routes(routes!(daemons::list))
        .routes(routes!(cancel::build))
        .routes(routes!(cancel::version))
        .routes(routes!(cancel::dry_run))
        .routes(routes!(cancel::many))
        .routes(routes!(logs::build))
        .routes(routes!(logs::version))
        .routes(routes!(logs::dry_run))
        .routes(routes!(quota::get))
        .routes(routes!(quota::get_in_default_organization))
        .routes(routes!(licenses::list, licenses::add))
        .routes(routes!(licenses::refresh))
        .routes(routes!(licenses::delete))
        .routes(routes!(prebuilds::get, prebuilds::put))
}

/// All routes of the contract below `/api/v2`, where nothing else is found, and their OpenAPI document at `/openapi.json`.
/// Merge it at the root of a service; it has no fallback, so that the service may have one.
pub fn router(api: &Api) -> Router {
    let (contract, _) = routes().split_for_parts();
    let document: Arc<str> = document().to_json().unwrap_or_default().into();
    let all = contract
        .route_layer(middleware::from_fn_with_state(api.clone(), session::sign_in))
        .route("/openapi.json", get(async move || ([(header::CONTENT_TYPE, "application/json")], document.to_string())))
        .method_not_allowed_fallback(not_allowed)
        .route("/api/v2/{*rest}", any(no_route))
        .with_state(api.clone());
    #[cfg(feature = "http-docs")]
    let all = all.merge(document::page());
    layers::around(all, api)
}

/// Answers what no other route does, as the contract says: for a service that has no fallback of its own.
pub fn fallback(api: &Api) -> Router {
    layers::around(Router::new().fallback(no_route), api)
}

async fn no_route() -> Failure {
    Failure::new(StatusCode::NOT_FOUND, "Route not found.")
}

async fn not_allowed() -> Failure {
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed.")
}

/// The body of a success that has no object to show.
fn done(message: &str) -> Json<Message> {
    Json(Message::new(message))
}
