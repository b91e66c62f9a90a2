//! The outbox: a task's row records whether its message was sent.

use std::error::Error;

use time::OffsetDateTime;
use tracing::Span;

use super::{Database, tasks::MarkEnqueued};
use crate::{domain::TaskId, telemetry};

/// Sends the message of a stored task with `send`, and marks the task as enqueued, if it is still to run
/// at that time. (The SQS client is not part of this crate.)
///
/// Never fails: the task is stored, and while its `enqueued_at` is null, the reconciler will send
/// its message.
pub async fn enqueue<E: Error>(
    database: &Database,
    id: TaskId,
    run_at: Option<OffsetDateTime>,
    send: impl Future<Output = Result<(), E>>,
) {
    Span::current().record("taskId", id.get());
    if let Err(error) = send.await {
        return telemetry::log_error(&error, "task stored but not enqueued");
    }
    if let Err(error) = database.run(&MarkEnqueued { id, run_at }).await {
        telemetry::log_error(
            &error,
            "task enqueued but not marked as such; its message may be sent twice",
        );
    }
}
