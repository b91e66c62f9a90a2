//! Closes the gap between Postgres and SQS: a task row is its own outbox.
//!
//! create-task stores a task and then sends its message; if SQS is unavailable, or the function
//! dies in between, the task has no message. A message can also be lost later, with the queue or in
//! the dead-letter queue. Each sweep finds such tasks and re-sends their messages. So it also sends
//! those of scheduled tasks, shortly before their time, delayed for what remains. A duplicate
//! message is harmless: the task-processor's claim gives each task to one worker at a time. A task
//! whose attempts never report an outcome is not re-sent indefinitely: after the maximum number of
//! attempts it becomes `failed`.
//!
//! A sweep also deletes expired idempotency keys and, if there is a retention period, old tasks.
//!
//! Everything is done in steps, each a statement of limited size, as long as the invocation has
//! time. The report tells what is left for the next sweep.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use confique::Config;
use lambda_runtime::Diagnostic;
use queue::TaskQueue;
use serde::Serialize;
use shared::{
    domain::TaskId,
    store::{
        Database, Statement, StoreError,
        idempotency::{CountExpired, DeleteExpired},
        reconciling::{
            ClearEnqueued, CountDue, CountSettled, DeleteSettled, Deleted, Due, Open, Position, Range, Scheduled,
            TakeDue, Taken,
        },
    },
    telemetry,
    trace::TraceHeader,
};
use task_metrics::{Metrics, Sweep};
use tokio::time::Instant;

/// The minimum age of a task without a message: longer than create-task may run.
const UNSENT_AFTER: Duration = Duration::from_secs(10);

/// How many tasks a statement examines, and so how many messages are sent at a time.
const TASKS_PER_STEP: i64 = 500;

/// How many open tasks that are not due a sweep examines, and how many scheduled ones, about 0.1 s of
/// Postgres's time each. The next sweep continues.
const MAX_NOT_DUE: i64 = 50_000;

/// How many messages may be in the queue until old ones count as lost. While more are waiting, an
/// old one is most likely among them.
const MAX_WAITING: i64 = 50_000;

/// How many idempotency keys, or old tasks, a statement deletes.
const DELETED_PER_STEP: i64 = 1000;

/// What is left is counted up to this number: few enough for the statement timeout, even if each row
/// is on a page that Postgres has to read from the disk.
const MAX_COUNTED: i64 = 10_000;

/// The parts of the invocation's time after which no further step of each kind is started. The rest
/// is for the last step.
const SCHEDULED_UNTIL: f64 = 0.3;
const MESSAGES_UNTIL: f64 = 0.6;
const KEYS_UNTIL: f64 = 0.75;
const OLD_TASKS_UNTIL: f64 = 0.85;

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
    /// How many days after its completion or failure a task is deleted; 0 for never.
    #[config(env = "TASK_RETENTION_DAYS", default = 0)]
    pub task_retention_days: u32,
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
    /// Tasks that are due, but were not handled. At least as many, if this is 10,000 or more.
    pub left: usize,
    /// Expired idempotency keys that were deleted.
    pub expired_keys: usize,
    /// Expired idempotency keys that were not deleted. At least as many, if this is 10,000.
    pub expired_keys_left: usize,
    /// Tasks that were deleted after the retention period.
    pub deleted_tasks: usize,
    /// Tasks older than the retention period. At least as many, if this is 10,000.
    pub old_tasks_left: usize,
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

/// Where the next sweep of this execution environment continues. Empty after a cold start: that
/// sweep examines all tasks.
#[derive(Default)]
pub struct Progress {
    scheduled: Unexamined<Scheduled>,
    open: Unexamined<Open>,
}

/// The tasks that a sweep did not examine.
struct Unexamined<Key>(Mutex<Option<Rest<Key>>>);

#[derive(Clone)]
struct Rest<Key> {
    range: Range<Key>,
    /// The place after which all tasks are newer than the sweep.
    newest: Position<Key>,
}

impl<Key> Default for Unexamined<Key> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<Key: Clone> Unexamined<Key> {
    fn get(&self) -> Option<Rest<Key>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, rest: Option<Rest<Key>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = rest;
    }
}

