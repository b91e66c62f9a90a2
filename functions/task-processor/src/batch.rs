//! One invocation: a batch of SQS records.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    time::{Duration, SystemTime},
};

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent, SqsMessage};
use futures::{FutureExt, future::join_all};
use lambda_runtime::Diagnostic;
use shared::{
    domain::{Status, Task, TaskId, TaskMessage},
    store::{
        Database, StoreError,
        processing::{Claim, ClaimOutcome, ClaimedTask, Outcome, Settle},
    },
    telemetry,
};
use tokio::time::timeout;
use tracing::{Instrument, error, info, warn};

use crate::TaskError;

/// The part of the invocation kept free at its end, to store the outcomes of what was done: one tenth.
const RESERVE: u32 = 10;

/// The invocation's length when the runtime does not say (`cargo lambda watch`).
const DEFAULT_TIME: Duration = Duration::from_secs(30);

/// The longest invocation that Lambda allows ("Lambda quotas").
const MAX_TIME: Duration = Duration::from_secs(15 * 60);

/// Why the batch as a whole failed: every record comes back, and Lambda polls more slowly.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// Without a message id a record can be neither acknowledged nor reported. Lambda would take the answer
    /// for success and delete it.
    #[error("a record has no message id")]
    NoMessageId,
    /// The database is away: nothing was claimed, or what was done could not be stored.
    #[error("the batch could not be claimed or settled")]
    Store(#[from] StoreError),
    /// Every record failed. Reported as an error so that Lambda backs off.
    #[error("all {0} records failed")]
    AllFailed(usize),
}

impl From<BatchError> for Diagnostic {
    fn from(error: BatchError) -> Self {
        Self {
            error_type: "BatchError".to_owned(),
            error_message: telemetry::chain(&error),
        }
    }
}

/// What becomes of the message about one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Delivery {
    /// It has done its work: Lambda deletes it.
    Acknowledge,
    /// It must come back.
    Retry,
}

/// Processes a batch and says which records must come back.
///
/// `max_receives` is the queue's maxReceiveCount: a task that still fails then is failed for good, before its
/// message goes to the dead-letter queue. `perform` is the business step: [`crate::perform`], or what a test
/// puts in its place.
pub async fn process(
    database: &Database,
    event: SqsEvent,
    deadline: SystemTime,
    max_receives: u32,
    perform: impl AsyncFn(&Task) -> Result<String, TaskError>,
) -> Result<SqsBatchResponse, BatchError> {
    let time = time_until(deadline);
    let records = event.records.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let ids: Vec<TaskId> = records.iter().filter_map(|record| record.task).collect();
    let last_chance = |id: TaskId| {
        let mut own = records.iter().filter(|record| record.task == Some(id));
        own.any(|record| record.receives >= max_receives)
    };

    let claims = database.run(&Claim { ids: &ids, lease: time }).await?;
    let performed = join_all(claims.into_iter().map(|(id, claim)| {
        let (perform, last_chance) = (&perform, last_chance(id));
        async move {
            match claim {
                ClaimOutcome::Claimed(claimed) => {
                    let (outcome, delivery) = attempt(claimed, time - time / RESERVE, last_chance, perform).await;
                    (id, delivery, Some(outcome))
                }
                ClaimOutcome::Busy => {
                    info!("another worker holds the task");
                    (id, Delivery::Retry, None)
                }
                ClaimOutcome::Settled => {
                    info!("nothing to do: completed, failed or deleted");
                    (id, Delivery::Acknowledge, None)
                }
            }
        }
        .instrument(tracing::info_span!("task", taskId = id.get()))
    }))
    .await;

    let outcomes: Vec<Outcome> = performed.iter().filter_map(|(.., outcome)| outcome.clone()).collect();
    settle(database, &outcomes).await?;

    let deliveries: HashMap<TaskId, Delivery> = performed.into_iter().map(|(id, delivery, _)| (id, delivery)).collect();
    report(&records, &deliveries)
}

/// A record as far as we need it.
struct Record<'a> {
    message_id: &'a str,
    /// The task it is about; `None` if its body is not a [`TaskMessage`].
    task: Option<TaskId>,
    /// How often the message was received, this time included.
    receives: u32,
}

