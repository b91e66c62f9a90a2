//! `PUT /admin/processing`: pauses and resumes processing.
//! `GET /admin/processing`: whether it is paused.

use lambda_http::{
    Body, Response,
    http::{Method, StatusCode},
};
use queue::{EventSourceMapping, MappingError};
use serde::Serialize;
use shared::{
    domain::ProcessingRequest,
    http::{self, ApiError, Context, problem},
    store::{Database, actions::RecordAction},
};
use utoipa::ToSchema;

/// Whether processing is paused.
#[derive(Serialize, ToSchema)]
pub struct Processing {
    /// True if messages wait in the queue.
    paused: bool,
    /// The state of the event source mapping: `Enabling`, `Enabled`, `Disabling`, `Disabled`, or
    /// another one of Lambda's.
    #[schema(example = "Disabling")]
    state: String,
}

/// Dispatches by method.
pub async fn handle(
    database: &Database,
    mapping: Option<&EventSourceMapping>,
    context: Context,
) -> Result<Response<Body>, ApiError> {
    match *context.request.method() {
        Method::PUT => set(database, mapping, context).await,
        _ => get(mapping, context).await,
    }
}

/// 200 with the state; 501, 503.
#[utoipa::path(
    get,
    path = "/admin/processing",
    operation_id = "getProcessing",
    tag = "operators",
    summary = "Whether processing is paused",
    responses(
        (status = 200, description = "The state of processing.", body = Processing),
        (status = 501, response = problem::NoEventSourceMapping),
        (status = 503, response = problem::Unavailable),
    )
)]
pub async fn get(mapping: Option<&EventSourceMapping>, context: Context) -> Result<Response<Body>, ApiError> {
    context.operator()?;
    let mapping = mapping.ok_or(ApiError::NoEventSourceMapping)?;
    let state = mapping.state().await.map_err(api_error)?;
    let processing = Processing {
        paused: state.is_paused(),
        state: state.name,
    };
    Ok(http::json(StatusCode::OK, &processing))
}

/// 200 with the new state, also if nothing changes; 400, 409, 413, 415, 422, 501, 503.
#[utoipa::path(
    put,
    path = "/admin/processing",
    operation_id = "setProcessing",
    tag = "operators",
    summary = "Pause or resume processing",
    description = "While processing is paused, messages wait in the task queue and tasks stay `pending`. Tasks that are \
                   being processed are completed. Lambda completes the change after the response; until then `state` \
                   is `Disabling`, `Enabling` or `Updating`.",
    request_body = ProcessingRequest,
    responses(
        (status = 200, description = "Processing is paused or resumed.", body = Processing),
        (status = 400, response = problem::NotJson),
        (status = 409, response = problem::ProcessingChanging),
        (status = 413, response = problem::TooLarge),
        (status = 415, response = problem::UnsupportedMediaType),
        (status = 422, response = problem::Invalid),
        (status = 501, response = problem::NoEventSourceMapping),
        (status = 503, response = problem::Unavailable),
    )
)]
pub async fn set(
    database: &Database,
    mapping: Option<&EventSourceMapping>,
    context: Context,
) -> Result<Response<Body>, ApiError> {
    let operator = &context.operator()?.subject;
    let ProcessingRequest { paused } = http::json_body(&context.request)?;
    let mapping = mapping.ok_or(ApiError::NoEventSourceMapping)?;
    let action = RecordAction {
        operator,
        action: if paused { "pause" } else { "resume" },
        count: None,
    };
    // Before the change: otherwise one whose response is lost, or that Postgres does not record,
    // would be unrecorded. Instead, one that Lambda refuses is recorded as well.
    database.run(&action).await?;
    let state = mapping.set_enabled(!paused).await.map_err(api_error)?;
    // As requested: Lambda may still report `Updating`.
    let processing = Processing {
        paused,
        state: state.name,
    };
    Ok(http::json(StatusCode::OK, &processing))
}

fn api_error(error: MappingError) -> ApiError {
    match error {
        MappingError::Changing(_) => ApiError::ProcessingChanging,
        error => ApiError::LambdaUnavailable(error.into()),
    }
}
