//! `GET /admin/status`: the system status.

use lambda_http::{Body, Response, http::StatusCode};
use queue::{Depth, MappingError, QueueError, TaskQueue};
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

/// The status of the system.
#[derive(Serialize, ToSchema)]
pub struct SystemStatus {
    #[serde(flatten)]
    overview: Overview,
    /// The task queue; null if SQS is unavailable.
    #[schema(required)]
    queue: Option<Depth>,
    /// The dead-letter queue; null if SQS is unavailable.
    #[schema(required)]
    dead_letter_queue: Option<Depth>,
    /// Whether processing is paused; null if Lambda is unavailable, or the environment has no event
    /// source mapping.
    #[schema(required)]
    paused: Option<bool>,
    /// Human-readable explanations of missing data, and the failure of the last redrive.
    problems: Vec<String>,
    /// When the status was determined (RFC 3339, UTC).
    #[serde(with = "time::serde::rfc3339")]
    generated_at: OffsetDateTime,
}

/// 200 with the status. If SQS is unavailable, the queue depths are null and `problems` explains
/// why; likewise `paused` if Lambda is. A redrive that failed after it was accepted is in
/// `problems` as well.
#[utoipa::path(
    get,
    path = "/admin/status",
    operation_id = "getStatus",
    tag = "operators",
    summary = "System status",
    description = "Tasks by status, activity in the last 30 minutes, queue depths, whether processing is paused, \
                   the latest tasks and failures.",
    responses(
        (status = 200, description = "The status; partial if SQS or Lambda is unavailable: see `problems`.", body = SystemStatus),
        (status = 503, response = problem::Unavailable),
    )
)]
pub async fn handle(
    database: &Database,
    queue: &TaskQueue,
    dead_letter_queue: &TaskQueue,
    context: Context,
) -> Result<Response<Body>, ApiError> {
    context.operator()?;
    let (overview, depth, dead, failed_redrive, paused) = tokio::join!(
        database.run(&ReadOverview),
        queue.depth(),
        dead_letter_queue.depth(),
        dead_letter_queue.failed_redrive(),
        queue.is_paused(),
    );
    let mut problems = Vec::new();
    match failed_redrive {
        Ok(None) => {}
        Ok(Some(reason)) => problems.push(format!("The last redrive failed {reason}.")),
        Err(error) => telemetry::log_error(&error, "state of the last redrive unavailable"),
    }
    let status = SystemStatus {
        overview: overview?,
        queue: depth_or_problem(depth, "the task queue", &mut problems),
        dead_letter_queue: depth_or_problem(dead, "the dead-letter queue", &mut problems),
        paused: paused_or_problem(paused, &mut problems),
        problems,
        generated_at: OffsetDateTime::now_utc(),
    };
    Ok(http::json(StatusCode::OK, &status))
}

fn paused_or_problem(paused: Result<Option<bool>, MappingError>, problems: &mut Vec<String>) -> Option<bool> {
    paused.unwrap_or_else(|error| {
        telemetry::log_error(&error, "state of the event source mapping unavailable");
        problems.push("Whether processing is paused is unknown: Lambda did not report it.".to_owned());
        None
    })
}

fn depth_or_problem(depth: Result<Depth, QueueError>, queue: &str, problems: &mut Vec<String>) -> Option<Depth> {
    depth
        .inspect_err(|error| {
            telemetry::log_error(error, "queue depth unavailable");
            problems.push(format!("The depth of {queue} is unknown: SQS did not report it."));
        })
        .ok()
}
