//! Bodies of requests.

use axum::body::Bytes;
use axum::{
    extract::{FromRequest, Request, rejection::BytesRejection},
    http::StatusCode,
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::error::Failure;

/// A body of JSON, whatever its content type says.
pub(super) struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection: BytesRejection| {
            match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => {
                    Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "Request body is too large.")
                }
                _ => Failure::bad_request("Request body could not be read."),
            }
        })?;
        // The parser's text may quote the body, which may hold a license. A list is no object, although serde takes one.
        let object: Map<String, Value> = serde_json::from_slice(&bytes).map_err(|why| {
            Failure::bad_request("Request body must be valid JSON.").detail(format!(
                "Expected an object; line {}, column {}",
                why.line(),
                why.column()
            ))
        })?;
        T::deserialize(Value::Object(object)).map(Self).map_err(|_| {
            Failure::bad_request("Request body must be valid JSON.").detail("A field is missing or has another type.")
        })
    }
}
