//! `GET /`: information about the API. Also responds, with problem details, to every request that
//! matches no other route: API Gateway sends it unknown paths and methods (`ANY /{proxy+}` in
//! template.yaml).

use lambda_http::{Body, RequestExt, Response, http::Method, http::StatusCode};
use serde::Serialize;
use shared::http::{self, ApiError, Context};
use utoipa::ToSchema;

/// Information about the API.
#[derive(Serialize, ToSchema)]
pub struct Info {
    /// A greeting.
    message: &'static str,
    /// The version of the API.
    version: &'static str,
    /// Entry points by name. Append each path to this document's URL.
    endpoints: Endpoints,
}

/// The paths of the API.
#[derive(Serialize, ToSchema)]
struct Endpoints {
    tasks: &'static str,
    task: &'static str,
    process: &'static str,
    health: &'static str,
    ready: &'static str,
    status: &'static str,
    dashboard: &'static str,
    docs: &'static str,
    redoc: &'static str,
    openapi: &'static str,
}

const INFO: Info = Info {
    message: "Welcome to the task API",
    version: env!("CARGO_PKG_VERSION"),
    endpoints: Endpoints {
        tasks: "/tasks",
        task: "/tasks/{id}",
        process: "/tasks/{id}/process",
        health: "/health",
        ready: "/ready",
        status: "/admin/status",
        dashboard: "/admin/dashboard",
        docs: "/docs",
        redoc: "/redoc",
        openapi: "/openapi.json",
    },
};

/// 200 for `GET /` and `HEAD /`; 404 for an unknown path, 405 for a known one with another method.
#[utoipa::path(
    get,
    path = "/",
    operation_id = "getInfo",
    tag = "about",
    summary = "API information",
    description = "The version of the API and its entry points.",
    responses((status = 200, description = "The version and the entry points.", body = Info))
)]
pub async fn handle(context: Context) -> Result<Response<Body>, ApiError> {
    let (method, path) = (context.request.method(), context.request.raw_http_path());
    match allowed_methods(path) {
        Some(_) if path == "/" && [Method::GET, Method::HEAD].contains(method) => Ok(http::json(StatusCode::OK, &INFO)),
        Some(allow) => Err(ApiError::MethodNotAllowed {
            method: method.to_string(),
            allow,
        }),
        None => Err(ApiError::NoSuchRoute(path.to_owned())),
    }
}

/// The segments of each path, and its methods, from openapi.json.
const ROUTES: &[(&[&str], &str)] = include!(concat!(env!("OUT_DIR"), "/routes.rs"));

/// The methods of a path, for the `Allow` header. A test compares it with template.yaml.
fn allowed_methods(path: &str) -> Option<&'static str> {
    let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    // Only the root has an empty segment; no parameter is empty.
    if segments.len() > 1 && segments.contains(&"") {
        return None;
    }
    let is_match = |route: &[&str]| {
        let mut pairs = route.iter().zip(&segments);
        route.len() == segments.len() && pairs.all(|(name, segment)| name.starts_with('{') || name == segment)
    };
    let found = ROUTES.iter().find(|(route, _)| is_match(route));
    found.map(|(_, methods)| *methods)
}
