//! `GET /admin/dashboard`: a page that shows the system status and lets an operator act on it.
//!
//! Its sources are in page/. It gets its data from the other routes, like every client.

use std::sync::LazyLock;

use base64::{Engine, engine::general_purpose::STANDARD};
use lambda_http::{
    Body, Response,
    http::{HeaderValue, header},
};
use sha2::{Digest, Sha256};
use shared::http::{ApiError, Context};

const STYLE: &str = include_str!("../page/style.css");
const SCRIPT: &str = include_str!("../page/script.js");

/// The page, with its style and script inlined.
static PAGE: LazyLock<String> = LazyLock::new(|| {
    include_str!("../page/page.html")
        .replace("/*style*/", STYLE)
        .replace("/*script*/", SCRIPT)
});

/// Allows this style and this script by their hashes, requests to this API, and nothing else
/// (Content Security Policy Level 3, section 2.3.1): a script injected through a title does not
/// run.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let policy = format!(
        "default-src 'none'; style-src '{}'; script-src '{}'; connect-src 'self'; img-src 'self' data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(STYLE),
        hash(SCRIPT),
    );
    HeaderValue::from_str(&policy).expect("base64 is a valid header value")
});

fn hash(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text)))
}

/// 200 with the page.
#[utoipa::path(
    get,
    path = "/admin/dashboard",
    operation_id = "getDashboard",
    tag = "operators",
    summary = "Dashboard",
    description = "A page to monitor and operate the system.",
    responses((status = 200, description = "The page.", body = String, content_type = "text/html"))
)]
pub async fn handle(_: Context) -> Result<Response<Body>, ApiError> {
    let mut response = Response::new(Body::Text(PAGE.clone()));
    let headers = response.headers_mut();
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, html);
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY.clone());
    Ok(response)
}