/// Reads one record. A body that is not ours fails that record only; it ends in the dead-letter queue, body
/// and all.
fn read(record: &SqsMessage) -> Result<Record<'_>, BatchError> {
    let message_id = record.message_id.as_deref().filter(|id| !id.is_empty());
    let message_id = message_id.ok_or(BatchError::NoMessageId)?;
    let body = record.body.as_deref().unwrap_or_default();
    let task = match serde_json::from_str::<TaskMessage>(body) {
        Ok(message) => Some(message.task_id),
        Err(error) => {
            warn!(messageId = message_id, %error, "not a task message");
            None
        }
    };
    let receives = record
        .attributes
        .get("ApproximateReceiveCount")
        .and_then(|count| count.parse().ok());
    Ok(Record {
        message_id,
        task,
        receives: receives.unwrap_or(1),
    })
}

/// Performs one task. Whatever happens in there, a panic too, is the outcome of this task only.
async fn attempt(
    claimed: ClaimedTask,
    time: Duration,
    last_chance: bool,
    perform: &impl AsyncFn(&Task) -> Result<String, TaskError>,
) -> (Outcome, Delivery) {
    let ClaimedTask { task, fencing_token } = claimed;
    // `perform` is called inside, so that even a panic before its first await is caught.
    let performing = async { timeout(time, perform(&task)).await };
    let performed = AssertUnwindSafe(performing).catch_unwind().await;
    let result = match performed {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(TaskError::Transient(format!("not done within {} s", time.as_secs()))),
        Err(_) => Err(TaskError::Transient("the worker panicked".to_owned())),
    };
    let (status, result, delivery) = match result {
        Ok(result) => {
            info!("task completed");
            (Status::Completed, Some(result), Delivery::Acknowledge)
        }
        Err(TaskError::Permanent(reason)) => {
            warn!(reason, "task failed for good");
            (Status::Failed, Some(reason), Delivery::Acknowledge)
        }
        Err(TaskError::Transient(reason)) if last_chance => {
            warn!(reason, "task failed, and was tried often enough");
            (Status::Failed, Some(reason), Delivery::Retry)
        }
        Err(TaskError::Transient(reason)) => {
            warn!(reason, "task failed, will be tried again");
            (Status::Pending, None, Delivery::Retry)
        }
    };
    let outcome = Outcome {
        id: task.id,
        fencing_token,
        status,
        result,
    };
    (outcome, delivery)
}

/// Stores the outcomes. One that no longer counts is dropped: the task was deleted, changed by a client or
/// taken over by another worker, and whoever did that answers for it.
async fn settle(database: &Database, outcomes: &[Outcome]) -> Result<(), StoreError> {
    if outcomes.is_empty() {
        return Ok(());
    }
    let settled = database.run(&Settle(outcomes)).await?;
    for outcome in outcomes.iter().filter(|outcome| !settled.contains(&outcome.id)) {
        warn!(taskId = outcome.id.get(), "lost the task while working on it");
    }
    Ok(())
}

/// The partial batch response: exactly the records that must come back.
fn report(records: &[Record<'_>], deliveries: &HashMap<TaskId, Delivery>) -> Result<SqsBatchResponse, BatchError> {
    let must_come_back = |record: &&Record<'_>| match record.task {
        Some(id) => deliveries.get(&id) != Some(&Delivery::Acknowledge),
        None => true,
    };
    let failed: Vec<&str> = records
        .iter()
        .filter(must_come_back)
        .map(|record| record.message_id)
        .collect();
    info!(records = records.len(), failed = failed.len(), "batch processed");
    if !records.is_empty() && failed.len() == records.len() {
        error!("every record failed");
        return Err(BatchError::AllFailed(records.len()));
    }
    let mut response = SqsBatchResponse::default();
    response.set_failures(failed);
    Ok(response)
}

fn time_until(deadline: SystemTime) -> Duration {
    deadline
        .duration_since(SystemTime::now())
        .ok()
        .filter(|time| *time <= MAX_TIME)
        .unwrap_or(DEFAULT_TIME)
}
