//! What can go wrong with a request: one variant per status code, answered as RFC 9457 problem details.

use super::problem::Problem;
use crate::{
    domain::{FieldError, TaskId},
    store::StoreError,
};
use lambda_http::{
    Body, Response,
    http::{HeaderValue, StatusCode, header},
};

/// After how many seconds a client should try again when the database or the queue is unavailable, or still at
/// work for its first request.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("2");

/// Why a request has no result. The texts are for clients; the sources are for the log only.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// 400: the body is not JSON at all.
    #[error("The body is not valid JSON: {0}")]
    NotJson(String),
    /// 401: it is not known who calls.
    #[error("Say who you are: send a token, as in `Authorization: Bearer <token>`.")]
    Unauthorized,
    /// 403: it is known who calls, and they are not an admin.
    #[error("This is for admins only.")]
    Forbidden,
    /// 404: the route exists, the task does not.
    #[error("Task {0} does not exist.")]
    NoSuchTask(TaskId),
    /// 404: there is no such route.
    #[error("There is nothing at {0}.")]
    NoSuchRoute(String),
    /// 405: the path exists, but not with this method. Names those that are (RFC 9110, section 15.5.6).
    #[error("This path does not take {method}, only {allow}.")]
    MethodNotAllowed {
        /// The method that was used.
        method: String,
        /// The methods the path takes, separated by commas.
        allow: &'static str,
    },
    /// 409: a worker holds the task.
    #[error("Task {0} is being processed. Wait until it is completed or failed.")]
    Processing(TaskId),
    /// 409: another request with the same `Idempotency-Key` has not ended yet. Worth a retry.
    #[error("A request with this Idempotency-Key is still in progress. Please try again.")]
    InProgress,
    /// 412: the task is not, or no longer, as the client's `If-Match` demands.
    #[error("Task {0} has changed: its ETag is not the one in If-Match. Get it again, then decide.")]
    Stale(TaskId),
    /// 413: the body is larger than anything valid.
    #[error("The body has {actual} bytes; at most {max} are accepted.")]
    TooLarge {
        /// The bytes that were sent.
        actual: usize,
        /// The most bytes accepted.
        max: usize,
    },
    /// 415: the body claims to be something else than JSON.
    #[error("The body must be application/json, not {0}.")]
    UnsupportedMediaType(String),
    /// 422: well-formed, but not valid. Lists every mistake.
    #[error("The request is well-formed but not valid; see `errors`.")]
    Invalid(Vec<FieldError>),
    /// 503: the database cannot be reached or does not answer in time. Worth a retry.
    #[error("The database is unavailable. Please try again.")]
    Unavailable(#[source] StoreError),
    /// 503: SQS cannot be reached or does not answer in time. Worth a retry.
    #[error("The queue is unavailable. Please try again.")]
    QueueUnavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// 500: a bug of ours.
    #[error("Something went wrong on our side.")]
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
            Self::NotJson(_) => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NoSuchTask(_) | Self::NoSuchRoute(_) => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::Processing(_) | Self::InProgress => StatusCode::CONFLICT,
            Self::Stale(_) => StatusCode::PRECONDITION_FAILED,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Unavailable(_) | Self::QueueUnavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
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
            Self::Unavailable(_) | Self::QueueUnavailable(_) | Self::InProgress => {
                headers.insert(header::RETRY_AFTER, RETRY_AFTER);
            }
            // RFC 9110, section 15.5.2, demands it.
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
