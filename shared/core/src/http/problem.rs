//! Problem details (RFC 9457), the body of every error, and the error responses that the routes
//! share in the OpenAPI document.

use serde::Serialize;
use utoipa::{ToResponse, ToSchema};

use crate::domain::FieldError;

/// Problem details (RFC 9457, section 3.1).
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem {
    /// `about:blank`: the status code is the problem type (RFC 9457, section 4.2.1).
    #[schema(value_type = String, example = "about:blank")]
    pub r#type: &'static str,
    /// The reason phrase of the status code.
    #[schema(value_type = String, example = "Not Found")]
    pub title: &'static str,
    /// The status code of the response.
    #[schema(minimum = 400, maximum = 599, example = 404)]
    pub status: u16,
    /// A human-readable explanation.
    #[schema(example = "Task 7 does not exist.")]
    pub detail: String,
    /// Every mistake in the input (422 only).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub errors: Vec<FieldError>,
}

/// 400 in the OpenAPI document.
#[derive(ToResponse)]
#[response(
    description = "The body is not JSON, or the request is malformed.",
    content_type = "application/problem+json",
    example = json!({
        "type": "about:blank", "status": 400, "title": "Bad Request",
        "detail": "The body is not valid JSON: expected value at line 1 column 1",
    })
)]
pub struct NotJson(pub Problem);

/// 401 in the OpenAPI document.
#[derive(ToResponse)]
#[response(
    description = "The token is missing or invalid.",
    content_type = "application/problem+json",
    headers(("WWW-Authenticate" = String, description = "`Bearer`")),
    example = json!({
        "type": "about:blank", "title": "Unauthorized", "status": 401,
        "detail": "Authentication is required: send a bearer token, as in `Authorization: Bearer <token>`.",
    })
)]
pub struct Unauthorized(pub Problem);

/// 403 in the OpenAPI document.
#[derive(ToResponse)]
#[response(
    description = "The token's scopes do not allow the request.",
    content_type = "application/problem+json",
    example = json!({
        "type": "about:blank", "title": "Forbidden", "status": 403,
        "detail": "This request requires the admin scope, or the viewer scope if it only reads.",
    })
)]
pub struct Forbidden(pub Problem);

/// 404 of a task in the OpenAPI document.
#[derive(ToResponse)]
#[response(
    description = "The task does not exist, or belongs to another user.",
    content_type = "application/problem+json",
    example = json!({
        "type": "about:blank", "status": 404, "title": "Not Found", "detail": "Task 7 does not exist.",
    })
)]
pub struct NoSuchTask(pub Problem);

/// 404 of an action in the OpenAPI document.
#[derive(ToResponse)]
#[response(
    description = "No action about many tasks has this id.",
    content_type = "application/problem+json",
    example = json!({
        "type": "about:blank", "status": 404, "title": "Not Found",
        "detail": "Action 7 does not exist, or has no steps.",
    })
)]
pub struct NoSuchAction(pub Problem);

/// 404 of a path in the OpenAPI document.
#[derive(ToResponse)]
#[response(
    description = "No resource has this path.",
    content_type = "application/problem+json",
    example = json!({
        "type": "about:blank", "status": 404, "title": "Not Found", "detail": "Nothing was found at /docs/none.js.",
    })
)]
pub struct NoSuchRoute(pub Problem);

/// 409 of a task in the OpenAPI document.
#[derive(ToResponse)]
#[response(
    description = "A worker is processing the task.",
    content_type = "application/problem+json",
    example = json!({
        "type": "about:blank", "status": 409, "title": "Conflict",
        "detail": "Task 7 is being processed. Wait until it is completed or failed.",
    })
)]
pub struct Processing(pub Problem);

/// 409 of a cancellation in the OpenAPI document.
#[derive(ToResponse)]
#[response(
    description = "The task is completed or failed.",
    content_type = "application/problem+json",
    example = json!({
        "type": "about:blank", "status": 409, "title": "Conflict",
        "detail": "Task 7 is completed: only a task that has not ended can be cancelled.",
    })
)]
pub struct Settled(pub Problem);

