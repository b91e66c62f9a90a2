//! One invocation: a batch of SQS records.

use std::{
    panic::AssertUnwindSafe,
    time::{Duration, Instant, SystemTime},
};

use aws_lambda_events::sqs::SqsEvent;
use futures::{FutureExt, future::join_all};
use lambda_runtime::Diagnostic;
use queue::Retry;
use shared::{
    domain::{Status, Task, TaskId},
    store::{
        Database, StoreError,
        processing::{Claim, ClaimOutcome, ClaimedTask, Outcome, Request, Settle},
    },
    telemetry,
};
use task_metrics::Batch;
use time::OffsetDateTime;
use tokio::time::timeout;
use tracing::{Instrument, info, warn};

use crate::{
    Settings, TaskError,
    job::{self, Job},
};

/// One tenth of the invocation is kept free at its end, to store the outcomes of what was done.
const SETTLE_TIME_DIVISOR: u32 = 10;

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

/// What becomes of the messages about one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Delivery {
    /// They have done their work: Lambda deletes them.
    Acknowledge,
    /// They must come back.
    Retry,
}

/// What came of a job.
struct Attempt {
    job: Job,
    delivery: Delivery,
    /// What is to be stored; `None` if the task was not claimed.
    outcome: Option<Outcome>,
    /// For how long the task was worked on, if it was claimed.
    elapsed: Option<Duration>,
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
    let (retries, jobs) = job::read(event, settings.retry_delay_seconds)?;
    let requests: Vec<Request> = jobs.iter().map(Job::request).collect();
    let claim = Claim {
        requests: &requests,
        lease: time,
    };
    let mut claims = database.run(&claim).await?;
    let begun = OffsetDateTime::now_utc();
    let mut attempts = join_all(jobs.into_iter().map(|job| {
        let claim = claims.remove(&job.id).expect("there is one for each request");
        let last_chance = job.receives >= settings.max_receive_count;
        let span = tracing::info_span!("task", taskId = job.id.get(), traceId = job.trace_id());
        attempt(job, claim, time - time / SETTLE_TIME_DIVISOR, last_chance, &perform).instrument(span)
    }))
    .await;

    let outcomes: Vec<Outcome> = attempts
        .iter_mut()
        .filter_map(|attempt| attempt.outcome.take())
        .collect();
    let settled = settle(database, &outcomes).await?;
    let claimed = || attempts.iter().filter(|attempt| attempt.elapsed.is_some());
    for Attempt { job, .. } in claimed().filter(|attempt| !settled.contains(&attempt.job.id)) {
        warn!(
            taskId = job.id.get(),
            traceId = job.trace_id(),
            "lost the task while working on it"
        );
    }
    let count = |status| {
        let is_counted = |outcome: &&Outcome| outcome.status == status && settled.contains(&outcome.id);
        outcomes.iter().filter(is_counted).count()
    };
    let metrics = Batch {
        size: retries.len(),
        completed: count(Status::Completed),
        failed: count(Status::Failed),
        processing_times: claimed().filter_map(|attempt| attempt.elapsed).collect(),
        queue_latencies: claimed().filter_map(|attempt| attempt.job.latency(begun)).collect(),
    };

    let mut is_done = vec![false; retries.len()];
    let acknowledged = attempts
        .iter()
        .filter(|attempt| attempt.delivery == Delivery::Acknowledge);
    for record in acknowledged.flat_map(|attempt| &attempt.job.records) {
        is_done[*record] = true;
    }
    let retries = retries.into_iter().zip(is_done).filter(|(_, is_done)| !is_done);
    Ok(Processed {
        retries: retries.map(|(retry, _)| retry).collect(),
        metrics,
    })
}

/// Works on a job, if its task was claimed.
async fn attempt(
    job: Job,
    claim: ClaimOutcome,
    time: Duration,
    last_chance: bool,
    perform: &impl AsyncFn(&Task) -> Result<String, TaskError>,
) -> Attempt {
    let started = Instant::now();
    let (delivery, outcome) = match claim {
        ClaimOutcome::Claimed(claimed) => {
            let (outcome, delivery) = work(claimed, time, last_chance, perform).await;
            (delivery, Some(outcome))
        }
        ClaimOutcome::Busy => {
            info!("another worker holds the task");
            (Delivery::Retry, None)
        }
        ClaimOutcome::Settled => {
            info!("nothing to do: completed, failed or deleted");
            (Delivery::Acknowledge, None)
        }
    };
    Attempt {
        job,
        delivery,
        elapsed: outcome.is_some().then(|| started.elapsed()),
        outcome,
    }
}

/// Performs one task. Whatever happens in there, a panic too, is the outcome of this task only.
async fn work(
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

/// Stores the outcomes and returns the tasks whose outcome counted. One that no longer counts is dropped: the task was
/// deleted, changed by a client or taken over by another worker, and whoever did that answers for it.
async fn settle(database: &Database, outcomes: &[Outcome]) -> Result<Vec<TaskId>, StoreError> {
    if outcomes.is_empty() {
        return Ok(Vec::new());
    }
    database.run(&Settle(outcomes)).await
}

/// How long the invocation still has.
pub fn time_until(deadline: SystemTime) -> Duration {
    deadline
        .duration_since(SystemTime::now())
        .ok()
        .filter(|time| *time <= MAX_TIME)
        .unwrap_or(DEFAULT_TIME)
}
