//! `GET /admin/tasks/{id}`: a task, and what it has been through.

use lambda_http::{Body, Request, Response, http::StatusCode};
use serde_json::{Value, json};
use shared::{
    domain::{Status, Task},
    http::{self, ApiError},
    store::{
        Database,
        operating::{FindTimes, Times},
        tasks,
    },
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// 200 with the task and its `timeline`; 404, 422.
pub async fn handle(database: &Database, request: Request) -> Result<Response<Body>, ApiError> {
    let id = http::task_id(&request)?;
    let task = database.run(&tasks::Find(id)).await?.ok_or(ApiError::NoSuchTask(id))?;
    let times = database.run(&FindTimes(id)).await?.ok_or(ApiError::NoSuchTask(id))?;
    let timeline = timeline(&task, &times);
    let mut body = serde_json::to_value(task).expect("a task always serialises");
    body["timeline"] = timeline;
    Ok(http::json(StatusCode::OK, &body))
}

/// What happened when, in the order of time.
fn timeline(task: &Task, times: &Times) -> Value {
    let settled = match task.status {
        Status::Failed => "failed",
        _ => "completed",
    };
    let again = (times.requested_at > times.created_at).then_some(times.requested_at);
    let mut events: Vec<(OffsetDateTime, &str)> = [
        (Some(times.created_at), "created"),
        (again, "requested"),
        (times.enqueued_at, "enqueued"),
        (times.started_at, "claimed"),
        (times.settled_at, settled),
    ]
    .into_iter()
    .filter_map(|(at, event)| Some((at?, event)))
    .collect();
    events.sort_by_key(|(at, _)| *at);
    let text = |at: OffsetDateTime| {
        at.format(&Rfc3339)
            .expect("Postgres's times have a year of four digits")
    };
    events
        .into_iter()
        .map(|(at, event)| json!({"at": text(at), "event": event}))
        .collect()
}
