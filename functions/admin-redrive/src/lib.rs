//! `POST /admin/redrive`: sends what is in the dead-letter queue to work again.

use lambda_http::{Body, Request, Response, http::StatusCode};
use queue::{DeadLetterQueue, Redrive};
use serde_json::json;
use shared::http::{self, ApiError};

/// 202 with a confirmation; 503 if SQS is down. On AWS the messages are moved after the answer, by SQS itself.
pub async fn handle(queue: &DeadLetterQueue, _: Request) -> Result<Response<Body>, ApiError> {
    let redrive = queue.start_redrive(|_| ()).await;
    let message = match redrive.map_err(|error| ApiError::QueueUnavailable(error.into()))? {
        Redrive::Started { .. } => "SQS is sending the messages to the task queue again.".to_owned(),
        Redrive::Done(1) => "1 message was sent to the task queue again.".to_owned(),
        Redrive::Done(moved) => format!("{moved} messages were sent to the task queue again."),
    };
    Ok(http::json(StatusCode::ACCEPTED, &json!({ "message": message })))
}
