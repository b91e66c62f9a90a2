//! `POST /admin/redrive`: sends what is in the dead-letter queue to work again.

use lambda_http::{Body, Response, http::StatusCode};
use queue::{DeadLetterQueue, Redrive};
use serde::Serialize;
use shared::http::{self, ApiError, Context, problem};
use utoipa::ToSchema;

/// Says what happens with the messages.
#[derive(Serialize, ToSchema)]
pub struct Redriven {
    /// For a person.
    #[schema(example = "2 messages were sent to the task queue again.")]
    message: String,
}

/// 202 with a confirmation; 503 if SQS is down. On AWS the messages are moved after the answer, by SQS itself.
#[utoipa::path(
    post,
    path = "/admin/redrive",
    operation_id = "redriveDeadLetters",
    tag = "operators",
    summary = "Send the dead-letter queue to work again",
    responses(
        (status = 202, description = "The messages go back to the task queue.", body = Redriven),
        (status = 503, response = problem::Unavailable),
    )
)]
pub async fn handle(queue: &DeadLetterQueue, context: Context) -> Result<Response<Body>, ApiError> {
    context.admin()?;
    let redrive = queue.start_redrive(|_| ()).await;
    let message = match redrive.map_err(|error| ApiError::QueueUnavailable(error.into()))? {
        Redrive::Started { .. } => "SQS is sending the messages to the task queue again.".to_owned(),
        Redrive::Done(1) => "1 message was sent to the task queue again.".to_owned(),
        Redrive::Done(moved) => format!("{moved} messages were sent to the task queue again."),
    };
    Ok(http::json(StatusCode::ACCEPTED, &Redriven { message }))
}
