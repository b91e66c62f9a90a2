//! One invocation: a batch of SQS records.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    slice,
    time::{Duration, Instant, SystemTime},
};

use aws_lambda_events::sqs::SqsEvent;
use futures::{FutureExt, future::join_all};
use lambda_runtime::Diagnostic;
use queue::Retry;
use shared::{
    domain::{Status, Task, TaskId},
    invocation::time_until,
    store::{
        Database, StoreError,
        processing::{Claim, ClaimOutcome, ClaimRequest, ClaimedTask, FindLost, Lease, Outcome, Settle},
    },
    telemetry,
};
use task_metrics::Batch;
use time::OffsetDateTime;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info, warn};

use crate::{
    Settings, TaskError,
    job::{self, Job},
};

/// One tenth of the invocation is reserved at its end, to store the outcomes.
const SETTLE_TIME_DIVISOR: u32 = 10;

/// The longest stored result, in characters. Each task of a list shows its result, and a permanent
/// failure quotes the task's description, of up to 10,000 characters.
const MAX_RESULT_CHARS: usize = 1000;

/// How long to wait before claiming tasks again whose rows were locked: create-task marks a task as
/// enqueued while its message is already on its way, which takes milliseconds.
const LOCK_PAUSE: Duration = Duration::from_millis(200);

/// How long before its time the message of a scheduled task is postponed. An earlier one is that of a
/// task that was rescheduled: its next message will be sent (task-reconciler).
const MAX_EARLY_SECONDS: i32 = 60;

/// How often leases are looked up while tasks are performed: only long tasks cost a statement.
const LOOK_UP_AFTER: Duration = Duration::from_secs(5);

/// Why the batch as a whole failed: every record is redelivered after the visibility timeout.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// The invocation's deadline has passed: nothing was claimed.
    #[error("no time is left")]
    NoTimeLeft,
    /// Without a message id a record cannot be reported as failed: Lambda would delete the message.
    #[error("a record has no message id")]
    NoMessageId,
    /// The database is unavailable: nothing was claimed, or the outcomes could not be stored.
    #[error("the batch could not be claimed or settled")]
    Store(#[from] StoreError),
}

impl From<BatchError> for Diagnostic {
    fn from(error: BatchError) -> Self {
        telemetry::diagnostic("BatchError", &error)
    }
}

/// What happens to the messages of one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Delivery {
    /// They are done: Lambda deletes them.
    Acknowledge,
    /// They are redelivered.
    Retry,
    /// They are redelivered after this many seconds.
    RetryAfter(i32),
}

/// The attempt to process a job.
struct Attempt {
    job: Job,
    delivery: Delivery,
    /// The outcome to store; `None` if the task was not claimed.
    outcome: Option<Outcome>,
    /// The processing time, if the task was claimed.
    elapsed: Option<Duration>,
    /// When the task was to run, if it was claimed.
    run_at: Option<OffsetDateTime>,
}

/// The result of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Processed {
    /// The records to be redelivered. All others are acknowledged.
    pub retries: Vec<Retry>,
    /// The batch's metrics. Tasks are counted only if this batch stored their outcome.
    pub metrics: Batch,
}

