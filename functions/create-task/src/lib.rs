//! `POST /tasks`: stores a task and asks the task-processor to process it.

use lambda_http::{
    Body, Request, Response,
    http::{HeaderValue, StatusCode, header},
};
use queue::TaskQueue;
use shared::{
    domain::NewTask,
    http::{self, ApiError},
    store::{Database, tasks},
};

/// 201 with the task and its `Location`; 400, 413, 415, 422.
///
/// The task is stored before the message is sent. If SQS is down the client still gets its 201: the row
/// keeps `enqueued_at` null, which says that the message must still be sent.
pub async fn handle(database: &Database, queue: &TaskQueue, request: Request) -> Result<Response<Body>, ApiError> {
    let new: NewTask = http::json_body(&request)?;
    let task = database.run(&tasks::Insert(&new)).await?;
    queue::enqueue(database, queue, task.id).await;

    let mut response = http::json(StatusCode::CREATED, &task);
    // Relative to the request's own URL (RFC 3986, section 5.2), so that it holds behind any stage or domain.
    let location = HeaderValue::from_str(&format!("tasks/{}", task.id)).expect("digits are a header value");
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}
