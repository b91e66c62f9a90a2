//! Closes the gap between Postgres and SQS: a task row is its own outbox.
//!
//! create-task stores a task and then sends its message; when SQS is down, or the function dies in between,
//! the row remains without one. A message can also be lost later, with the queue or in the dead-letter queue.
//! Each sweep finds such tasks and sends their messages again. One message too many is harmless: the
//! task-processor's claim hands each task to one worker at a time.

use std::time::Duration;

use confique::Config;
use lambda_runtime::Diagnostic;
use queue::TaskQueue;
use serde::Serialize;
use shared::{
    domain::TaskId,
    store::{
        Database, StoreError,
        reconciling::{CountDue, GiveBack, TakeDue},
    },
    telemetry,
};

/// How old a task without a message must be: longer than create-task may take.
const UNSENT_AFTER: Duration = Duration::from_secs(10);

/// Bounds the work of a sweep; the next one goes on.
#[derive(Config)]
pub struct Limits {
    /// After how many seconds a message counts as lost: longer than the queue keeps trying, which is the
    /// visibility timeout times maxReceiveCount.
    #[config(env = "LOST_AFTER_SECONDS")]
    pub lost_after_seconds: u64,
    /// How many tasks a sweep sends at the most.
    #[config(env = "SWEEP_LIMIT", default = 1000)]
    pub sweep_limit: i64,
}

/// What a sweep did.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Messages that SQS accepted.
    pub sent: usize,
    /// Messages that it did not; the next sweep tries again.
    pub refused: usize,
    /// Tasks that were due and not reached.
    pub left: i64,
}

/// The database was away: nothing was taken, or what was taken waits until it counts as lost.
#[derive(Debug, thiserror::Error)]
#[error("the sweep could not be finished")]
pub struct SweepError(#[from] StoreError);

impl From<SweepError> for Diagnostic {
    fn from(error: SweepError) -> Self {
        Self {
            error_type: "SweepError".to_owned(),
            error_message: telemetry::chain(&error),
        }
    }
}

/// Sends the missing messages, in batches, until none is missing, the limit is reached, or SQS refuses.
pub async fn sweep(database: &Database, queue: &TaskQueue, limits: &Limits) -> Result<Report, SweepError> {
    let lost_after = Duration::from_secs(limits.lost_after_seconds);
    let (mut sent, mut refused) = (0, 0);
    while refused == 0 && (sent as i64) < limits.sweep_limit {
        let limit = (TaskQueue::MAX_BATCH as i64).min(limits.sweep_limit - sent as i64);
        let due: Vec<TaskId> = database
            .run(&TakeDue {
                limit,
                unsent_after: UNSENT_AFTER,
                lost_after,
            })
            .await?;
        if due.is_empty() {
            break;
        }
        let unsent = queue.send_batch(&due).await;
        if !unsent.is_empty() {
            database.run(&GiveBack(&unsent)).await?;
        }
        sent += due.len() - unsent.len();
        refused += unsent.len();
    }
    let left = database
        .run(&CountDue {
            unsent_after: UNSENT_AFTER,
            lost_after,
        })
        .await?;
    tracing::info!(sent, refused, left, "sweep done");
    Ok(Report { sent, refused, left })
}