/// 409 of an idempotency key in the OpenAPI document.
#[derive(ToResponse)]
#[response(
    description = "A request with the same `Idempotency-Key` is still in progress.",
    content_type = "application/problem+json",
    headers(("Retry-After" = u32, description = "Seconds to wait before retrying.")),
    example = json!({
        "type": "about:blank", "status": 409, "title": "Conflict",
        "detail": "A request with this Idempotency-Key is still in progress. Please try again.",
    })
)]
pub struct InProgress(pub Problem);

/// 409 of a redrive in the OpenAPI document.
#[derive(ToResponse)]
#[response(
    description = "SQS is still moving the messages of an earlier redrive.",
    content_type = "application/problem+json",
    example = json!({
        "type": "about:blank", "status": 409, "title": "Conflict",
        "detail": "A redrive is already running. Wait until it has moved its messages.",
    })
)]
pub struct RedriveRunning(pub Problem);

/// 409 of pausing and resuming in the OpenAPI document.
#[derive(ToResponse)]
#[response(
    description = "An earlier pause or resumption is not complete.",
    content_type = "application/problem+json",
    headers(("Retry-After" = u32, description = "Seconds to wait before retrying.")),
    example = json!({
        "type": "about:blank", "status": 409, "title": "Conflict",
        "detail": "Processing is already being paused or resumed. Please try again.",
    })
)]
pub struct ProcessingChanging(pub Problem);

/// 412 in the OpenAPI document.
#[derive(ToResponse)]
#[response(
    description = "The task's `ETag` matches none of those in `If-Match`.",
    content_type = "application/problem+json",
    example = json!({
        "type": "about:blank", "status": 412, "title": "Precondition Failed",
        "detail": "Task 7 has changed: its ETag does not match If-Match. Fetch the task again, then retry.",
    })
)]
pub struct Stale(pub Problem);

/// 413 in the OpenAPI document.
#[derive(ToResponse)]
#[response(
    description = "The body is larger than 128 KiB.",
    content_type = "application/problem+json",
    example = json!({
        "type": "about:blank", "status": 413, "title": "Payload Too Large",
        "detail": "The body has 200000 bytes; at most 131072 are accepted.",
    })
)]
pub struct TooLarge(pub Problem);

/// 415 in the OpenAPI document.
#[derive(ToResponse)]
#[response(
    description = "The request's `Content-Type` is not JSON in UTF-8, or its body is compressed with an unsupported coding.",
    content_type = "application/problem+json",
    example = json!({
        "type": "about:blank", "status": 415, "title": "Unsupported Media Type",
        "detail": "Content-Type must be application/json in UTF-8, not text/csv.",
    })
)]
pub struct UnsupportedMediaType(pub Problem);

/// 422 in the OpenAPI document.
#[derive(ToResponse)]
#[response(
    description = "The request is well-formed but not valid. `errors` lists every mistake.",
    content_type = "application/problem+json",
    example = json!({
        "type": "about:blank", "status": 422, "title": "Unprocessable Entity",
        "detail": "The request is well-formed but not valid; see `errors`.",
        "errors": [{"pointer": "#/title", "detail": "must not be blank"}],
    })
)]
pub struct Invalid(pub Problem);

/// 501 in the OpenAPI document.
#[derive(ToResponse)]
#[response(
    description = "The environment has no event source mapping, as under `cargo lambda watch`.",
    content_type = "application/problem+json",
    example = json!({
        "type": "about:blank", "status": 501, "title": "Not Implemented",
        "detail": "Processing can be neither paused nor resumed here: there is no event source mapping.",
    })
)]
pub struct NoEventSourceMapping(pub Problem);

/// 503 in the OpenAPI document.
#[derive(ToResponse)]
#[response(
    description = "Postgres is unavailable, or SQS or Lambda, where the response depends on it.",
    content_type = "application/problem+json",
    headers(("Retry-After" = u32, description = "Seconds to wait before retrying.")),
    example = json!({
        "type": "about:blank", "status": 503, "title": "Service Unavailable",
        "detail": "The database is unavailable. Please try again.",
    })
)]
pub struct Unavailable(pub Problem);
