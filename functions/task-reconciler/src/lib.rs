//! Closes the gap between Postgres and SQS: a task row is its own outbox.
//!
//! create-task stores a task and then sends its message; if SQS is unavailable, or the function
//! dies in between, the task has no message. A message can also be lost later, with the queue or in
//! the dead-letter queue. Each sweep finds such tasks and re-sends their messages. A duplicate
//! message is harmless: the task-processor's claim gives each task to one worker at a time. A task
//! whose attempts never report an outcome is not re-sent indefinitely: after the maximum number of
//! attempts it becomes `failed`.
//!
//! A sweep also deletes expired idempotency keys.

use std::time::Duration;

use confique::Config;
use lambda_runtime::Diagnostic;
use queue::TaskQueue;
use serde::Serialize;
use shared::{
    store::{
        Database, StoreError,
        idempotency::DeleteExpired,
        reconciling::{ClearEnqueued, CountDue, Due, TakeDue},
    },
    telemetry,
    trace::TraceHeader,
};

/// The minimum age of a task without a message: longer than create-task may run.
const UNSENT_AFTER: Duration = Duration::from_secs(10);

/// The function's settings.
#[derive(Config)]
pub struct Settings {
    /// After how many seconds a message counts as lost: longer than the queue's retry window, which
    /// is the visibility timeout times maxReceiveCount.
    #[config(env = "LOST_AFTER_SECONDS")]
    pub lost_after_seconds: u64,
    /// After how many attempts a task is discarded as `failed`: more than maxReceiveCount, so that
    /// the task-processor normally fails the task first, with a reason.
    #[config(env = "MAX_ATTEMPTS")]
    pub max_attempts: i32,
    /// The maximum number of tasks, and of expired keys, that a sweep handles; the next sweep
    /// continues.
    #[config(env = "SWEEP_LIMIT", default = 1000)]
    pub sweep_limit: i64,
}

/// The result of a sweep.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct SweepReport {
    /// Messages that SQS accepted.
    pub sent: usize,
    /// Messages that SQS did not accept; the next sweep retries.
    pub refused: usize,
    /// Tasks that became `failed` after the maximum number of attempts.
    pub given_up: usize,
    /// Tasks that are due, but were not handled.
    pub left: i64,
    /// Expired idempotency keys that were deleted.
    pub expired_keys: u64,
}

/// The database was unavailable. Tasks that were taken before the failure are re-sent when they
/// count as lost again.
#[derive(Debug, thiserror::Error)]
#[error("the sweep could not be finished")]
pub struct SweepError(#[from] StoreError);

impl From<SweepError> for Diagnostic {
    fn from(error: SweepError) -> Self {
        telemetry::diagnostic("SweepError", &error)
    }
}

/// Sends the missing messages, in batches, until none is missing, the limit is reached, or SQS
/// refuses.
///
/// The messages belong to the trace of the sweep: that of the original request is not stored.
#[tracing::instrument(name = "sweep", skip_all, fields(traceId = trace.map(TraceHeader::trace_id)))]
pub async fn sweep(
    database: &Database,
    queue: &TaskQueue,
    settings: &Settings,
    trace: Option<&TraceHeader>,
) -> Result<SweepReport, SweepError> {
    let due = Due {
        unsent_after: UNSENT_AFTER,
        lost_after: Duration::from_secs(settings.lost_after_seconds),
    };
    let mut report = SweepReport::default();
    let mut budget = settings.sweep_limit;
    while budget > 0 && report.refused == 0 {
        let take = TakeDue {
            due,
            max_attempts: settings.max_attempts,
            limit: budget.min(TaskQueue::MAX_BATCH as i64),
        };
        let taken = database.run(&take).await?;
        let count = taken.to_send.len() + taken.discarded.len();
        if count == 0 {
            break;
        }
        budget -= count as i64;
        for id in &taken.discarded {
            tracing::warn!(taskId = id.get(), "task discarded: no attempt reported an outcome");
        }
        report.given_up += taken.discarded.len();
        let refused = queue.send_batch(&taken.to_send, trace).await;
        if !refused.is_empty() {
            database.run(&ClearEnqueued(&refused)).await?;
        }
        report.sent += taken.to_send.len() - refused.len();
        report.refused += refused.len();
    }
    report.left = database.run(&CountDue(due)).await?;
    let limit = settings.sweep_limit;
    report.expired_keys = database.run(&DeleteExpired { limit }).await?;
    tracing::info!(?report, "sweep done");
    Ok(report)
}
