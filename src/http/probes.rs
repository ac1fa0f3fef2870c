//! Probes for the operators of the service: whether it lives, and whether it can work.

use axum::{Json, Router, extract::State, http::StatusCode, routing::get};

use super::{Api, done, error::Failure, error::Message, layers, not_allowed};
use crate::migrate::{self, Fit};

/// `/healthz`: the process answers. `/readyz`: the database answers, too, and its schema fits this version. Neither
/// asks who is there.
pub fn probes(api: &Api) -> Router {
    let both = Router::new()
        .route("/healthz", get(async || "OK"))
        .route("/readyz", get(ready))
        .method_not_allowed_fallback(not_allowed)
        .with_state(api.clone());
    layers::around(both, api)
}

async fn ready(State(api): State<Api>) -> Result<Json<Message>, Failure> {
    let unready = |why: String| Failure::new(StatusCode::SERVICE_UNAVAILABLE, "Not ready.").detail(why);
    let mut conn = api.0.pool.get().await.map_err(|error| unready(error.to_string()))?;
    let status = migrate::status(&mut conn).await.map_err(|error| unready(error.to_string()))?;
    let differences = migrate::differences(&mut conn, &status).await.map_err(|error| unready(error.to_string()))?;
    match status.fit() {
        _ if !differences.is_empty() => {
            let differences: Vec<_> = differences.iter().map(ToString::to_string).collect();
            Err(unready(format!("run `coderdb migrate adopt` again: {}", differences.join("; "))))
        }
        Fit::Current | Fit::Newer => Ok(done("Ready.")),
        Fit::Pending => Err(unready("migrations are pending: run `coderdb migrate up`".to_owned())),
        Fit::TooNew | Fit::Diverged => {
            let problems: Vec<_> = status.problems().iter().map(ToString::to_string).collect();
            Err(unready(problems.join("; ")))
        }
    }
}