/// Processes a batch.
///
/// A task that still fails on the last receive of its message becomes `failed`, before the message
/// goes to the dead-letter queue. `perform` is the business step: [`crate::perform()`], or a
/// substitute in tests. Its token is cancelled when the lease is lost, for example because a client
/// has cancelled the task.
pub async fn process(
    database: &Database,
    event: SqsEvent,
    deadline: SystemTime,
    settings: Settings,
    perform: impl AsyncFn(&Task, &CancellationToken) -> Result<String, TaskError>,
) -> Result<Processed, BatchError> {
    let time = time_until(deadline);
    if time.is_zero() {
        return Err(BatchError::NoTimeLeft);
    }
    let (mut retries, jobs) = job::read(event, settings.retry_delay_seconds)?;
    let requests: Vec<ClaimRequest> = jobs.iter().map(Job::request).collect();
    let mut claims = claim(database, &requests, time).await?;
    let started = OffsetDateTime::now_utc();
    let mut leases = Vec::new();
    let performing = join_all(jobs.into_iter().map(|job| {
        let claim = claims.remove(&job.id).expect("one outcome for each request");
        let cancellation = CancellationToken::new();
        if let ClaimOutcome::Claimed(ClaimedTask { task, fencing_token }) = &claim {
            let (id, fencing_token) = (task.id, *fencing_token);
            leases.push((Lease { id, fencing_token }, cancellation.clone()));
        }
        let is_last_receive = job.receives >= settings.max_receive_count;
        let span = tracing::info_span!("task", taskId = job.id.get(), traceId = job.trace_id());
        let time = time - time / SETTLE_TIME_DIVISOR;
        attempt(job, claim, time, is_last_receive, cancellation, &perform).instrument(span)
    }));
    let mut attempts = while_watching(database, &leases, performing).await;

    let outcomes: Vec<Outcome> = attempts
        .iter_mut()
        .filter_map(|attempt| attempt.outcome.take())
        .collect();
    let Settled { settled, locked } = settle(database, &outcomes, deadline).await?;
    for attempt in attempts.iter_mut().filter(|attempt| locked.contains(&attempt.job.id)) {
        // The task is processed again after its lease has expired.
        attempt.delivery = Delivery::Retry;
    }
    let claimed = || attempts.iter().filter(|attempt| attempt.elapsed.is_some());
    let is_lost = |attempt: &&Attempt| !settled.contains(&attempt.job.id) && !locked.contains(&attempt.job.id);
    for Attempt { job, .. } in claimed().filter(is_lost) {
        warn!(
            taskId = job.id.get(),
            traceId = job.trace_id(),
            "lease lost, outcome discarded"
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
        queue_latencies: claimed()
            .filter_map(|attempt| attempt.job.latency(attempt.run_at, started))
            .collect(),
    };

    let mut is_done = vec![false; retries.len()];
    for Attempt { job, delivery, .. } in &attempts {
        for record in &job.records {
            match delivery {
                Delivery::Acknowledge => is_done[*record] = true,
                Delivery::Retry => {}
                Delivery::RetryAfter(seconds) => retries[*record].seconds = *seconds,
            }
        }
    }
    let retries = retries.into_iter().zip(is_done).filter(|(_, is_done)| !is_done);
    Ok(Processed {
        retries: retries.map(|(retry, _)| retry).collect(),
        metrics,
    })
}

/// Claims the tasks of a batch. A task whose row is locked is claimed once more after a pause: only
/// a row that stays locked fails its records, and only those.
async fn claim(
    database: &Database,
    requests: &[ClaimRequest],
    lease: Duration,
) -> Result<HashMap<TaskId, ClaimOutcome>, StoreError> {
    let mut claims = database.run(&Claim { requests, lease }).await?;
    let is_locked = |request: &&ClaimRequest| claims[&request.id] == ClaimOutcome::Locked;
    let locked: Vec<ClaimRequest> = requests.iter().filter(is_locked).copied().collect();
    if !locked.is_empty() {
        sleep(LOCK_PAUSE).await;
        let again = Claim {
            requests: &locked,
            lease,
        };
        match database.run(&again).await {
            Ok(again) => claims.extend(again),
            // The other tasks are claimed: they continue.
            Err(error) => telemetry::log_error(&error, "claiming locked tasks again failed"),
        }
    }
    Ok(claims)
}

/// Performs the tasks, and cancels the token of each whose lease is lost meanwhile.
async fn while_watching<T>(
    database: &Database,
    leases: &[(Lease, CancellationToken)],
    performing: impl Future<Output = T>,
) -> T {
    let is_done = CancellationToken::new();
    let performing = async {
        let performed = performing.await;
        is_done.cancel();
        performed
    };
    let watching = async {
        // The end interrupts the pause, not a statement, which would cost the connection.
        while timeout(LOOK_UP_AFTER, is_done.cancelled()).await.is_err() {
            let open = leases.iter().filter(|(_, cancellation)| !cancellation.is_cancelled());
            let open: Vec<Lease> = open.map(|(lease, _)| *lease).collect();
            if open.is_empty() {
                continue;
            }
            let lost = database.run(&FindLost(&open)).await.unwrap_or_else(|error| {
                telemetry::log_error(&error, "looking up the leases failed");
                Vec::new()
            });
            for (lease, cancellation) in leases.iter().filter(|(lease, _)| lost.contains(&lease.id)) {
                info!(taskId = lease.id.get(), "lease lost while the task is performed");
                cancellation.cancel();
            }
        }
    };
    tokio::join!(performing, watching).0
}

/// Processes a job, if its task was claimed.
async fn attempt(
    job: Job,
    claim: ClaimOutcome,
    time: Duration,
    is_last_receive: bool,
    cancellation: CancellationToken,
    perform: &impl AsyncFn(&Task, &CancellationToken) -> Result<String, TaskError>,
) -> Attempt {
    let started = Instant::now();
    let mut run_at = None;
    let (delivery, outcome) = match claim {
        ClaimOutcome::Claimed(claimed) => {
            run_at = claimed.task.run_at;
            let (outcome, delivery) = work(claimed, time, is_last_receive, &cancellation, perform).await;
            (delivery, Some(outcome))
        }
        ClaimOutcome::Busy => {
            info!("another worker holds the lease");
            (Delivery::Retry, None)
        }
        ClaimOutcome::Locked => {
            warn!("the task's row is locked by another session");
            (Delivery::Retry, None)
        }
        ClaimOutcome::Unknown(status) => {
            warn!(
                taskStatus = status,
                "the task has a status that this version does not know"
            );
            (Delivery::Retry, None)
        }
        ClaimOutcome::Early { seconds } if seconds <= MAX_EARLY_SECONDS => {
            info!(seconds, "the task is scheduled: its message is postponed");
            (Delivery::RetryAfter(seconds), None)
        }
        ClaimOutcome::Early { seconds } => {
            info!(seconds, "the task is scheduled: another message will be sent");
            (Delivery::Acknowledge, None)
        }
        ClaimOutcome::Settled => {
            info!("nothing to do: the task is completed, failed, cancelled or deleted");
            (Delivery::Acknowledge, None)
        }
    };
    Attempt {
        job,
        delivery,
        elapsed: outcome.is_some().then(|| started.elapsed()),
        run_at,
        outcome,
    }
}

/// Performs one task. A panic or timeout affects the outcome of this task only.
async fn work(
    claimed: ClaimedTask,
    time: Duration,
    is_last_receive: bool,
    cancellation: &CancellationToken,
    perform: &impl AsyncFn(&Task, &CancellationToken) -> Result<String, TaskError>,
) -> (Outcome, Delivery) {
    let ClaimedTask { task, fencing_token } = claimed;
    // `perform` is called inside, so that even a panic before its first await is caught.
    let performing = async { timeout(time, perform(&task, cancellation)).await };
    let performed = AssertUnwindSafe(performing).catch_unwind().await;
    let result = match performed {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(TaskError::Transient(format!("timed out after {} s", time.as_secs()))),
        Err(_) => Err(TaskError::Transient("the worker panicked".to_owned())),
    };
    let (status, result, delivery) = match result {
        Ok(result) => {
            info!("task completed");
            (Status::Completed, Some(result), Delivery::Acknowledge)
        }
        Err(TaskError::Permanent(reason)) => {
            warn!(reason, "task failed permanently");
            (Status::Failed, Some(reason), Delivery::Acknowledge)
        }
        Err(TaskError::Transient(reason)) if is_last_receive => {
            warn!(reason, "task failed, retries exhausted");
            (Status::Failed, Some(reason), Delivery::Retry)
        }
        Err(TaskError::Transient(reason)) => {
            warn!(reason, "task failed, will be retried");
            (Status::Pending, Some(reason), Delivery::Retry)
        }
    };
    let outcome = Outcome {
        id: task.id,
        fencing_token,
        status,
        result: result.map(shortened),
    };
    (outcome, delivery)
}

/// The text, with an ellipsis in place of what is too long.
fn shortened(mut text: String) -> String {
    if text.chars().count() > MAX_RESULT_CHARS {
        let kept = text.char_indices().nth(MAX_RESULT_CHARS - 1);
        text.truncate(kept.map_or(0, |(end, _)| end));
        text.push('…');
    }
    text
}

/// What became of the outcomes of a batch. All others are discarded, because the lease was lost:
/// the task was deleted, changed by a client or claimed by another worker.
#[derive(Default)]
struct Settled {
    /// The tasks whose outcome was stored.
    settled: Vec<TaskId>,
    /// The tasks whose row was locked by another session.
    locked: Vec<TaskId>,
}

/// The time after the last outcome, for the retry delays and the response.
const RESPONSE_TIME: Duration = Duration::from_millis(500);

/// Stores the outcomes: in one statement, and one by one if that waited too long for a locked row.
/// Each further locked row takes a second: an outcome for which no time is left is discarded like
/// that of a locked row, because without a response every record of the batch would fail.
async fn settle(database: &Database, outcomes: &[Outcome], deadline: SystemTime) -> Result<Settled, StoreError> {
    let mut all = Settled::default();
    if outcomes.is_empty() {
        return Ok(all);
    }
    match database.run(&Settle(outcomes)).await {
        Err(error) if error.is_lock_timeout() => {}
        outcome => {
            all.settled = outcome?;
            return Ok(all);
        }
    }
    for outcome in outcomes {
        let time = time_until(deadline).saturating_sub(RESPONSE_TIME);
        let settle = Settle(slice::from_ref(outcome));
        match timeout(time, database.run(&settle)).await {
            Ok(Ok(settled)) => all.settled.extend(settled),
            Ok(Err(error)) if !error.is_lock_timeout() => return Err(error),
            Ok(Err(_)) | Err(_) => {
                warn!(taskId = outcome.id.get(), "outcome discarded: the task's row is locked");
                all.locked.push(outcome.id);
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_result_ends_with_ellipsis() {
        for character in ["x", "ü", "😀", "\u{1}"] {
            let longest = character.repeat(MAX_RESULT_CHARS);
            assert_eq!(shortened(longest.clone()), longest);
            let cut = format!("{}…", character.repeat(MAX_RESULT_CHARS - 1));
            for more in [1, 9000] {
                assert_eq!(shortened(character.repeat(MAX_RESULT_CHARS + more)), cut);
            }
        }
        assert_eq!(shortened(String::new()), "");
    }
}
