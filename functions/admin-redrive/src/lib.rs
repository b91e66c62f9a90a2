//! `POST /admin/redrive`: moves the messages of the dead-letter queue back to the task queue.

use lambda_http::{Body, Response, http::StatusCode};
use queue::{DeadLetterQueue, Redrive};
use serde::Serialize;
use shared::{
    http::{self, ApiError, Context, problem},
    store::{Database, actions::RecordAction},
    telemetry,
};
use utoipa::ToSchema;

/// Confirms a redrive.
#[derive(Serialize, ToSchema)]
pub struct Redriven {
    /// A human-readable confirmation.
    #[schema(example = "2 messages were moved back to the task queue.")]
    message: String,
}

/// 202 with a confirmation, also if the action cannot be recorded; 409 if SQS is still moving the messages of an earlier request; 503 if
/// SQS is unavailable. On AWS, SQS itself moves the messages, after the response; `GET
/// /admin/status` reports if that fails.
#[utoipa::path(
    post,
    path = "/admin/redrive",
    operation_id = "redriveDeadLetters",
    tag = "operators",
    summary = "Redrive the dead-letter queue",
    responses(
        (status = 202, description = "The messages are moved back to the task queue.", body = Redriven),
        (status = 409, response = problem::RedriveRunning),
        (status = 503, response = problem::Unavailable),
    )
)]
pub async fn handle(
    database: &Database,
    queue: &DeadLetterQueue,
    context: Context,
) -> Result<Response<Body>, ApiError> {
    let operator = &context.operator()?.subject;
    let redrive = queue.start_redrive(|_| ()).await;
    let (count, message) = match redrive.map_err(|error| ApiError::QueueUnavailable(error.into()))? {
        Redrive::Started { .. } => (None, "SQS is moving the messages back to the task queue.".to_owned()),
        Redrive::Running { .. } => return Err(ApiError::RedriveRunning),
        Redrive::Done(1) => (Some(1), "1 message was moved back to the task queue.".to_owned()),
        Redrive::Done(moved) => (
            i64::try_from(moved).ok(),
            format!("{moved} messages were moved back to the task queue."),
        ),
    };
    let action = RecordAction {
        operator,
        action: "redrive",
        count,
    };
    // Too late to refuse the redrive: it has begun.
    if let Err(error) = database.run(&action).await {
        telemetry::log_error(&error, "redrive not recorded as an action");
    }
    Ok(http::json(StatusCode::ACCEPTED, &Redriven { message }))
}
