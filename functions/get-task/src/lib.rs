//! `GET /tasks/{id}`: one task.

use lambda_http::{Body, Request, Response};
use shared::{
    http::{self, ApiError},
    store::{Database, tasks},
};

/// 200 with the task; 304 if the client has it already; 404, 422.
pub async fn handle(database: &Database, request: Request) -> Result<Response<Body>, ApiError> {
    let id = http::task_id(&request)?;
    let task = database.run(&tasks::Find(id)).await?.ok_or(ApiError::NoSuchTask(id))?;
    Ok(http::task_unless_known(&request, &task))
}
