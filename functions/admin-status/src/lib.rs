//! `GET /admin/status`: how the whole is doing.

use lambda_http::{Body, Request, Response, http::StatusCode};
use queue::{Depth, QueueError, TaskQueue};
use serde_json::{Value, json};
use shared::{
    http::{self, ApiError},
    store::{Database, operating::Overview},
    telemetry,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// 200 with the status. When SQS is down the depths of its queues are null, and `problems` says so.
pub async fn handle(
    database: &Database,
    queue: &TaskQueue,
    dead_letter_queue: &TaskQueue,
    _: Request,
) -> Result<Response<Body>, ApiError> {
    let (overview, depth, dead) = tokio::join!(database.run(&Overview), queue.depth(), dead_letter_queue.depth());
    let mut problems = Vec::new();
    let mut status = overview?;
    status["queue"] = depth_or_problem(depth, "the task queue", &mut problems);
    status["dead_letter_queue"] = depth_or_problem(dead, "the dead-letter queue", &mut problems);
    status["problems"] = json!(problems);
    let now = OffsetDateTime::now_utc().format(&Rfc3339);
    status["generated_at"] = json!(now.expect("the present is a year of four digits"));
    Ok(http::json(StatusCode::OK, &status))
}

fn depth_or_problem(depth: Result<Depth, QueueError>, what: &str, problems: &mut Vec<String>) -> Value {
    match depth {
        Ok(depth) => json!(depth),
        Err(error) => {
            telemetry::log_error(&error, "a queue's depth is unknown");
            problems.push(format!("SQS does not say how deep {what} is."));
            Value::Null
        }
    }
}
