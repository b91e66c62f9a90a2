//! `GET /admin/tasks/{id}`: a task, its timeline and its attempts.

use lambda_http::{Body, Response, http::StatusCode};
use serde::Serialize;
use shared::{
    domain::{Status, StoredStatus, Task, TaskId},
    http::{self, ApiError, Context, problem},
    store::{
        Database,
        operating::{Attempt, FindHistory, History},
    },
};
use time::OffsetDateTime;
use utoipa::ToSchema;

/// A task, its timeline and its attempts.
#[derive(Serialize, ToSchema)]
pub struct TaskHistory {
    #[serde(flatten)]
    task: Task,
    /// The subject of the user who created it; null for tasks that are older than this member.
    #[schema(required, example = "alice")]
    created_by: Option<String>,
    /// Its events in chronological order; of a repeated event, only the latest.
    timeline: Vec<TimelineEntry>,
    /// The last ten attempts to process it, oldest first. Numbers start again when it is queued again.
    #[schema(max_items = 10)]
    recent_attempts: Vec<Attempt>,
}

/// An event with its time.
#[derive(Serialize, ToSchema)]
struct TimelineEntry {
    /// When it happened (RFC 3339, UTC).
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
    /// The event.
    event: Event,
}

/// An event in the lifecycle of a task.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Event {
    /// The task was stored.
    Created,
    /// A client queued it again.
    Requested,
    /// SQS accepted its message.
    Enqueued,
    /// The time that it is, or was, scheduled for.
    Scheduled,
    /// A worker claimed it.
    Claimed,
    /// It was completed.
    Completed,
    /// It failed.
    Failed,
    /// A client cancelled it.
    Cancelled,
}

/// 200 with the task, its timeline and its attempts; 404, 422.
#[utoipa::path(
    get,
    path = "/admin/tasks/{id}",
    operation_id = "getTaskHistory",
    tag = "operators",
    summary = "A task, its timeline and its attempts",
    params(("id" = inline(TaskId), Path, description = "The task's id.")),
    responses(
        (status = 200, description = "The task, its timeline and its attempts.", body = TaskHistory),
        (status = 404, response = problem::NoSuchTask),
        (status = 422, response = problem::Invalid),
        (status = 503, response = problem::Unavailable),
    )
)]
pub async fn handle(database: &Database, context: Context) -> Result<Response<Body>, ApiError> {
    context.operator()?;
    let id = http::task_id(&context.request)?;
    let history = database.run(&FindHistory(id)).await?;
    let history = history.ok_or(ApiError::NoSuchTask(id))?;
    let body = TaskHistory {
        timeline: timeline(&history),
        task: history.task,
        created_by: history.created_by,
        recent_attempts: history.attempts,
    };
    Ok(http::json(StatusCode::OK, &body))
}

fn timeline(history: &History) -> Vec<TimelineEntry> {
    let created_at = history.task.created_at;
    let settled = match history.task.status {
        StoredStatus::Known(Status::Failed) => Some(Event::Failed),
        StoredStatus::Known(Status::Cancelled) => Some(Event::Cancelled),
        StoredStatus::Known(_) => Some(Event::Completed),
        // This version does not know in which way the task was settled.
        StoredStatus::Unknown(_) => None,
    };
    // A task that was settled before did not wait for it.
    let is_reached = |run_at: &OffsetDateTime| history.settled_at.is_none_or(|settled_at| *run_at <= settled_at);
    let run_at = history.task.run_at.filter(is_reached);
    let again = (history.requested_at > created_at).then_some(history.requested_at);
    let mut timeline: Vec<TimelineEntry> = [
        (Some(created_at), Some(Event::Created)),
        (again, Some(Event::Requested)),
        (history.enqueued_at, Some(Event::Enqueued)),
        (run_at, Some(Event::Scheduled)),
        (
            history.attempts.last().map(|attempt| attempt.started_at),
            Some(Event::Claimed),
        ),
        (history.settled_at, settled),
    ]
    .into_iter()
    .filter_map(|(at, event)| Some(TimelineEntry { at: at?, event: event? }))
    .collect();
    timeline.sort_by_key(|entry| entry.at);
    timeline
}
