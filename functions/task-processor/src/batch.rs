//! One invocation: a batch of SQS records.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    time::{Duration, Instant, SystemTime},
};

use aws_lambda_events::sqs::SqsEvent;
use futures::{FutureExt, future::join_all};
use lambda_runtime::Diagnostic;
use shared::{
    domain::{Status, Task, TaskId},
    store::{
        Database, StoreError,
        processing::{Claim, ClaimOutcome, ClaimedTask, Outcome, Request, Settle},
    },
    telemetry,
    trace::TraceHeader,
};
use task_metrics::Batch;
use time::OffsetDateTime;
use tokio::time::timeout;
use tracing::{Instrument, info, warn};

use crate::{Retry, Settings, TaskError, record::Record};

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
        telemetry::diagnostic("BatchError", &error)
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

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Processed {
    /// The records that must come back. All others are done with.
    pub retries: Vec<Retry>,
    /// What to count. Of the tasks only those whose outcome this batch stored.
    pub metrics: Batch,
}

/// Processes a batch.
///
/// A task that still fails when its message is received for the last time is failed for good, before the message
/// goes to the dead-letter queue. `perform` is the business step: [`crate::perform`], or what a test puts in its
/// place.
pub async fn process(
    database: &Database,
    event: SqsEvent,
    deadline: SystemTime,
    settings: Settings,
    perform: impl AsyncFn(&Task) -> Result<String, TaskError>,
) -> Result<Processed, BatchError> {
    let time = time_until(deadline);
    let records = event.records.iter().map(Record::read).collect::<Result<Vec<_>, _>>()?;
    let wanted = by_task(&records);
    let requests: Vec<Request> = wanted.iter().map(|(id, wanted)| wanted.request(*id)).collect();

    let claim = Claim {
        requests: &requests,
        lease: time,
    };
    let claims = database.run(&claim).await?;
    let begun = OffsetDateTime::now_utc();
    let performed = join_all(claims.into_iter().map(|(id, claim)| {
        let perform = &perform;
        let last_chance = wanted[&id].receives >= settings.max_receive_count;
        async move {
            match claim {
                ClaimOutcome::Claimed(claimed) => {
                    let started = Instant::now();
                    let (outcome, delivery) = attempt(claimed, time - time / RESERVE, last_chance, perform).await;
                    (id, delivery, Some((outcome, started.elapsed())))
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
        .instrument(tracing::info_span!(
            "task",
            taskId = id.get(),
            traceId = wanted[&id].trace_id
        ))
    }))
    .await;

    let (outcomes, processing_times): (Vec<Outcome>, Vec<Duration>) =
        performed.iter().filter_map(|(.., attempted)| attempted.clone()).unzip();
    let settled = settle(database, &outcomes, &wanted).await?;
    let count = |status| settled.iter().filter(|outcome| outcome.status == status).count();
    let latency = |outcome: &Outcome| wanted[&outcome.id].latency(begun);
    let metrics = Batch {
        size: records.len(),
        completed: count(Status::Completed),
        failed: count(Status::Failed),
        processing_times,
        queue_latencies: outcomes.iter().filter_map(latency).collect(),
    };

    let deliveries: HashMap<TaskId, Delivery> = performed.into_iter().map(|(id, delivery, _)| (id, delivery)).collect();
    let must_come_back = |record: &Record| match record.task {
        Some(id) => deliveries.get(&id) != Some(&Delivery::Acknowledge),
        None => true,
    };
    let retries = records.into_iter().filter(must_come_back);
    Ok(Processed {
        retries: retries
            .map(|record| record.retry(settings.retry_delay_seconds))
            .collect(),
        metrics,
    })
}

/// What the records of a batch say together about one task.
struct Wanted<'a> {
    /// The most receives of a record about it.
    receives: u32,
    /// When the latest message about it was sent.
    sent_at: Option<OffsetDateTime>,
    /// The trace of that message.
    trace_id: Option<&'a str>,
}

impl Wanted<'_> {
    fn request(&self, id: TaskId) -> Request {
        let sent_at = self.sent_at;
        Request { id, sent_at }
    }

    /// How long it has taken from the latest message until now; nothing if SQS's clock is ahead of ours.
    fn latency(&self, now: OffsetDateTime) -> Option<Duration> {
        let waited = now - self.sent_at?;
        Some(waited.try_into().unwrap_or_default())
    }
}

fn by_task(records: &[Record]) -> HashMap<TaskId, Wanted<'_>> {
    let mut wanted: HashMap<TaskId, Wanted<'_>> = HashMap::new();
    for record in records {
        let Some(id) = record.task else { continue };
        let entry = wanted.entry(id).or_insert(Wanted {
            receives: 0,
            sent_at: None,
            trace_id: None,
        });
        entry.receives = entry.receives.max(record.receives);
        if record.sent_at >= entry.sent_at {
            entry.sent_at = record.sent_at;
            entry.trace_id = record.trace.as_ref().map(TraceHeader::trace_id);
        }
    }
    wanted
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

/// Stores the outcomes and returns those that counted. One that no longer counts is dropped: the task was deleted,
/// changed by a client or taken over by another worker, and whoever did that answers for it.
async fn settle<'a>(
    database: &Database,
    outcomes: &'a [Outcome],
    wanted: &HashMap<TaskId, Wanted<'_>>,
) -> Result<Vec<&'a Outcome>, StoreError> {
    if outcomes.is_empty() {
        return Ok(Vec::new());
    }
    let settled = database.run(&Settle(outcomes)).await?;
    let (settled, lost): (Vec<_>, Vec<_>) = outcomes.iter().partition(|outcome| settled.contains(&outcome.id));
    for outcome in lost {
        let trace_id = wanted[&outcome.id].trace_id;
        warn!(
            taskId = outcome.id.get(),
            traceId = trace_id,
            "lost the task while working on it"
        );
    }
    Ok(settled)
}

/// How long the invocation still has.
pub fn time_until(deadline: SystemTime) -> Duration {
    deadline
        .duration_since(SystemTime::now())
        .ok()
        .filter(|time| *time <= MAX_TIME)
        .unwrap_or(DEFAULT_TIME)
}
