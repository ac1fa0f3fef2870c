//! Who asks: the session token of a request, as an actor.

use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    extract::{FromRequestParts, MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use governor::{
    Quota, RateLimiter, clock::Clock as _, clock::DefaultClock, middleware::StateInformationMiddleware,
    state::keyed::DashMapStateStore,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Api, error::Failure};
use crate::{
    authz::{Actor, SignIn, System},
    model::{InvalidSessionToken, SessionToken, SignInError, UserId, UserRef},
    store::{self, api_keys, api_keys::SignedIn},
};

pub(super) const TOKEN: HeaderName = HeaderName::from_static("coder-session-token");

/// A request that was signed in. Handlers get it only behind [`sign_in`].
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub actor: Actor,
}

impl Session {
    /// What `me` means.
    pub fn me(&self) -> Option<UserRef> {
        self.actor.user_id().map(UserRef::Id)
    }

    pub fn user(&self) -> Option<UserId> {
        self.actor.user_id()
    }
}

impl<S: Sync> FromRequestParts<S> for Session {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        parts.extensions.get().cloned().ok_or_else(|| signed_out("the route asks nobody to sign in"))
    }
}

/// How often each token may use each route.
pub(super) struct Limits {
    per_minute: NonZeroU32,
    limiter: RateLimiter<Counted, DashMapStateStore<Counted>, DefaultClock, StateInformationMiddleware>,
    checks: AtomicU32,
}

/// After so many requests, what has not been used for long is forgotten.
const CHECKS_PER_SWEEP: u32 = 10_000;

/// The id of a token, and a route.
type Counted = (String, String);

impl Limits {
    pub fn new(per_minute: NonZeroU32) -> Self {
        let limiter = RateLimiter::dashmap(Quota::per_minute(per_minute)).with_middleware();
        Self { per_minute, limiter, checks: AtomicU32::new(1) }
    }

    /// The headers that say how much is left; and the failure, when nothing is.
    fn check(&self, key: &str, route: &str) -> ([(HeaderName, HeaderValue); 3], Option<Failure>) {
        // What has not been used for long takes no room; to look for it costs a pass over everything.
        if self.checks.fetch_add(1, Ordering::Relaxed).is_multiple_of(CHECKS_PER_SWEEP) {
            self.limiter.retain_recent();
        }
        let headers = |left: u32, wait: Duration| {
            let reset = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + wait;
            [
                (HeaderName::from_static("x-ratelimit-limit"), HeaderValue::from(self.per_minute.get())),
                (HeaderName::from_static("x-ratelimit-remaining"), HeaderValue::from(left)),
                (HeaderName::from_static("x-ratelimit-reset"), HeaderValue::from(reset.as_secs())),
            ]
        };
        match self.limiter.check_key(&(key.to_owned(), route.to_owned())) {
            Ok(snapshot) => {
                let left = snapshot.remaining_burst_capacity();
                let used = self.per_minute.get().saturating_sub(left);
                (headers(left, snapshot.quota().replenish_interval() * used), None)
            }
            Err(not_until) => {
                let wait = not_until.wait_time_from(DefaultClock::default().now());
                let said =
                    format!("You've been rate limited for sending more than {} requests in 1m0s.", self.per_minute);
                let failure = Failure::new(StatusCode::TOO_MANY_REQUESTS, said);
                (headers(0, Duration::from_mins(1)), Some(failure.retry_after(wait.max(Duration::from_secs(1)))))
            }
        }
    }
}

/// Refuses requests without a valid token, and those over the rate limit.
pub(super) async fn sign_in(
    State(api): State<Api>,
    path: Option<MatchedPath>,
    mut request: Request,
    next: Next,
) -> Response {
    let (token, actor) = match session(&api, request.headers()).await {
        Ok(signed_in) => signed_in,
        Err(failure) => return with_challenge(failure),
    };
    let route = path.map_or_else(String::new, |path| path.as_str().to_owned());
    let (headers, exceeded) = api.limits().map(|limits| limits.check(token.id(), &route)).unzip();
    if let Some(user) = actor.user_id() {
        tracing::Span::current().record("user", tracing::field::display(user));
    }
    let mut response = if let Some(failure) = exceeded.flatten() {
        failure.into_response()
    } else {
        request.extensions_mut().insert(Session { actor });
        next.run(request).await
    };
    response.headers_mut().extend(headers.into_iter().flatten());
    response
}

async fn session(api: &Api, headers: &HeaderMap) -> Result<(SessionToken, Actor), Failure> {
    let Some(text) = token(headers) else {
        return Err(signed_out("The header \"Coder-Session-Token\" or \"Authorization: Bearer\" must be provided."));
    };
    let token: SessionToken =
        text.parse().map_err(|why: InvalidSessionToken| signed_out(format!("Invalid API key format: {why}")))?;
    let permit = SignIn::check(&Actor::system(System::Authenticator))?;
    let now = OffsetDateTime::now_utc();
    let mut connection = api.connection().await?;
    match api_keys::session(&mut connection, &permit, &token, now).await {
        Ok(Ok(SignedIn { actor, is_noted })) => {
            // A service whose role may only read lets people in all the same.
            if !is_noted && let Err(error) = api_keys::touch(&mut connection, &permit, token.id(), now).await {
                tracing::warn!(error = &error as &dyn std::error::Error, "the use of an API key cannot be noted");
            }
            Ok((token, actor))
        }
        Ok(Err(SignInError::Inactive { status })) => Err(Failure::new(
            StatusCode::UNAUTHORIZED,
            format!("User is not active (status = {status:?}). Contact an admin to reactivate your account."),
        )),
        Ok(Err(SignInError::Expired { expires_at })) => {
            let at = expires_at.format(&Rfc3339).unwrap_or_default();
            Err(signed_out(format!("API key expired at \"{at}\".")))
        }
        Ok(Err(refused)) => Err(signed_out(refused.to_string())),
        Err(error) => Err(Failure::from(error)
            .at("An internal error occurred. Please try again or contact the system administrator.")),
    }
}

/// The token in a header. Not in a cookie and not in the query: both end up in logs, and a page of another origin can
/// make a browser send a cookie.
fn token(headers: &HeaderMap) -> Option<&str> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let bearer = || {
        let (scheme, token) = text(header::AUTHORIZATION)?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    };
    text(TOKEN).filter(|token| !token.is_empty()).or_else(bearer).filter(|token| !token.is_empty())
}

fn signed_out(detail: impl Into<String>) -> Failure {
    Failure::new(
        StatusCode::UNAUTHORIZED,
        "You are signed out or your session has expired. Please sign in again to continue.",
    )
    .detail(detail)
}

fn with_challenge(failure: Failure) -> Response {
    let is_signed_out = failure.status() == StatusCode::UNAUTHORIZED;
    let mut response = failure.into_response();
    if is_signed_out {
        let challenge = HeaderValue::from_static("Bearer realm=\"coder\", error=\"invalid_token\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

/// The user in the path, if the session may read that user.
pub(super) async fn user(
    conn: &mut store::PgConnection,
    session: &Session,
    named: &str,
) -> Result<crate::model::User, Failure> {
    let permit = crate::authz::ReadUsers::check(&session.actor)?;
    let Ok(named) = named.parse();
    Ok(store::users::resolve(conn, &permit, &named, session.me().as_ref()).await?)
}
