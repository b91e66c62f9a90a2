//! `POST /tasks/{id}/process`: processes a task again.

use lambda_http::{Body, Response, http::StatusCode};
use queue::TaskQueue;
use shared::{
    domain::TaskId,
    http::{self, ApiError, Confirmation, Context, problem},
    store::{
        Database, outbox,
        tasks::{self, ResetOutcome},
    },
};

/// 202 with a confirmation; 404, 409 while a worker holds the lease, 422.
///
/// The task is reset before its message is sent: a fast worker would otherwise find it completed or
/// failed.
#[utoipa::path(
    post,
    path = "/tasks/{id}/process",
    operation_id = "processTask",
    tag = "tasks",
    summary = "Process a task again",
    description = "Resets the task to `pending` and enqueues its message. `result` is null until the task is settled again. \
                   A scheduled task runs now.",
    params(("id" = inline(TaskId), Path, description = "The task's id.")),
    responses(
        (status = 202, description = "The task was queued.", body = Confirmation,
            links(
                ("getTask" = (operation_id = "getTask", parameters(("id" = "$response.body#/task_id")))),
                ("getTaskHistory" = (operation_id = "getTaskHistory", parameters(("id" = "$response.body#/task_id")))),
                ("deleteTask" = (operation_id = "deleteTask", parameters(("id" = "$response.body#/task_id")))),
            ),
            example = json!({"message": "Task 7 queued for processing", "task_id": 7})),
        (status = 404, response = problem::NoSuchTask),
        (status = 409, response = problem::Processing),
        (status = 422, response = problem::Invalid),
        (status = 503, response = problem::Unavailable),
    )
)]
pub async fn handle(database: &Database, queue: &TaskQueue, context: Context) -> Result<Response<Body>, ApiError> {
    let caller = context.caller()?;
    let id = http::task_id(&context.request)?;
    let access = caller.access();
    match database.run(&tasks::Reset { id, access }).await? {
        ResetOutcome::Done => outbox::enqueue(database, id, None, queue.send(id, 0, context.trace())).await,
        ResetOutcome::Processing => return Err(ApiError::Processing(id)),
        ResetOutcome::NotFound => return Err(ApiError::NoSuchTask(id)),
    }
    let body = Confirmation {
        message: format!("Task {id} queued for processing"),
        task_id: id,
    };
    Ok(http::json(StatusCode::ACCEPTED, &body))
}
