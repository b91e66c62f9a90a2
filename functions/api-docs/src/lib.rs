//! `GET /openapi.json`, and two pages that show it: `GET /docs` (Swagger UI) and `GET /redoc` (Redoc).
//!
//! The pages are in page/, the libraries behind them in vendor/: nothing comes from another host. All URLs in them are
//! relative, so that they hold behind any stage or domain.

use lambda_http::{
    Body, Request, RequestExt, Response,
    http::{HeaderValue, header},
};
use shared::http::{ApiError, problem};

const OPENAPI: &str = include_str!("../../../openapi.json");

/// What the pages load: name, media type, content.
const ASSETS: [(&str, &str, &str); 6] = [
    ("docs.js", "text/javascript", include_str!("../page/docs.js")),
    ("redoc.js", "text/javascript", include_str!("../page/redoc.js")),
    (
        "redoc.standalone.js",
        "text/javascript",
        include_str!("../vendor/redoc/redoc.standalone.js"),
    ),
    ("style.css", "text/css", include_str!("../page/style.css")),
    (
        "swagger-ui-bundle.js",
        "text/javascript",
        include_str!("../vendor/swagger-ui/swagger-ui-bundle.js"),
    ),
    (
        "swagger-ui.css",
        "text/css",
        include_str!("../vendor/swagger-ui/swagger-ui.css"),
    ),
];

/// Scripts of this API only, and none in the page (Content Security Policy Level 3, section 2.3.1). Both libraries
/// write styles into the page, with hashes that nobody can know before.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; \
                      img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// For how long a browser may keep an asset, in seconds: they change with a deployment only.
const KEEP: &str = "public, max-age=3600";

/// Answers by the last part of the path.
pub async fn handle(request: Request) -> Result<Response<Body>, ApiError> {
    match request.path_parameters().first("asset") {
        Some(name) => asset(name).await,
        None => match request.raw_http_path().rsplit('/').next() {
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
    summary = "This document",
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
    summary = "This document in Swagger UI",
    description = "A page to read about the API and to try it out.",
    responses((status = 200, description = "The page.", body = String, content_type = "text/html"))
)]
pub async fn docs() -> Result<Response<Body>, ApiError> {
    Ok(page(include_str!("../page/docs.html")))
}

/// 200 with Redoc.
#[utoipa::path(
    get,
    path = "/redoc",
    operation_id = "getRedoc",
    tag = "about",
    summary = "This document in Redoc",
    description = "A page to read about the API.",
    responses((status = 200, description = "The page.", body = String, content_type = "text/html"))
)]
pub async fn redoc() -> Result<Response<Body>, ApiError> {
    Ok(page(include_str!("../page/redoc.html")))
}

/// 200 with a script or style of the two pages; 404.
#[utoipa::path(
    get,
    path = "/docs/{asset}",
    operation_id = "getDocsAsset",
    tag = "about",
    summary = "What the two pages load",
    params(("asset" = String, Path, description = "The name of the file.", example = "style.css")),
    responses(
        (status = 200, description = "The file.", content((String = "text/css"), (String = "text/javascript"))),
        (status = 404, response = problem::NoSuchRoute),
    )
)]
pub async fn asset(name: &str) -> Result<Response<Body>, ApiError> {
    let found = ASSETS.iter().find(|(asset, ..)| *asset == name);
    let (_, media_type, content) = found.ok_or_else(|| ApiError::NoSuchRoute(format!("/docs/{name}")))?;
    let mut response = text(media_type, content);
    let keep = HeaderValue::from_static(KEEP);
    response.headers_mut().insert(header::CACHE_CONTROL, keep);
    Ok(response)
}

fn page(html: &'static str) -> Response<Body> {
    let mut response = text("text/html", html);
    let policy = HeaderValue::from_static(POLICY);
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}

fn text(media_type: &'static str, content: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::Text(content.to_owned()));
    let media_type = HeaderValue::from_str(&format!("{media_type}; charset=utf-8")).expect("a header value");
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}
