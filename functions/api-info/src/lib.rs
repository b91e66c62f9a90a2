//! `GET /`: what this API is. Also answers, as problem details, every request that no other route takes:
//! API Gateway hands it what matches neither a path nor its methods (`ANY /{proxy+}` in template.yaml).

use lambda_http::{Body, Request, RequestExt, Response, http::Method, http::StatusCode};
use serde_json::json;
use shared::http::{self, ApiError};

/// 200 for `GET /`; 404 for an unknown path, 405 for a known one with another method.
pub async fn handle(request: Request) -> Result<Response<Body>, ApiError> {
    let path = request.raw_http_path();
    match allowed_methods(path) {
        Some(_) if path == "/" && request.method() == Method::GET => Ok(http::json(
            StatusCode::OK,
            &json!({
                "message": "Welcome to the task API",
                "version": env!("CARGO_PKG_VERSION"),
                "endpoints": {
                    "tasks": "/tasks",
                    "task": "/tasks/{id}",
                    "process": "/tasks/{id}/process",
                    "health": "/health",
                    "status": "/admin/status",
                    "dashboard": "/admin/dashboard",
                },
            }),
        )),
        Some(allow) => Err(ApiError::MethodNotAllowed {
            method: request.method().to_string(),
            allow,
        }),
        None => Err(ApiError::NoSuchRoute(path.to_owned())),
    }
}

/// The methods of each path, for the `Allow` header. A test compares it with template.yaml.
fn allowed_methods(path: &str) -> Option<&'static str> {
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    match segments[..] {
        [""] | ["health"] | ["admin", "status" | "dashboard"] | ["admin", "tasks", _] => Some("GET"),
        ["admin", "redrive"] => Some("POST"),
        ["tasks"] => Some("GET, POST"),
        ["tasks", _] => Some("DELETE, GET, PATCH, PUT"),
        ["tasks", _, "process"] => Some("POST"),
        _ => None,
    }
}