/// Runs a sweep and records its metrics, if it found anything.
///
/// The messages belong to the trace of the sweep: that of the original request is not stored.
#[tracing::instrument(name = "sweep", skip_all, fields(traceId = trace.map(TraceHeader::trace_id)))]
pub async fn sweep(
    database: &Database,
    queue: &TaskQueue,
    metrics: &Metrics,
    settings: &Settings,
    progress: &Progress,
    time: Duration,
    trace: Option<&TraceHeader>,
) -> Result<SweepReport, SweepError> {
    let started_at = Instant::now();
    let until = |part: f64| started_at + time.mul_f64(part);
    let mut report = SweepReport::default();
    let due = Due {
        unsent_after: UNSENT_AFTER,
        lost_after: Duration::from_secs(settings.lost_after_seconds),
        include_lost: false,
        max_attempts: settings.max_attempts,
    };
    let (depth, paused) = tokio::join!(queue.depth(), queue.is_paused());
    let paused = paused.unwrap_or_else(|error| {
        telemetry::log_error(
            &error,
            "state of the event source mapping unavailable: taken for enabled",
        );
        None
    });
    let may_be_lost = match depth {
        // All messages are old then.
        _ if paused == Some(true) => 0,
        Ok(depth) => MAX_WAITING.saturating_sub_unsigned(depth.visible),
        Err(error) => {
            telemetry::log_error(&error, "queue depth unavailable: no message counts as lost");
            0
        }
    };
    let mut walk = Walk {
        database,
        queue,
        due,
        may_be_lost,
        until: until(SCHEDULED_UNTIL),
        trace,
        report: &mut report,
        newest_first: true,
    };
    walk.send_missing(Range::scheduled(), &progress.scheduled).await?;
    walk.until = until(MESSAGES_UNTIL);
    walk.send_missing(Range::open(), &progress.open).await?;
    delete_in_steps(
        database,
        until(KEYS_UNTIL),
        |Deleted { last: from, .. }| DeleteExpired {
            from,
            limit: DELETED_PER_STEP,
        },
        |Deleted { last: from, .. }| CountExpired {
            from,
            limit: MAX_COUNTED,
        },
        (&mut report.expired_keys, &mut report.expired_keys_left),
    )
    .await?;
    if settings.task_retention_days > 0 {
        let older_than = Duration::from_secs(u64::from(settings.task_retention_days) * 24 * 60 * 60);
        delete_in_steps(
            database,
            until(OLD_TASKS_UNTIL),
            |Deleted { last: from, .. }| DeleteSettled {
                older_than,
                from,
                limit: DELETED_PER_STEP,
            },
            |Deleted { last: from, .. }| CountSettled {
                older_than,
                from,
                limit: MAX_COUNTED,
            },
            (&mut report.deleted_tasks, &mut report.old_tasks_left),
        )
        .await?;
    }
    // Most sweeps find nothing. Metrics cost money in each hour in which they are written.
    if report != SweepReport::default() {
        metrics.sweep(&Sweep {
            sent: report.sent,
            missing: report.left,
            discarded: report.given_up,
            deleted_keys: report.expired_keys,
            keys_left: report.expired_keys_left,
            deleted_tasks: report.deleted_tasks,
            old_tasks_left: report.old_tasks_left,
        });
    }
    tracing::info!(?report, "sweep done");
    Ok(report)
}

/// The search of a sweep for missing messages.
struct Walk<'a> {
    database: &'a Database,
    queue: &'a TaskQueue,
    due: Due,
    /// How many messages may still count as lost.
    may_be_lost: i64,
    until: Instant,
    trace: Option<&'a TraceHeader>,
    report: &'a mut SweepReport,
    /// The end of the range that is examined next.
    newest_first: bool,
}

