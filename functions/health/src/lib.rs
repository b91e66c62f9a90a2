//! `GET /health`: asks the database, so that "healthy" means that requests can be served.

use lambda_http::{
    Body, Request, Response,
    http::{HeaderValue, StatusCode, header},
};
use serde_json::json;
use shared::{
    http::{self, ApiError},
    store::Database,
    telemetry,
};

/// 200, or 503 with the name of the dependency that is down.
pub async fn handle(database: &Database, _: Request) -> Result<Response<Body>, ApiError> {
    let mut response = match database.ping().await {
        Ok(()) => http::json(
            StatusCode::OK,
            &json!({"status": "healthy", "checks": {"database": "up"}}),
        ),
        Err(error) => {
            telemetry::log_error(&error, "the database is down");
            http::json(
                StatusCode::SERVICE_UNAVAILABLE,
                &json!({"status": "unhealthy", "checks": {"database": "down"}}),
            )
        }
    };
    // An answer from a cache would say how things were.
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, no_store);
    Ok(response)
}
