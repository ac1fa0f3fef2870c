//! Bodies of requests.

use axum::body::Bytes;
use axum::{
    Json,
    extract::{FromRequest, Request, rejection::BytesRejection},
    http::StatusCode,
};
use serde::de::DeserializeOwned;

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
        // The parser's text may quote the body, which may hold a license.
        Json::<T>::from_bytes(&bytes).map(|Json(body)| Self(body)).map_err(|_| {
            let read = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).err();
            let said = read.map_or_else(
                || "a field is missing or has another type".to_owned(),
                |why| format!("line {}, column {}", why.line(), why.column()),
            );
            Failure::bad_request("Request body must be valid JSON.").detail(said)
        })
    }
}
