//! Reads path, query, headers and body of a request.

use std::borrow::Cow;

use lambda_http::{Body, Request, RequestExt, http::header, request::RequestContext};
use percent_encoding::percent_decode_str;
use tracing::Span;

use super::ApiError;
use crate::domain::{FieldError, IdempotencyKey, Input, TaskId};

/// The largest accepted body, in bytes. The largest valid one, whose title and description consist
/// of escaped emoji (12 bytes per character), has 124 KiB.
const MAX_BODY: usize = 128 * 1024;

/// The `{id}` of the path. Also adds it to every log line of this request.
pub fn task_id(request: &Request) -> Result<TaskId, ApiError> {
    let parameters = request.path_parameters();
    let text = parameters.first("id").unwrap_or_default();
    let text = match request.request_context_ref() {
        // API Gateway decodes path parameters. `cargo lambda watch`, which sends payload format
        // 2.0, does not.
        Some(RequestContext::ApiGatewayV2(_)) => percent_decode_str(text).decode_utf8_lossy(),
        _ => Cow::Borrowed(text),
    };
    let id: TaskId = text
        .parse()
        .map_err(|error| ApiError::Invalid(vec![FieldError::new("#/path/id", error)]))?;
    Span::current().record("taskId", id.get());
    Ok(id)
}

/// The query parameters, decoded, in no particular order.
pub fn query(request: &Request) -> Vec<(String, String)> {
    request
        .query_string_parameters()
        .iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// The `Idempotency-Key`, if there is one.
pub fn idempotency_key(request: &Request) -> Result<Option<IdempotencyKey>, ApiError> {
    let Some(value) = request.headers().get("idempotency-key") else {
        return Ok(None);
    };
    let invalid = |error| ApiError::Invalid(vec![FieldError::new("#/header/idempotency-key", error)]);
    IdempotencyKey::parse(value.as_bytes()).map(Some).map_err(invalid)
}

/// Parses the body into `T`, or reports every mistake in it.
pub fn json_body<T: Input>(request: &Request) -> Result<T, ApiError> {
    check_media_type(request)?;
    let bytes = body_bytes(request);
    if bytes.len() > MAX_BODY {
        return Err(ApiError::TooLarge {
            actual: bytes.len(),
            max: MAX_BODY,
        });
    }
    let value = serde_json::from_slice(bytes).map_err(|error| ApiError::NotJson(error.to_string()))?;
    T::parse(value).map_err(ApiError::Invalid)
}

fn body_bytes(request: &Request) -> &[u8] {
    match request.body() {
        Body::Text(text) => text.as_bytes(),
        Body::Binary(bytes) => bytes,
        _ => &[],
    }
}

/// Accepts every JSON media type. A missing `Content-Type` also counts as JSON, and so does the
/// form type, which `curl -d` sends by default: this API has no forms, and a body that is not JSON
/// fails to parse.
fn check_media_type(request: &Request) -> Result<(), ApiError> {
    let Some(value) = request.headers().get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let value = String::from_utf8_lossy(value.as_bytes());
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let accepted = matches!(
        essence.as_str(),
        "application/json" | "application/x-www-form-urlencoded"
    ) || (essence.starts_with("application/") && essence.ends_with("+json"));
    if accepted {
        Ok(())
    } else {
        Err(ApiError::UnsupportedMediaType(Cow::into_owned(value)))
    }
}
