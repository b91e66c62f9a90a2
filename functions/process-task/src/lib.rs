//! `POST /tasks/{id}/process`: processes a task again.

use lambda_http::{Body, Request, Response, http::StatusCode};
use queue::TaskQueue;
use serde_json::json;
use shared::{
    http::{self, ApiError},
    store::{
        Database,
        tasks::{self, ResetOutcome},
    },
};

/// 202 with a confirmation; 404, 409 while a worker holds the task, 422.
///
/// The task is made pending before the message is sent, so that a fast worker finds it so.
pub async fn handle(database: &Database, queue: &TaskQueue, request: Request) -> Result<Response<Body>, ApiError> {
    let id = http::task_id(&request)?;
    match database.run(&tasks::Reset(id)).await? {
        ResetOutcome::Done => queue::enqueue(database, queue, id).await,
        ResetOutcome::Processing => return Err(ApiError::Processing(id)),
        ResetOutcome::NotFound => return Err(ApiError::NoSuchTask(id)),
    }
    let body = json!({"message": format!("Task {id} queued for processing"), "task_id": id});
    Ok(http::json(StatusCode::ACCEPTED, &body))
}
