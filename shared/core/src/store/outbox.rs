//! The outbox: a task's row says whether the message about it has been sent.

use std::error::Error;

use tracing::Span;

use super::{Database, tasks::MarkEnqueued};
use crate::{domain::TaskId, telemetry};

/// Sends the message about a stored task, and notes that it was sent. `send` is the call of the queue, whose client is no
/// part of this crate.
///
/// Never fails: the task is safe in Postgres, and as long as its `enqueued_at` is null its message must still be sent.
pub async fn enqueue<E: Error>(database: &Database, id: TaskId, send: impl Future<Output = Result<(), E>>) {
    Span::current().record("taskId", id.get());
    if let Err(error) = send.await {
        return telemetry::log_error(&error, "stored, but not enqueued");
    }
    if let Err(error) = database.run(&MarkEnqueued(id)).await {
        telemetry::log_error(&error, "enqueued, but not marked so: it may be sent once more");
    }
}
