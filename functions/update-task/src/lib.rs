//! `PUT` and `PATCH /tasks/{id}`: changes only the members that are present.

use lambda_http::{Body, Response, http::StatusCode};
use shared::{
    domain::{Task, TaskId, TaskPatch},
    http::{self, ApiError, Context, problem},
    store::{
        Database,
        tasks::{self, Change},
    },
};

/// 200 with the updated task; 400, 404, 409 if `run_at` is set while a worker holds the lease, 412 if `If-Match` does not match, 413, 415, 422.
#[utoipa::path(
    method(put, patch),
    path = "/tasks/{id}",
    operation_id = "putTask",
    tag = "tasks",
    summary = "Change a task",
    description = "Changes only the members that are present. A status that is set here remains until the task is \
                   processed again; the outcome of an attempt in progress is discarded. `run_at` schedules the task anew.",
    params(
        ("id" = inline(TaskId), Path, description = "The task's id."),
        ("If-Match" = Option<String>, Header, nullable = false,
            description = "Change the task only if its `ETag` is one of these, like `\"1\"`; `*` for any."),
    ),
    request_body = TaskPatch,
    responses(
        (status = 200, description = "The updated task.", body = Task,
            headers(("ETag" = String, description = "The new version of the task.")),
            links(
                ("getTask" = (operation_id = "getTask", parameters(("id" = "$response.body#/id")))),
                ("getTaskHistory" = (operation_id = "getTaskHistory", parameters(("id" = "$response.body#/id")))),
                ("deleteTask" = (operation_id = "deleteTask", parameters(("id" = "$response.body#/id")))),
            )),
        (status = 400, response = problem::NotJson),
        (status = 404, response = problem::NoSuchTask),
        (status = 409, response = problem::Processing),
        (status = 412, response = problem::Stale),
        (status = 413, response = problem::TooLarge),
        (status = 415, response = problem::UnsupportedMediaType),
        (status = 422, response = problem::Invalid),
        (status = 503, response = problem::Unavailable),
    )
)]
pub async fn handle(database: &Database, context: Context) -> Result<Response<Body>, ApiError> {
    let caller = context.caller()?;
    let id = http::task_id(&context.request)?;
    let patch: TaskPatch = http::json_body(&context.request)?;
    let versions = http::if_match(&context.request);
    let update = tasks::Update {
        id,
        patch: &patch,
        versions: versions.as_deref(),
        access: caller.access(),
    };
    match database.run(&update).await? {
        Change::Done(task) => Ok(http::task(StatusCode::OK, &task)),
        Change::Stale => Err(ApiError::Stale(id)),
        Change::Leased => Err(ApiError::Processing(id)),
        Change::NotFound => Err(ApiError::NoSuchTask(id)),
    }
}
