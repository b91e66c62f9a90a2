//! `GET /admin/status`: how the whole is doing.

use lambda_http::{Body, Response, http::StatusCode};
use queue::{Depth, QueueError, TaskQueue};
use serde::Serialize;
use shared::{
    http::{self, ApiError, Context, problem},
    store::{
        Database,
        operating::{Overview, ReadOverview},
    },
    telemetry,
};
use time::OffsetDateTime;
use utoipa::ToSchema;

/// How the whole is doing.
#[derive(Serialize, ToSchema)]
pub struct SystemStatus {
    #[serde(flatten)]
    overview: Overview,
    /// The task queue; null if SQS is down.
    #[schema(required)]
    queue: Option<Depth>,
    /// The dead-letter queue; null if SQS is down.
    #[schema(required)]
    dead_letter_queue: Option<Depth>,
    /// What could not be found out, for a person.
    problems: Vec<String>,
    /// When this was so (RFC 3339, UTC).
    #[serde(with = "time::serde::rfc3339")]
    generated_at: OffsetDateTime,
}

/// 200 with the status. When SQS is down the depths of its queues are null, and `problems` says so.
#[utoipa::path(
    get,
    path = "/admin/status",
    operation_id = "getStatus",
    tag = "operators",
    summary = "How the whole is doing",
    description = "Tasks by status, the last 30 minutes, the depths of the queues, the last tasks and failures.",
    responses(
        (status = 200, description = "The status. Without SQS it is partial: `problems` says so.", body = SystemStatus),
        (status = 503, response = problem::Unavailable),
    )
)]
pub async fn handle(
    database: &Database,
    queue: &TaskQueue,
    dead_letter_queue: &TaskQueue,
    context: Context,
) -> Result<Response<Body>, ApiError> {
    context.admin()?;
    let (overview, depth, dead) = tokio::join!(database.run(&ReadOverview), queue.depth(), dead_letter_queue.depth());
    let mut problems = Vec::new();
    let status = SystemStatus {
        overview: overview?,
        queue: depth_or_problem(depth, "the task queue", &mut problems),
        dead_letter_queue: depth_or_problem(dead, "the dead-letter queue", &mut problems),
        problems,
        generated_at: OffsetDateTime::now_utc(),
    };
    Ok(http::json(StatusCode::OK, &status))
}

fn depth_or_problem(depth: Result<Depth, QueueError>, what: &str, problems: &mut Vec<String>) -> Option<Depth> {
    depth
        .inspect_err(|error| {
            telemetry::log_error(error, "a queue's depth is unknown");
            problems.push(format!("SQS does not say how deep {what} is."));
        })
        .ok()
}
