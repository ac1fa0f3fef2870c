//! What is answered when a request cannot be done: one shape for all failures.

use std::time::Duration;

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::{authz::Denied, pool, store, watch};

/// The body of every failure, and of a success that has no object to show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Message {
    /// What happened, for people.
    pub message: String,
    /// Details for the operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub detail: Option<String>,
    /// What is wrong with which field or parameter: all faults at once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub validations: Vec<Validation>,
}

/// A fault in one field of a body, or in one parameter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = ValidationError)]
pub struct Validation {
    /// Which one.
    pub field: String,
    /// What is wrong with it.
    pub detail: String,
}

impl Message {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), detail: None, validations: Vec::new() }
    }
}

/// A failure: a status and its body.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    body: Message,
    retry_after: Option<Duration>,
}

impl Failure {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, body: Message::new(message), retry_after: None }
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// Not there and not allowed are the same answer.
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "Resource not found or you do not have access to this resource")
    }

    /// For objects whose existence is no secret.
    pub fn forbidden() -> Self {
        Self::new(StatusCode::FORBIDDEN, "Forbidden.").detail(
            "You don't have permission to view this content. If you believe this is a mistake, please contact your \
             administrator or try signing in with different credentials.",
        )
    }

    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.body.detail = Some(detail.into());
        self
    }

    pub fn validations(mut self, validations: Vec<Validation>) -> Self {
        self.body.validations = validations;
        self
    }

    pub fn validation(mut self, field: &str, detail: impl Into<String>) -> Self {
        self.body.validations.push(Validation { field: field.to_owned(), detail: detail.into() });
        self
    }

    pub const fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Says what could not be done, where that is not the fault of the request.
    pub fn at(mut self, what: &str) -> Self {
        if self.status.is_server_error() {
            let message = std::mem::replace(&mut self.body.message, what.to_owned());
            self.body.detail.get_or_insert(message);
        }
        self
    }

    pub const fn status(&self) -> StatusCode {
        self.status
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        use store::Error as E;
        match &error {
            E::NotFound { .. } => Self::not_found(),
            E::Invalid { field, expected } => {
                Self::bad_request("Validation failed.").validation(field, format!("expected {expected}"))
            }
            E::Conflict { constraint } => Self::new(StatusCode::CONFLICT, format!("Conflict with {constraint}.")),
            E::Unavailable(_) | E::Serialization(_) => unavailable(&error),
            E::Corrupt { .. } | E::Schema(_) | E::Sql { .. } => {
                // What the driver said is for the log of the service, not for its clients.
                tracing::error!(error = &error as &dyn std::error::Error, "an operation failed");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "An internal server error occurred.")
                    .detail(error.to_string())
            }
        }
    }
}

fn unavailable(error: &(dyn std::error::Error + 'static)) -> Failure {
    tracing::warn!(error, "the database is not available");
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, "The database is not available. Try again.")
        .retry_after(Duration::from_secs(1))
}

impl From<pool::Error> for Failure {
    fn from(error: pool::Error) -> Self {
        unavailable(&error)
    }
}

impl From<watch::Error> for Failure {
    fn from(error: watch::Error) -> Self {
        match error {
            watch::Error::Store(error) => error.into(),
            error => unavailable(&error),
        }
    }
}

impl From<Denied> for Failure {
    fn from(_: Denied) -> Self {
        Self::not_found()
    }
}
