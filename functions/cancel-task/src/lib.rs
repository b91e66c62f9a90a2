//! `POST /tasks/{id}/cancel`: a task that has not ended never will.

use lambda_http::{Body, Response, http::StatusCode};
use shared::{
    domain::{Task, TaskId},
    http::{self, ApiError, Context, problem},
    store::{
        Database,
        tasks::{self, CancelOutcome},
    },
};

/// 200 with the cancelled task; 404, 409 if it is completed or failed, 412 if `If-Match` does not
/// match, 422.
///
/// Nothing is sent to SQS: the task's message is deleted when it is received.
#[utoipa::path(
    post,
    path = "/tasks/{id}/cancel",
    operation_id = "cancelTask",
    tag = "tasks",
    summary = "Cancel a task",
    description = "A waiting task is never processed. The outcome of an attempt in progress is discarded. \
                   To cancel a cancelled task changes nothing. `POST /tasks/{id}/process` starts it anew.",
    params(
        ("id" = inline(TaskId), Path, description = "The task's id."),
        ("If-Match" = Option<String>, Header, nullable = false,
            description = "Cancel the task only if its `ETag` is one of these, like `\"1\"`; `*` for any."),
    ),
    responses(
        (status = 200, description = "The cancelled task.", body = Task,
            headers(("ETag" = String, description = "The version of the task.")),
            links(
                ("getTask" = (operation_id = "getTask", parameters(("id" = "$response.body#/id")))),
                ("processTask" = (operation_id = "processTask", parameters(("id" = "$response.body#/id")))),
                ("deleteTask" = (operation_id = "deleteTask", parameters(("id" = "$response.body#/id")))),
            )),
        (status = 404, response = problem::NoSuchTask),
        (status = 409, response = problem::Settled),
        (status = 412, response = problem::Stale),
        (status = 422, response = problem::Invalid),
        (status = 503, response = problem::Unavailable),
    )
)]
pub async fn handle(database: &Database, context: Context) -> Result<Response<Body>, ApiError> {
    let caller = context.caller()?;
    let id = http::task_id(&context.request)?;
    let versions = http::if_match(&context.request);
    let cancel = tasks::Cancel {
        id,
        versions: versions.as_deref(),
        access: caller.access(),
    };
    match database.run(&cancel).await? {
        CancelOutcome::Cancelled(task) => Ok(http::task(StatusCode::OK, &task)),
        CancelOutcome::Settled(status) => Err(ApiError::Settled(id, status)),
        CancelOutcome::Stale => Err(ApiError::Stale(id)),
        CancelOutcome::NotFound => Err(ApiError::NoSuchTask(id)),
    }
}
