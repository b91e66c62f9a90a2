//! Parses the records of a batch: into jobs, one for each task, and retries, one for each record.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::Duration,
};

use aws_lambda_events::sqs::{SqsEvent, SqsMessage};
use queue::Retry;
use shared::{
    domain::{TaskId, TaskMessage},
    store::processing::ClaimRequest,
    trace::TraceHeader,
};
use time::OffsetDateTime;
use tracing::warn;

use crate::BatchError;

/// The records of a batch about one task, combined.
pub struct Job {
    pub id: TaskId,
    /// The indices of the records.
    pub records: Vec<usize>,
    /// The highest receive count of the records, including this receive.
    pub receives: u32,
    /// When the latest of the messages was sent.
    sent_at: Option<OffsetDateTime>,
    /// The trace in which that message was sent.
    trace: Option<TraceHeader>,
}

impl Job {
    /// The request to claim the task.
    pub fn request(&self) -> ClaimRequest {
        ClaimRequest {
            id: self.id,
            sent_at: self.sent_at,
        }
    }

    /// The id of the trace, for logging.
    pub fn trace_id(&self) -> Option<&str> {
        self.trace.as_ref().map(TraceHeader::trace_id)
    }

    /// The time since the latest message was sent, or since the task was to run; zero if that is ahead
    /// of our clock.
    pub fn latency(&self, run_at: Option<OffsetDateTime>, now: OffsetDateTime) -> Option<Duration> {
        let sent_at = self.sent_at?;
        let waited = now - run_at.map_or(sent_at, |run_at| run_at.max(sent_at));
        Some(waited.try_into().unwrap_or_default())
    }

    /// Merges in another record about the same task.
    fn merge(&mut self, other: Self) {
        self.records.extend(other.records);
        self.receives = self.receives.max(other.receives);
        if other.sent_at >= self.sent_at {
            self.sent_at = other.sent_at;
            self.trace = other.trace;
        }
    }
}

/// Reads a batch: a retry for each record, in the same order, and the jobs.
pub fn read(event: SqsEvent, first_delay_seconds: u32) -> Result<(Vec<Retry>, Vec<Job>), BatchError> {
    let mut retries = Vec::with_capacity(event.records.len());
    let mut jobs = BTreeMap::new();
    for (index, message) in event.records.into_iter().enumerate() {
        let (retry, job) = read_record(index, message, first_delay_seconds)?;
        retries.push(retry);
        let Some(job) = job else { continue };
        match jobs.entry(job.id) {
            Entry::Vacant(entry) => {
                entry.insert(job);
            }
            Entry::Occupied(mut entry) => entry.get_mut().merge(job),
        }
    }
    Ok((retries, jobs.into_values().collect()))
}

/// Reads one record. A malformed body fails only that record; its message ends unchanged in the
/// dead-letter queue.
fn read_record(index: usize, record: SqsMessage, first_delay_seconds: u32) -> Result<(Retry, Option<Job>), BatchError> {
    let message_id = record.message_id.filter(|id| !id.is_empty());
    let message_id = message_id.ok_or(BatchError::NoMessageId)?;
    let attribute = |name: &str| record.attributes.get(name);
    let receives = attribute("ApproximateReceiveCount").and_then(|count| count.parse().ok());
    let receives = receives.unwrap_or(1);
    let trace = attribute("AWSTraceHeader").and_then(|header| TraceHeader::parse(header));
    let job = match serde_json::from_str::<TaskMessage>(record.body.as_deref().unwrap_or_default()) {
        Ok(message) => Some(Job {
            id: message.task_id,
            records: vec![index],
            receives,
            sent_at: attribute("SentTimestamp").and_then(|sent| queue::parse_sent_timestamp(sent)),
            trace,
        }),
        Err(error) => {
            let trace_id = trace.as_ref().map(TraceHeader::trace_id);
            warn!(messageId = message_id, traceId = trace_id, %error, "malformed message");
            None
        }
    };
    let retry = Retry {
        message_id,
        receipt_handle: record.receipt_handle,
        seconds: delay(first_delay_seconds, receives),
    };
    Ok((retry, job))
}

/// The longest visibility timeout: 12 hours ("Amazon SQS message quotas").
const MAX_DELAY_SECONDS: u32 = 12 * 60 * 60;

/// The delay in seconds, which doubles with every receive.
fn delay(first: u32, receives: u32) -> i32 {
    let factor = 1_u32.checked_shl(receives.saturating_sub(1)).unwrap_or(u32::MAX);
    let seconds = first.saturating_mul(factor).min(MAX_DELAY_SECONDS);
    i32::try_from(seconds).expect("12 hours fit")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_doubles_with_every_receive_up_to_sqs_limit() {
        let delays: Vec<i32> = (0..=5).map(|receives| delay(20, receives)).collect();
        assert_eq!(delays, [20, 20, 40, 80, 160, 320]);
        for receives in [30, 32, 33, 1000, u32::MAX] {
            assert_eq!(delay(20, receives), 43_200, "{receives}");
        }
        assert_eq!(delay(0, 3), 0);
    }
}
