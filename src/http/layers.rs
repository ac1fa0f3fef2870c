//! What every request passes through.

use std::time::{Duration, Instant};

use axum::{
    Router,
    extract::{DefaultBodyLimit, MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse as _, Response},
};
use tower::ServiceBuilder;
use tower_http::{
    catch_panic::CatchPanicLayer,
    compression::CompressionLayer,
    request_id::{MakeRequestUuid, PropagateRequestIdLayer, RequestId, SetRequestIdLayer},
    sensitive_headers::SetSensitiveRequestHeadersLayer,
    set_header::SetResponseHeaderLayer,
};
use tracing::{Instrument as _, field::Empty, info_span};

use super::{Api, error::Failure, session};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-coder-request-id");

/// The outermost first: each request gets an id, which its span and its answer show, whatever becomes of it.
pub(super) fn around(router: Router, api: &Api) -> Router {
    let nosniff =
        SetResponseHeaderLayer::overriding(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let version = SetResponseHeaderLayer::overriding(
        HeaderName::from_static("x-coder-build-version"),
        HeaderValue::from_static(concat!("coderdb-v", env!("CARGO_PKG_VERSION"))),
    );
    let layers = ServiceBuilder::new()
        .layer(from_fn(without_an_id))
        .layer(SetRequestIdLayer::new(REQUEST_ID, MakeRequestUuid))
        .layer(PropagateRequestIdLayer::new(REQUEST_ID))
        .layer(SetSensitiveRequestHeadersLayer::new([session::TOKEN, header::AUTHORIZATION, header::COOKIE]))
        .layer(from_fn(measured))
        .layer(nosniff)
        .layer(version)
        .layer(CompressionLayer::new())
        .layer(from_fn_with_state(api.clone(), in_time))
        .layer(CatchPanicLayer::custom(|_| {
            Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "An internal server error occurred.").into_response()
        }))
        .layer(DefaultBodyLimit::max(api.0.settings.body_limit));
    router.layer(layers)
}

/// The id that a client sends is not used: it could be the id of another request.
async fn without_an_id(mut request: Request, next: Next) -> Response {
    request.headers_mut().remove(REQUEST_ID);
    next.run(request).await
}

async fn in_time(State(api): State<Api>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(api.0.settings.timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Failure::new(StatusCode::SERVICE_UNAVAILABLE, "The request took too long.")
            .retry_after(Duration::from_secs(1))
            .into_response(),
    }
}

/// Gives each request a span, counts it, measures how long it takes until its answer begins, and logs it.
async fn measured(request: Request, next: Next) -> Response {
    // Not the path itself: clients choose it, and each would be a label of its own.
    let route = request.extensions().get::<MatchedPath>().map_or("unknown", MatchedPath::as_str).to_owned();
    let request_id = request.extensions().get::<RequestId>().and_then(|id| id.header_value().to_str().ok());
    let request_id = request_id.unwrap_or_default().to_owned();
    // Clients choose the method, too: unknown ones are counted as one.
    let known = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];
    let method = known.iter().find(|method| *method == request.method()).map_or("other", Method::as_str).to_owned();
    let span = info_span!("http.request", method, route, request_id, user = Empty);
    let begun = Instant::now();
    let under_way = UnderWay::begin();
    let response = next.run(request).instrument(span).await;
    drop(under_way);
    let (status, elapsed) = (response.status().as_u16(), begun.elapsed());
    let milliseconds = elapsed.as_secs_f64() * 1000.0;
    tracing::info!(name: "http.answered", method, route, request_id, status, milliseconds, "answered");
    let labels = [("method", method), ("route", route), ("status", status.to_string())];
    metrics::counter!("coderdb_http_requests_total", &labels).increment(1);
    metrics::histogram!("coderdb_http_request_duration_seconds", &labels).record(elapsed);
    response
}

/// A request that is under way, also one that its client gives up.
struct UnderWay;

impl UnderWay {
    fn begin() -> Self {
        metrics::gauge!("coderdb_http_requests_in_flight").increment(1);
        Self
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        metrics::gauge!("coderdb_http_requests_in_flight").decrement(1);
    }
}
