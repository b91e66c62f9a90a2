//! `GET /tasks/{id}`.

use lambda_http::{Body, Response};
use shared::{
    domain::{Task, TaskId},
    http::{self, ApiError, Context, problem},
    store::{Database, tasks},
};

/// 200 with the task; 304 if the client's version is current; 404, 422.
#[utoipa::path(
    get,
    path = "/tasks/{id}",
    operation_id = "getTask",
    tag = "tasks",
    summary = "Get a task",
    params(
        ("id" = inline(TaskId), Path, description = "The task's id."),
        ("If-None-Match" = Option<String>, Header, nullable = false,
            description = "Return 304 if the task's `ETag` is one of these, like `\"1\"`."),
    ),
    responses(
        (status = 200, description = "The task.", body = Task,
            headers(("ETag" = String, description = "The version of the task."))),
        (status = 304, description = "The task has not changed.",
            headers(("ETag" = String, description = "The version of the task."))),
        (status = 404, response = problem::NoSuchTask),
        (status = 422, response = problem::Invalid),
        (status = 503, response = problem::Unavailable),
    )
)]
pub async fn handle(database: &Database, context: Context) -> Result<Response<Body>, ApiError> {
    let caller = context.caller()?;
    let id = http::task_id(&context.request)?;
    let access = caller.access();
    let task = database.run(&tasks::Find { id, access }).await?;
    let task = task.ok_or(ApiError::NoSuchTask(id))?;
    Ok(http::task_or_not_modified(&context.request, &task))
}
