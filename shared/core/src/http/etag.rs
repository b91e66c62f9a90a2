//! Optimistic concurrency: a task's version is its `ETag`, and requests may be conditional on it
//! (RFC 9110, section 13).

use lambda_http::{
    Body, Request, Response,
    http::{HeaderName, HeaderValue, StatusCode, header},
};

use crate::domain::Task;

/// A response with the task as body and its version as `ETag`.
pub fn task(status: StatusCode, task: &Task) -> Response<Body> {
    let mut response = super::json(status, task);
    response.headers_mut().insert(header::ETAG, etag(task));
    response
}

/// 200 with the task, or 304 if the client already has this version (`If-None-Match`).
pub fn task_or_not_modified(request: &Request, known: &Task) -> Response<Body> {
    let mut response = task(StatusCode::OK, known);
    let is_known = match tags(request, header::IF_NONE_MATCH) {
        Tags::None => false,
        Tags::Any => true,
        // Weak comparison: the tag of a compressed response also matches.
        Tags::List(tags) => tags.iter().any(|tag| tag.version == known.version),
    };
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        *response.body_mut() = Body::Empty;
        response.headers_mut().remove(header::CONTENT_TYPE);
    }
    response
}

/// The versions that a change requires (`If-Match`); `None` if it applies to any version.
pub fn if_match(request: &Request) -> Option<Vec<i64>> {
    match tags(request, header::IF_MATCH) {
        Tags::None | Tags::Any => None,
        // Strong comparison: a weak tag does not guarantee that the task is exactly as the client
        // saw it.
        Tags::List(tags) => Some(tags.iter().filter(|tag| !tag.is_weak).map(|tag| tag.version).collect()),
    }
}

fn etag(task: &Task) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{}\"", task.version)).expect("digits in quotes are a header value")
}

/// The value of `If-Match` or `If-None-Match`.
enum Tags {
    /// The header is missing.
    None,
    /// `*`
    Any,
    /// The tags in our format. Others match no version, so they are left out.
    List(Vec<Tag>),
}

struct Tag {
    version: i64,
    is_weak: bool,
}

impl Tag {
    fn parse(text: &str) -> Option<Self> {
        let (is_weak, text) = match text.strip_prefix("W/") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let digits = text.strip_prefix('"')?.strip_suffix('"')?;
        let version: i64 = digits.parse().ok()?;
        // Each version has one spelling: `"+7"` and `"007"` match nothing.
        (version.to_string() == digits).then_some(Self { version, is_weak })
    }
}

fn tags(request: &Request, name: HeaderName) -> Tags {
    let values: Vec<_> = request.headers().get_all(name).iter().collect();
    if values.is_empty() {
        return Tags::None;
    }
    // A tag may contain bytes beyond ASCII (RFC 9110, section 8.8.3). Such a foreign one must not hide
    // ours in the same line.
    let lines: Vec<_> = values
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()))
        .collect();
    let items: Vec<&str> = lines.iter().flat_map(|line| line.split(',')).map(str::trim).collect();
    match items.as_slice() {
        ["*"] => Tags::Any,
        items => Tags::List(items.iter().filter_map(|item| Tag::parse(item)).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(name: HeaderName, values: &[&str]) -> Request {
        let mut request = Request::new(Body::Empty);
        for value in values {
            let value = HeaderValue::from_bytes(value.as_bytes()).expect("a header value");
            request.headers_mut().append(&name, value);
        }
        request
    }

    #[test]
    fn if_match_lists_required_versions() {
        let versions = |values: &[&str]| if_match(&request(header::IF_MATCH, values));
        assert_eq!(versions(&[]), None);
        assert_eq!(versions(&["*"]), None);
        assert_eq!(versions(&["\"7\""]), Some(vec![7]));
        assert_eq!(versions(&["\"7\" , \"8\"", "\"9\""]), Some(vec![7, 8, 9]));
        assert_eq!(versions(&["\"é\", \"7\"", "\"8\",\"\u{fffd}\""]), Some(vec![7, 8]));
    }

    #[test]
    fn unrelated_tags_match_nothing() {
        let versions = |value: &str| if_match(&request(header::IF_MATCH, &[value]));
        for foreign in [
            "", "7", "\"\"", "\"007\"", "\"+7\"", "\"abc\"", "W/\"7\"", "\"7", "é", "\"1,2\"", "*, *",
        ] {
            assert_eq!(versions(foreign), Some(vec![]), "{foreign}");
        }
    }
}
