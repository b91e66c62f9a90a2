//! `DELETE /tasks/{id}`.

use lambda_http::{Body, Request, Response, http::StatusCode};
use serde_json::json;
use shared::{
    http::{self, ApiError},
    store::{Database, tasks},
};

/// 200 with a confirmation; 404 (also for the second of two deletes), 422.
pub async fn handle(database: &Database, request: Request) -> Result<Response<Body>, ApiError> {
    let id = http::task_id(&request)?;
    if !database.run(&tasks::Delete(id)).await? {
        return Err(ApiError::NoSuchTask(id));
    }
    let body = json!({"message": format!("Task {id} deleted successfully"), "task_id": id});
    Ok(http::json(StatusCode::OK, &body))
}
