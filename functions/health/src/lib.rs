//! `GET /health`: pings the database, so that "healthy" means that requests can be served.

use lambda_http::{
    Body, Response,
    http::{HeaderValue, StatusCode, header},
};
use serde::Serialize;
use shared::{
    http::{self, ApiError, Context},
    store::Database,
    telemetry,
};
use utoipa::ToSchema;

/// The health of the API.
#[derive(Serialize, ToSchema)]
pub struct Health {
    status: HealthStatus,
    checks: HealthChecks,
}

/// The overall status.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum HealthStatus {
    Healthy,
    Unhealthy,
}

/// The status of each dependency.
#[derive(Serialize, ToSchema)]
struct HealthChecks {
    database: DependencyStatus,
}

/// Whether a dependency responds.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum DependencyStatus {
    Up,
    Down,
}

/// 200, or 503 with the name of the dependency that is down.
#[utoipa::path(
    get,
    path = "/health",
    operation_id = "getHealth",
    tag = "about",
    summary = "Health check",
    description = "Pings the database.",
    responses(
        (status = 200, description = "Healthy.", body = Health,
            example = json!({"status": "healthy", "checks": {"database": "up"}})),
        (status = 503, description = "Unhealthy: a dependency is down.", body = Health,
            example = json!({"status": "unhealthy", "checks": {"database": "down"}})),
    )
)]
pub async fn handle(database: &Database, _: Context) -> Result<Response<Body>, ApiError> {
    let (code, status, database) = match database.ping().await {
        Ok(()) => (StatusCode::OK, HealthStatus::Healthy, DependencyStatus::Up),
        Err(error) => {
            telemetry::log_error(&error, "database unavailable");
            (
                StatusCode::SERVICE_UNAVAILABLE,
                HealthStatus::Unhealthy,
                DependencyStatus::Down,
            )
        }
    };
    let checks = HealthChecks { database };
    let mut response = http::json(code, &Health { status, checks });
    // A cached response would report an old state.
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, no_store);
    Ok(response)
}
