//! `DELETE /tasks/{id}`.

use lambda_http::{Body, Response, http::StatusCode};
use shared::{
    domain::TaskId,
    http::{self, ApiError, Confirmation, Context, problem},
    store::{
        Database,
        tasks::{self, Change},
    },
};

/// 200 with a confirmation; 404 (also for the second of two deletes), 412 if `If-Match` does not
/// match, 422.
#[utoipa::path(
    delete,
    path = "/tasks/{id}",
    operation_id = "deleteTask",
    tag = "tasks",
    summary = "Delete a task",
    params(
        ("id" = inline(TaskId), Path, description = "The task's id."),
        ("If-Match" = Option<String>, Header, nullable = false,
            description = "Delete the task only if its `ETag` is one of these, like `\"1\"`; `*` for any."),
    ),
    responses(
        (status = 200, description = "The task was deleted.", body = Confirmation,
            example = json!({"message": "Task 7 deleted successfully", "task_id": 7})),
        (status = 404, response = problem::NoSuchTask),
        (status = 412, response = problem::Stale),
        (status = 422, response = problem::Invalid),
        (status = 503, response = problem::Unavailable),
    )
)]
pub async fn handle(database: &Database, context: Context) -> Result<Response<Body>, ApiError> {
    let caller = context.caller()?;
    let id = http::task_id(&context.request)?;
    let versions = http::if_match(&context.request);
    let delete = tasks::Delete {
        id,
        versions: versions.as_deref(),
        access: caller.access(),
    };
    match database.run(&delete).await? {
        Change::Done(()) => {
            let body = Confirmation {
                message: format!("Task {id} deleted successfully"),
                task_id: id,
            };
            Ok(http::json(StatusCode::OK, &body))
        }
        Change::Stale => Err(ApiError::Stale(id)),
        Change::Leased => Err(ApiError::Processing(id)),
        Change::NotFound => Err(ApiError::NoSuchTask(id)),
    }
}
