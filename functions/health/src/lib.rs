//! `GET /health` (liveness): the function runs. `GET /ready` (readiness): the database responds.
//!
//! Monitors may call the first as often as they like: it does not use the database, which pauses
//! when nothing does. The second requires a token, so that no one else can keep the database awake.

use lambda_http::{
    Body, RequestExt, Response,
    http::{HeaderValue, StatusCode, header},
};
use serde::Serialize;
use shared::{
    http::{self, ApiError, Context, problem},
    store::Database,
};
use utoipa::ToSchema;

/// The API runs.
#[derive(Serialize, ToSchema)]
pub struct Health {
    #[schema(example = "healthy")]
    status: &'static str,
}

/// The API and its database run.
#[derive(Serialize, ToSchema)]
pub struct Readiness {
    #[schema(example = "ready")]
    status: &'static str,
}

/// Dispatches by path.
pub async fn handle(database: &Database, context: Context) -> Result<Response<Body>, ApiError> {
    match context.request.raw_http_path() {
        "/ready" => ready(database, context).await,
        _ => health().await,
    }
}

/// 200.
#[utoipa::path(
    get,
    path = "/health",
    operation_id = "getHealth",
    tag = "about",
    summary = "Liveness",
    description = "Whether the API runs. Does not use the database.",
    responses((status = 200, description = "The API runs.", body = Health))
)]
pub async fn health() -> Result<Response<Body>, ApiError> {
    Ok(uncached(&Health { status: "healthy" }))
}

/// 200; 503 if the database does not respond.
#[utoipa::path(
    get,
    path = "/ready",
    operation_id = "getReadiness",
    tag = "about",
    summary = "Readiness",
    description = "Whether the database responds. Resumes it if it is paused.",
    responses(
        (status = 200, description = "The API and its database run.", body = Readiness),
        (status = 503, response = problem::Unavailable),
    )
)]
pub async fn ready(database: &Database, context: Context) -> Result<Response<Body>, ApiError> {
    context.caller()?;
    database.ping().await?;
    Ok(uncached(&Readiness { status: "ready" }))
}

/// A cached response would report an old state.
fn uncached(body: &impl Serialize) -> Response<Body> {
    let mut response = http::json(StatusCode::OK, body);
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, no_store);
    response
}
