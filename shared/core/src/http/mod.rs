//! HTTP: from requests to responses.
//!
//! A handler is an `async fn(&State, Context) -> Result<Response<Body>, ApiError>`. [`serve()`] runs
//! it under Lambda, behind an API Gateway REST API (payload format 1.0) or, with
//! `cargo lambda watch`, an HTTP API (2.0).

mod context;
pub mod cors;
mod error;
mod etag;
mod event;
pub mod problem;
mod request;
mod serve;

pub use context::{Caller, Context, Role};
pub use error::ApiError;
pub use etag::{if_match, task, task_or_not_modified};
pub use event::{Received, receive};
pub use request::{action_id, idempotency_key, json_body, query, task_id};
pub use serve::{respond, serve};

pub use lambda_http::{Body, Request, Response, http::StatusCode};

use lambda_http::http::header;
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::TaskId;

/// A response with a JSON body.
pub fn json(status: StatusCode, body: &impl Serialize) -> Response<Body> {
    json_text(status, to_json(body))
}

/// Serializes one of our types.
pub fn to_json(body: &impl Serialize) -> String {
    serde_json::to_string(body).expect("our types have string keys and infallible serializers")
}

/// A response with JSON text as body.
pub fn json_text(status: StatusCode, body: String) -> Response<Body> {
    let mut response = Response::new(Body::Text(body));
    *response.status_mut() = status;
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// The most bytes that a response may have: Lambda's limit of 6,291,556 bytes for all of it
/// ("Invocation payload", "Lambda quotas"), without the headers.
pub const MAX_RESPONSE: usize = 6_000_000;

/// The bytes that a JSON body has in a response, in which it is a string: its quotes and backslashes
/// are escaped.
pub fn bytes_in_response(body: &str) -> usize {
    let escaped = body.bytes().filter(|byte| matches!(byte, b'"' | b'\\'));
    body.len() + escaped.count()
}

/// Confirms a request that was carried out or queued.
#[derive(Debug, Serialize, ToSchema)]
pub struct Confirmation {
    /// A human-readable confirmation.
    #[schema(example = "Task 7 queued for processing")]
    pub message: String,
    /// The id of the task.
    pub task_id: TaskId,
}
