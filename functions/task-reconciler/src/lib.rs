//! Closes the gap between Postgres and SQS: a task row is its own outbox.
//!
//! create-task stores a task and then sends its message; when SQS is down, or the function dies in between,
//! the row remains without one. A message can also be lost later, with the queue or in the dead-letter queue.
//! Each sweep finds such tasks and sends their messages again. One message too many is harmless: the
//! task-processor's claim hands each task to one worker at a time. A task whose worker never lives to tell is not
//! sent for ever: it is given up as failed.
//!
//! A sweep also deletes idempotency keys that have expired.

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

/// How old a task without a message must be: longer than create-task may take.
const UNSENT_AFTER: Duration = Duration::from_secs(10);

/// What the reconciler must be told.
#[derive(Config)]
pub struct Settings {
    /// After how many seconds a message counts as lost: longer than the queue keeps trying, which is the
    /// visibility timeout times maxReceiveCount.
    #[config(env = "LOST_AFTER_SECONDS")]
    pub lost_after_seconds: u64,
    /// After how many attempts a task is given up: more than maxReceiveCount, so that the task-processor is the
    /// first to give up where it can.
    #[config(env = "MAX_ATTEMPTS")]
    pub max_attempts: i32,
    /// How many tasks, and how many expired keys, a sweep handles at the most; the next one goes on.
    #[config(env = "SWEEP_LIMIT", default = 1000)]
    pub sweep_limit: i64,
}

/// What a sweep did.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct SweepReport {
    /// Messages that SQS accepted.
    pub sent: usize,
    /// Messages that it did not; the next sweep tries again.
    pub refused: usize,
    /// Tasks that were tried too often, and are failed now.
    pub given_up: usize,
    /// Tasks that were due and not reached.
    pub left: i64,
    /// Idempotency keys that had expired and were deleted.
    pub expired_keys: u64,
}

/// The database was away: nothing was taken, or what was taken waits until it counts as lost.
#[derive(Debug, thiserror::Error)]
#[error("the sweep could not be finished")]
pub struct SweepError(#[from] StoreError);

impl From<SweepError> for Diagnostic {
    fn from(error: SweepError) -> Self {
        telemetry::diagnostic("SweepError", &error)
    }
}

/// Sends the missing messages, in batches, until none is missing, the limit is reached, or SQS refuses.
///
/// They belong to the trace of the sweep: nobody has kept that of the request.
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
        let count = taken.to_send.len() + taken.given_up.len();
        if count == 0 {
            break;
        }
        budget -= count as i64;
        for id in &taken.given_up {
            tracing::warn!(taskId = id.get(), "given up: no attempt reported an outcome");
        }
        report.given_up += taken.given_up.len();
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