impl Walk<'_> {
    /// Sends the missing messages of a range, until none is missing, the time is over, or SQS refuses:
    /// first those of tasks that are newer than the last sweep, then those of the tasks that it did
    /// not examine.
    async fn send_missing<Key: Clone>(
        &mut self,
        mut range: Range<Key>,
        progress: &Unexamined<Key>,
    ) -> Result<(), SweepError>
    where
        for<'a> TakeDue<'a, Key>: Statement<Output = Taken<Key>>,
        for<'a> CountDue<'a, Key>: Statement<Output = i64>,
    {
        self.newest_first = true;
        let earlier = progress.get();
        if let Some(earlier) = &earlier {
            range.after = earlier.newest.clone();
        }
        let mut newest = None;
        let mut is_finished = self.examine(&mut range, &mut newest).await?;
        if let Some(earlier) = earlier {
            if is_finished {
                range = earlier.range;
                is_finished = self.examine(&mut range, &mut None).await?;
            } else {
                // One range again, with the tasks in between that the last sweep has examined.
                range.after = earlier.range.after;
            }
            newest = newest.or(Some(earlier.newest));
        }
        if is_finished {
            progress.set(None);
            return Ok(());
        }
        // Before it is counted, which may fail.
        let range = &range;
        progress.set(newest.map(|newest| Rest {
            range: range.clone(),
            newest,
        }));
        let count = CountDue {
            due: self.due,
            range,
            newest_first: self.newest_first,
            limit: MAX_COUNTED,
        };
        self.report.left += self.database.run(&count).await? as usize;
        Ok(())
    }

    /// Examines the tasks of a range, from both ends, and sends the missing messages. Returns true
    /// if none is left; otherwise, the range becomes that of the tasks that were not examined.
    ///
    /// The ends alternate, so that after an outage the newest tasks do not wait for all others, until
    /// one has no missing messages. `newest` becomes the place of one of the newest tasks that were
    /// examined.
    async fn examine<Key: Clone>(
        &mut self,
        range: &mut Range<Key>,
        newest: &mut Option<Position<Key>>,
    ) -> Result<bool, SweepError>
    where
        for<'a> TakeDue<'a, Key>: Statement<Output = Taken<Key>>,
    {
        let (mut not_due, mut is_other_end_due) = (0, true);
        while Instant::now() < self.until && not_due < MAX_NOT_DUE {
            self.due.include_lost = self.may_be_lost > 0;
            let take = TakeDue {
                due: self.due,
                range,
                newest_first: self.newest_first,
                limit: TASKS_PER_STEP,
            };
            let taken = self.database.run(&take).await?;
            let due = (taken.to_send.len() + taken.discarded.len()) as i64;
            self.may_be_lost -= taken.lost;
            not_due += taken.examined - due;
            for id in &taken.discarded {
                tracing::warn!(taskId = id.get(), "task discarded: no attempt reported an outcome");
            }
            self.report.given_up += taken.discarded.len();
            let refused = self.send(&taken.to_send).await?;
            if refused > taken.to_send.len() / 2 {
                // The next sweep examines them again.
                return Ok(false);
            }
            self.report.left += refused;
            if newest.is_none() {
                newest.clone_from(&taken.last);
            }
            if let Some(position) = taken.last {
                match self.newest_first {
                    true => range.before = position,
                    false => range.after = position,
                }
            }
            if taken.examined < TASKS_PER_STEP {
                return Ok(true);
            }
            if is_other_end_due || due == 0 {
                self.newest_first = !self.newest_first;
                is_other_end_due = due > 0;
            }
        }
        Ok(false)
    }

    /// Sends the messages of these tasks. Returns how many of them SQS refused.
    async fn send(&mut self, messages: &[(TaskId, i32)]) -> Result<usize, SweepError> {
        let refused = self.queue.send_all(messages, self.trace).await;
        if !refused.is_empty() {
            self.database.run(&ClearEnqueued(&refused)).await?;
        }
        self.report.sent += messages.len() - refused.len();
        self.report.refused += refused.len();
        Ok(refused.len())
    }
}

/// Deletes in steps until nothing is left, or until that time; then counts what is left. The steps
/// begin where the one before stopped.
async fn delete_in_steps<D: Statement<Output = Deleted>, C: Statement<Output = i64>>(
    database: &Database,
    until: Instant,
    delete: impl Fn(Deleted) -> D,
    count: impl Fn(Deleted) -> C,
    (deleted, left): (&mut usize, &mut usize),
) -> Result<(), SweepError> {
    let mut step = Deleted::default();
    while Instant::now() < until {
        step = database.run(&delete(step)).await?;
        *deleted += step.count as usize;
        if step.count < DELETED_PER_STEP {
            return Ok(());
        }
    }
    *left = database.run(&count(step)).await? as usize;
    Ok(())
}
