//! One record of a batch: what we read from it, and when it comes back if it must.

use aws_lambda_events::sqs::SqsMessage;
use queue::Postponement;
use shared::{
    domain::{TaskId, TaskMessage},
    trace::TraceHeader,
};
use time::OffsetDateTime;
use tracing::warn;

use crate::BatchError;

/// A record as far as we need it.
pub struct Record {
    message_id: String,
    receipt_handle: Option<String>,
    /// The task it is about; `None` if its body is not a [`TaskMessage`].
    pub task: Option<TaskId>,
    /// How often the message was received, this time included.
    pub receives: u32,
    /// When it was sent.
    pub sent_at: Option<OffsetDateTime>,
    /// The trace that it was sent in.
    pub trace: Option<TraceHeader>,
}

impl Record {
    /// Reads one record. A body that is not ours fails that record only; it ends in the dead-letter queue, body
    /// and all.
    pub fn read(record: &SqsMessage) -> Result<Self, BatchError> {
        let message_id = record.message_id.clone().filter(|id| !id.is_empty());
        let message_id = message_id.ok_or(BatchError::NoMessageId)?;
        let attribute = |name: &str| record.attributes.get(name);
        let trace = attribute("AWSTraceHeader").and_then(|header| TraceHeader::parse(header));
        let body = record.body.as_deref().unwrap_or_default();
        let task = match serde_json::from_str::<TaskMessage>(body) {
            Ok(message) => Some(message.task_id),
            Err(error) => {
                let trace_id = trace.as_ref().map(TraceHeader::trace_id);
                warn!(messageId = message_id, traceId = trace_id, %error, "not a task message");
                None
            }
        };
        let receives = attribute("ApproximateReceiveCount").and_then(|count| count.parse().ok());
        Ok(Self {
            message_id,
            receipt_handle: record.receipt_handle.clone(),
            task,
            receives: receives.unwrap_or(1),
            sent_at: attribute("SentTimestamp").and_then(|sent| queue::parse_sent_timestamp(sent)),
            trace,
        })
    }

    /// The order to have it back, later after each receive.
    pub fn retry(self, first_delay_seconds: u32) -> Retry {
        Retry {
            seconds: delay(first_delay_seconds, self.receives),
            message_id: self.message_id,
            receipt_handle: self.receipt_handle,
        }
    }
}

/// A message that must come back, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The message.
    pub message_id: String,
    /// Its receipt handle, if the event has one.
    pub receipt_handle: Option<String>,
    /// In how many seconds.
    pub seconds: i32,
}

impl Retry {
    /// What SQS must be told.
    pub fn postponement(&self) -> Option<Postponement> {
        Some(Postponement {
            receipt_handle: self.receipt_handle.clone()?,
            seconds: self.seconds,
        })
    }
}

/// The longest visibility timeout: 12 hours ("Amazon SQS message quotas").
const MAX_DELAY_SECONDS: u32 = 12 * 60 * 60;

/// Doubles with every receive.
fn delay(first: u32, receives: u32) -> i32 {
    let factor = 1_u32.checked_shl(receives.saturating_sub(1)).unwrap_or(u32::MAX);
    let seconds = first.saturating_mul(factor).min(MAX_DELAY_SECONDS);
    i32::try_from(seconds).expect("12 hours are a small number")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_with_every_receive_up_to_what_sqs_allows() {
        let delays: Vec<i32> = (0..=5).map(|receives| delay(20, receives)).collect();
        assert_eq!(delays, [20, 20, 40, 80, 160, 320]);
        for receives in [30, 32, 33, 1000, u32::MAX] {
            assert_eq!(delay(20, receives), 43_200, "{receives}");
        }
        assert_eq!(delay(0, 3), 0);
    }
}
