//! `PUT` and `PATCH /tasks/{id}`: changes the members that were sent and nothing else.

use lambda_http::{Body, Request, Response, http::StatusCode};
use shared::{
    domain::TaskPatch,
    http::{self, ApiError},
    store::{Database, tasks},
};

/// 200 with the task as it is now; 400, 404, 413, 415, 422.
pub async fn handle(database: &Database, request: Request) -> Result<Response<Body>, ApiError> {
    let id = http::task_id(&request)?;
    let patch: TaskPatch = http::json_body(&request)?;
    // Nothing sent, nothing changed: `updated_at` stays too.
    let task = if patch.is_empty() {
        database.run(&tasks::Find(id)).await?
    } else {
        database.run(&tasks::Update { id, patch: &patch }).await?
    };
    let task = task.ok_or(ApiError::NoSuchTask(id))?;
    Ok(http::json(StatusCode::OK, &task))
}
