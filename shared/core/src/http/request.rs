//! Reads path, query, headers and body of a request.

use lambda_http::{Body, Request, RequestExt, http::header};
use tracing::Span;

use super::ApiError;
use crate::domain::{self, FieldError, IdempotencyKey, Input, TaskId};

/// The largest accepted body, in bytes. The largest valid one, whose title and description consist
/// of escaped emoji (12 bytes per character), has 124 KiB.
const MAX_BODY: usize = 128 * 1024;

/// The `{id}` of the path. Also adds it to every log line of this request.
pub fn task_id(request: &Request) -> Result<TaskId, ApiError> {
    let parameters = request.path_parameters();
    let id: TaskId = parameters
        .first("id")
        .unwrap_or_default()
        .parse()
        .map_err(|error| ApiError::Invalid(vec![FieldError::new("#/path/id", error)]))?;
    Span::current().record("taskId", id.get());
    Ok(id)
}

/// The `{id}` of the path, if that is the id of an action.
pub fn action_id(request: &Request) -> Result<i64, ApiError> {
    let parameters = request.path_parameters();
    let id = parameters.first("id").unwrap_or_default();
    domain::action_id(id).map_err(|error| ApiError::Invalid(vec![error]))
}

/// The query parameters, decoded, in no particular order.
pub fn query(request: &Request) -> Vec<(String, String)> {
    request
        .query_string_parameters()
        .iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// The `Idempotency-Key`, if there is one. Repeated lines must agree.
pub fn idempotency_key(request: &Request) -> Result<Option<IdempotencyKey>, ApiError> {
    let invalid = |detail| ApiError::Invalid(vec![FieldError::new("#/header/idempotency-key", detail)]);
    let lines = request.headers().get_all("idempotency-key").iter();
    let keys: Result<Vec<_>, _> = lines.map(|line| IdempotencyKey::parse(line.as_bytes())).collect();
    let mut keys = keys.map_err(|error| invalid(error.to_string()))?;
    keys.dedup();
    match keys.len() {
        0 | 1 => Ok(keys.pop()),
        _ => Err(invalid("must not have different values".to_owned())),
    }
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
    // A byte order mark is not part of the text, and parsers may ignore it (RFC 8259, section 8.1).
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let value = serde_json::from_slice(bytes).map_err(|error| match coding(request) {
        Some(coding) => ApiError::UnsupportedCoding(coding),
        None => ApiError::NotJson(error.to_string()),
    })?;
    domain::parse(value, bytes).map_err(ApiError::Invalid)
}

fn body_bytes(request: &Request) -> &[u8] {
    match request.body() {
        Body::Text(text) => text.as_bytes(),
        Body::Binary(bytes) => bytes,
        _ => &[],
    }
}

/// The content coding of a body that is not JSON. API Gateway decompresses gzip and deflate ("Call
/// an API method with a compressed payload"), whether or not it removes the header, and refuses
/// other codings with 415.
fn coding(request: &Request) -> Option<String> {
    let lines = request.headers().get_all(header::CONTENT_ENCODING).iter();
    let mut codings = lines.map(|line| String::from_utf8_lossy(line.as_bytes()));
    let coding = codings.find(|coding| !coding.trim().eq_ignore_ascii_case("identity"))?;
    Some(coding.into_owned())
}

fn check_media_type(request: &Request) -> Result<(), ApiError> {
    let lines = request.headers().get_all(header::CONTENT_TYPE).iter();
    let mut types = lines.map(|line| String::from_utf8_lossy(line.as_bytes()));
    match types.find(|media_type| !is_json(media_type)) {
        Some(other) => Err(ApiError::UnsupportedMediaType(other.into_owned())),
        None => Ok(()),
    }
}

/// Accepts every JSON media type. A missing `Content-Type` also counts as JSON, and so does the
/// form type, which `curl -d` sends by default: this API has no forms, and a body that is not JSON
/// fails to parse.
///
/// JSON is UTF-8 (RFC 8259, section 8.1). In another charset, API Gateway replaces bytes.
fn is_json(media_type: &str) -> bool {
    let mut parts = media_type.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    let is_accepted = matches!(
        essence.as_str(),
        "application/json" | "application/x-www-form-urlencoded"
    ) || (essence.starts_with("application/") && essence.ends_with("+json"));
    let is_utf8 = |parameter: &str| match parameter.split_once('=') {
        Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
            let value = value.trim().trim_matches('"');
            value.eq_ignore_ascii_case("utf-8") || value.eq_ignore_ascii_case("utf8")
        }
        _ => true,
    };
    is_accepted && parts.all(is_utf8)
}
