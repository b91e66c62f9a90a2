//! The errors of the API, returned to clients as problem details (RFC 9457).

use super::problem::Problem;
use crate::{
    domain::{FieldError, StoredStatus, TaskId},
    store::StoreError,
};
use lambda_http::{
    Body, Response,
    http::{HeaderValue, StatusCode, header},
};

/// Seconds until a client should retry, if a service is unavailable, or a request with the same
/// `Idempotency-Key` or an earlier change of processing is in progress.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("2");

/// Why a request failed. Clients see the message; the source appears only in the log.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// 400: the body is not JSON.
    #[error("The body is not valid JSON: {0}")]
    NotJson(String),
    /// 400: the request is not one that HTTP allows.
    #[error("The request is malformed: {0}.")]
    Malformed(String),
    /// 401: the request is unauthenticated.
    #[error("Authentication is required: send a bearer token, as in `Authorization: Bearer <token>`.")]
    Unauthorized,
    /// 403: the caller's role does not allow the request.
    #[error("This request requires the admin scope, or the viewer scope if it only reads.")]
    Forbidden,
    /// 404: the task does not exist, or belongs to another user.
    #[error("Task {0} does not exist.")]
    NoSuchTask(TaskId),
    /// 404: no action about many tasks has this id.
    #[error("Action {0} does not exist, or has no steps.")]
    NoSuchAction(i64),
    /// 404: the route does not exist.
    #[error("Nothing was found at {0}.")]
    NoSuchRoute(String),
    /// 405: the path does not support this method. The response lists those that it supports (RFC
    /// 9110, section 15.5.6).
    #[error("This path does not support {method}; it supports {allow}.")]
    MethodNotAllowed {
        /// The method of the request.
        method: String,
        /// The supported methods, separated by commas.
        allow: &'static str,
    },
    /// 409: a worker has a lease on the task.
    #[error("Task {0} is being processed. Wait until it is completed or failed.")]
    Processing(TaskId),
    /// 409: the task has ended, so there is nothing to cancel.
    #[error("Task {0} is {status}: only a task that has not ended can be cancelled.", status = .1.as_str())]
    Settled(TaskId, StoredStatus),
    /// 409: another request with the same `Idempotency-Key` is in progress. Clients may retry.
    #[error("A request with this Idempotency-Key is still in progress. Please try again.")]
    InProgress,
    /// 409: SQS is still moving the messages of an earlier redrive.
    #[error("A redrive is already running. Wait until it has moved its messages.")]
    RedriveRunning,
    /// 409: Lambda has not completed an earlier pause or resumption. Clients may retry.
    #[error("Processing is already being paused or resumed. Please try again.")]
    ProcessingChanging,
    /// 412: the task's version is not one of those in `If-Match`.
    #[error("Task {0} has changed: its ETag does not match If-Match. Fetch the task again, then retry.")]
    Stale(TaskId),
    /// 413: the body is larger than any valid one.
    #[error("The body has {actual} bytes; at most {max} are accepted.")]
    TooLarge {
        /// The size of the body, in bytes.
        actual: usize,
        /// The limit, in bytes.
        max: usize,
    },
    /// 415: the `Content-Type` is not JSON in UTF-8.
    #[error("Content-Type must be application/json in UTF-8, not {0}.")]
    UnsupportedMediaType(String),
    /// 415: the body is compressed. API Gateway decompresses those that it can.
    #[error("Content-Encoding must be identity, not {0}.")]
    UnsupportedCoding(String),
    /// 422: the request is well-formed but not valid. The response lists every mistake.
    #[error("The request is well-formed but not valid; see `errors`.")]
    Invalid(Vec<FieldError>),
    /// 501: the environment has no event source mapping.
    #[error("Processing can be neither paused nor resumed here: there is no event source mapping.")]
    NoEventSourceMapping,
    /// 503: the database is unreachable or does not respond in time. Clients may retry.
    #[error("The database is unavailable. Please try again.")]
    Unavailable(#[source] StoreError),
    /// 503: SQS is unreachable or does not respond in time. Clients may retry.
    #[error("The queue is unavailable. Please try again.")]
    QueueUnavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// 503: Lambda is unreachable, does not respond in time, or refuses the request. Clients may
    /// retry.
    #[error("Lambda is unavailable. Please try again.")]
    LambdaUnavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// 500: a bug.
    #[error("An unexpected error occurred.")]
    Internal(#[source] StoreError),
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) | StoreError::TimedOut => Self::Unavailable(error),
            StoreError::Unexpected(_) => Self::Internal(error),
        }
    }
}

impl ApiError {
    /// The status code of the response.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NotJson(_) | Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NoSuchTask(_) | Self::NoSuchAction(_) | Self::NoSuchRoute(_) => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::Processing(_)
            | Self::Settled(..)
            | Self::InProgress
            | Self::RedriveRunning
            | Self::ProcessingChanging => StatusCode::CONFLICT,
            Self::Stale(_) => StatusCode::PRECONDITION_FAILED,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType(_) | Self::UnsupportedCoding(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::NoEventSourceMapping => StatusCode::NOT_IMPLEMENTED,
            Self::Unavailable(_) | Self::QueueUnavailable(_) | Self::LambdaUnavailable(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The response: `type`, `title`, `status`, `detail` and, for 422, `errors`.
    pub fn into_response(self) -> Response<Body> {
        let status = self.status();
        let problem = Problem {
            r#type: "about:blank",
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            detail: self.to_string(),
            errors: match &self {
                Self::Invalid(errors) => errors.clone(),
                _ => Vec::new(),
            },
        };
        let mut response = super::json(status, &problem);
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        match self {
            Self::Unavailable(_)
            | Self::QueueUnavailable(_)
            | Self::LambdaUnavailable(_)
            | Self::InProgress
            | Self::ProcessingChanging => {
                headers.insert(header::RETRY_AFTER, RETRY_AFTER);
            }
            // Required by RFC 9110, section 15.5.2.
            Self::Unauthorized => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::MethodNotAllowed { allow, .. } => {
                headers.insert(header::ALLOW, HeaderValue::from_static(allow));
            }
            _ => {}
        }
        response
    }
}
