//! Processes batches of the task queue: claims the tasks of a batch, [`perform()`]s them
//! concurrently, settles them.
//!
//! Delivery is at least once, in any order, sometimes twice at the same time (Amazon SQS Developer
//! Guide, "At-least-once delivery"). The claim makes this harmless: it gives each task to one
//! worker at a time. Each record succeeds or fails individually (`ReportBatchItemFailures`):
//! successes are acknowledged, failures are retried with exponential backoff, and end in the
//! dead-letter queue when retries are exhausted. That all of them failed is not an error of the
//! function (docs/decisions/0044-failed-batch-is-no-error.md).

mod batch;
mod event;
mod job;
mod perform;

use std::time::SystemTime;

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent};
use confique::Config;
use queue::TaskQueue;
use shared::{invocation::time_until, store::Database};
use task_metrics::Metrics;
use tokio::time::timeout;

pub use batch::{BatchError, Processed, process};
pub use event::Event;
pub use perform::{TaskError, perform};
pub use queue::Retry;

/// The function's settings.
#[derive(Clone, Copy, Config)]
pub struct Settings {
    /// The queue's maxReceiveCount: after this many receives a message goes to the dead-letter
    /// queue.
    #[config(env = "MAX_RECEIVE_COUNT")]
    pub max_receive_count: u32,
    /// The delay before the first retry, in seconds. Doubles with every further retry.
    #[config(env = "RETRY_DELAY_SECONDS")]
    pub retry_delay_seconds: u32,
}

/// Processes a batch, sets the retry delays, and returns the failed records.
pub async fn handle(
    database: &Database,
    queue: &TaskQueue,
    metrics: &Metrics,
    settings: Settings,
    event: SqsEvent,
    deadline: SystemTime,
) -> Result<SqsBatchResponse, BatchError> {
    let records = event.records.len();
    let processed = process(database, event, deadline, settings, perform).await?;
    metrics.batch(&processed.metrics);
    let retries = processed.retries;
    // The response matters more: without it Lambda counts every record as failed.
    if timeout(time_until(deadline) / 2, queue.postpone(&retries))
        .await
        .is_err()
    {
        tracing::warn!("no time left to set the retry delays");
    }
    tracing::info!(records, failed = retries.len(), "batch processed");
    let mut response = SqsBatchResponse::default();
    response.set_failures(retries.into_iter().map(|retry| retry.message_id));
    Ok(response)
}
