//! `DELETE /tasks/{id}`.

use lambda_http::{Body, Request, Response, http::StatusCode};
use serde_json::json;
use shared::{
    http::{self, ApiError},
    store::{
        Database,
        tasks::{self, Change},
    },
};

/// 200 with a confirmation; 404 (also for the second of two deletes), 412 if the task is not as `If-Match`
/// demands, 422.
pub async fn handle(database: &Database, request: Request) -> Result<Response<Body>, ApiError> {
    let id = http::task_id(&request)?;
    let versions = http::if_match(&request);
    let delete = tasks::Delete {
        id,
        versions: versions.as_deref(),
    };
    match database.run(&delete).await? {
        Change::Done(()) => {
            let body = json!({"message": format!("Task {id} deleted successfully"), "task_id": id});
            Ok(http::json(StatusCode::OK, &body))
        }
        Change::Stale => Err(ApiError::Stale(id)),
        Change::NotFound => Err(ApiError::NoSuchTask(id)),
    }
}
