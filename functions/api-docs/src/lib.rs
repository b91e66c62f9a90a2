//! `GET /openapi.json`, and two pages that show it: `GET /docs` (Swagger UI) and `GET /redoc`
//! (Redoc).
//!
//! The pages are in page/, their libraries in vendor/: nothing is loaded from another host. All
//! URLs in them are relative, which works behind any stage or domain.

mod assets;

use std::sync::LazyLock;

use lambda_http::{
    Body, RequestExt, Response,
    http::{HeaderValue, header},
};
use shared::http::{ApiError, Context, problem};

const OPENAPI: &str = include_str!("../../../openapi.json");

static DOCS: LazyLock<String> = LazyLock::new(|| assets::versioned(include_str!("../page/docs.html")));
static REDOC: LazyLock<String> = LazyLock::new(|| assets::versioned(include_str!("../page/redoc.html")));

/// Allows scripts and styles of this API only, none inline (Content Security Policy Level 3,
/// section 2.3.1).
const DOCS_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; \
                           connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Redoc runs its search in a worker from a blob, and adds two style elements: an empty one that it
/// fills by script, and one for its scrollbars.
const REDOC_POLICY: &str = "default-src 'none'; script-src 'self'; worker-src blob:; \
                            style-src 'self' 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=' \
                            'sha256-QMIg+bpjm3JdElJ388KYke01izlUW0UoNOeKjpMxdgc='; img-src data:; \
                            connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Dispatches by path.
pub async fn handle(context: Context) -> Result<Response<Body>, ApiError> {
    match context.request.path_parameters().first("asset") {
        Some(name) => asset(name, context.request.query_string_parameters().first("v")).await,
        None => match context.request.raw_http_path().rsplit('/').next() {
            Some("openapi.json") => openapi().await,
            Some("redoc") => redoc().await,
            _ => docs().await,
        },
    }
}

/// 200 with the OpenAPI document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "getOpenApi",
    tag = "about",
    summary = "OpenAPI document",
    responses((status = 200, description = "The OpenAPI document.", body = Object, content_type = "application/json"))
)]
pub async fn openapi() -> Result<Response<Body>, ApiError> {
    Ok(text("application/json", OPENAPI))
}

/// 200 with Swagger UI.
#[utoipa::path(
    get,
    path = "/docs",
    operation_id = "getDocs",
    tag = "about",
    summary = "Documentation in Swagger UI",
    description = "A page to read about the API and to send requests.",
    responses((status = 200, description = "The page.", body = String, content_type = "text/html"))
)]
pub async fn docs() -> Result<Response<Body>, ApiError> {
    Ok(page(&DOCS, DOCS_POLICY))
}

/// 200 with Redoc.
#[utoipa::path(
    get,
    path = "/redoc",
    operation_id = "getRedoc",
    tag = "about",
    summary = "Documentation in Redoc",
    description = "A page to read about the API.",
    responses((status = 200, description = "The page.", body = String, content_type = "text/html"))
)]
pub async fn redoc() -> Result<Response<Body>, ApiError> {
    Ok(page(&REDOC, REDOC_POLICY))
}

/// 200 with a script or style of the two pages; 404.
#[utoipa::path(
    get,
    path = "/docs/{asset}",
    operation_id = "getDocsAsset",
    tag = "about",
    summary = "Assets of the documentation pages",
    params(
        ("asset" = String, Path, description = "The name of the file.", example = "style.css"),
        ("v" = Option<String>, Query,
            description = "The version of the file. If it is the current one, the response may be cached for a year."),
    ),
    responses(
        (status = 200, description = "The file.",
            content((String = "text/css"), (String = "text/javascript"), (String = "text/plain"))),
        (status = 404, response = problem::NoSuchRoute),
    )
)]
pub async fn asset(name: &str, version: Option<&str>) -> Result<Response<Body>, ApiError> {
    let asset = assets::find(name).ok_or_else(|| ApiError::NoSuchRoute(format!("/docs/{name}")))?;
    let mut response = text(asset.media_type, asset.content);
    if version == Some(asset.version.as_str()) {
        let immutable = HeaderValue::from_static("public, max-age=31536000, immutable");
        response.headers_mut().insert(header::CACHE_CONTROL, immutable);
    }
    Ok(response)
}

fn page(html: &str, policy: &'static str) -> Response<Body> {
    let mut response = text("text/html; charset=utf-8", html);
    let policy = HeaderValue::from_static(policy);
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}

fn text(media_type: &'static str, content: &str) -> Response<Body> {
    let mut response = Response::new(Body::Text(content.to_owned()));
    let media_type = HeaderValue::from_static(media_type);
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}
