//! `PUT` and `PATCH /tasks/{id}`: changes the members that were sent and nothing else.

use lambda_http::{Body, Request, Response, http::StatusCode};
use shared::{
    domain::TaskPatch,
    http::{self, ApiError},
    store::{
        Database,
        tasks::{self, Change},
    },
};

/// 200 with the task as it is now; 400, 404, 412 if it is not as `If-Match` demands, 413, 415, 422.
pub async fn handle(database: &Database, request: Request) -> Result<Response<Body>, ApiError> {
    let id = http::task_id(&request)?;
    let patch: TaskPatch = http::json_body(&request)?;
    let versions = http::if_match(&request);
    let update = tasks::Update {
        id,
        patch: &patch,
        versions: versions.as_deref(),
    };
    match database.run(&update).await? {
        Change::Done(task) => Ok(http::task(StatusCode::OK, &task)),
        Change::Stale => Err(ApiError::Stale(id)),
        Change::NotFound => Err(ApiError::NoSuchTask(id)),
    }
}
