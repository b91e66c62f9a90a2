//! The SQS client, separate from `shared` so that functions that do not use SQS do not link it; and
//! the event source mapping, which is Lambda's.

mod dead_letters;
mod event_source_mapping;
pub mod https;

pub use dead_letters::{DeadLetter, DeadLetterQueue, Redrive};
pub use event_source_mapping::{EventSourceMapping, MappingError, MappingState};

use std::{
    collections::HashMap,
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use aws_sdk_sqs::{
    Client,
    config::{BehaviorVersion, Builder, Credentials, Region, retry::RetryConfig, timeout::TimeoutConfig},
    types::{
        ChangeMessageVisibilityBatchRequestEntry, MessageSystemAttributeNameForSends, MessageSystemAttributeValue,
        QueueAttributeName, SendMessageBatchRequestEntry,
    },
};
use confique::Config;
use futures::{
    future::join_all,
    stream::{self, StreamExt},
};
use serde::Serialize;
use shared::{
    config::{self, AwsCredentials, ConfigError},
    domain::{TaskId, TaskMessage},
    telemetry,
    trace::TraceHeader,
};
use time::OffsetDateTime;
use utoipa::ToSchema;

/// The timeout of one attempt. SQS responds in about 20 ms; a connection that has died silently, or
/// an endpoint that accepts connections and then hangs, must not block the caller.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(400);

/// The upper bound of the random delay before the second attempt; it doubles before the third.
const BACKOFF: Duration = Duration::from_millis(50);

/// The timeout of a call. Three attempts, the SDK's default, fit.
const OPERATION_TIMEOUT: Duration = Duration::from_millis(1500);

/// How many batches are sent at a time: SQS responds in about 20 ms, so this is 4,000 messages a
/// second. More would share the little CPU of a function, and exceed [`ATTEMPT_TIMEOUT`].
const CONCURRENT_BATCHES: usize = 8;

#[derive(Config)]
struct QueueConfig {
    /// The URL of the queue.
    #[config(env = "QUEUE_URL")]
    queue_url: String,
}

#[derive(Config)]
struct DeadLetterQueueConfig {
    /// The URL of the queue.
    #[config(env = "DEAD_LETTER_QUEUE_URL")]
    dead_letter_queue_url: String,
}

/// The URL of the dead-letter queue (`DEAD_LETTER_QUEUE_URL`).
pub fn dead_letter_queue_url() -> Result<String, ConfigError> {
    config::from_env::<DeadLetterQueueConfig>().map(|config| config.dead_letter_queue_url)
}

/// The URL of the task queue (`QUEUE_URL`).
pub fn task_queue_url() -> Result<String, ConfigError> {
    config::from_env::<QueueConfig>().map(|config| config.queue_url)
}

/// SQS rejected a request or did not respond in time.
#[derive(Debug, thiserror::Error)]
#[error("SQS rejected the request or did not respond")]
pub struct QueueError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl QueueError {
    fn new(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(cause.into())
    }
}

/// Settings of a client besides [`AwsCredentials`].
#[derive(Config)]
struct EndpointConfig {
    /// The endpoint of an emulator (AWS SDKs and Tools Reference Guide, "Service-specific
    /// endpoints").
    #[config(env = "AWS_ENDPOINT_URL")]
    aws_endpoint_url: Option<String>,
}

/// The configuration of SQS clients, from the environment variables that Lambda sets.
///
/// Without `aws_config`, which would first look for files, containers and EC2, and add the code to
/// do so.
pub fn client_config() -> Result<Builder, ConfigError> {
    let environment: AwsCredentials = config::from_env()?;
    let credentials = Credentials::new(
        environment.access_key_id,
        environment.secret_access_key,
        environment.session_token,
        None,
        "Lambda",
    );
    let mut client = Builder::new()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(environment.region))
        .credentials_provider(credentials)
        .http_client(https::client());
    client.set_endpoint_url(config::from_env::<EndpointConfig>()?.aws_endpoint_url);
    Ok(client)
}

/// The queue that triggers the task-processor.
pub struct TaskQueue {
    /// None if the function does not need it, or the environment has none.
    mapping: Option<EventSourceMapping>,
    /// Created by the first call, so that it does not slow down init.
    client: LazyLock<Client, Box<dyn FnOnce() -> Client + Send>>,
    url: String,
}

impl TaskQueue {
    /// The queue of the environment (`QUEUE_URL`). Does not connect yet.
    pub fn from_env() -> Result<Self, ConfigError> {
        Ok(Self::new(client_config()?, task_queue_url()?))
    }

    /// The queue at this URL.
    pub fn new(config: Builder, url: String) -> Self {
        let timeouts = TimeoutConfig::builder()
            .operation_attempt_timeout(ATTEMPT_TIMEOUT)
            .operation_timeout(OPERATION_TIMEOUT)
            .build();
        let retries = RetryConfig::standard().with_initial_backoff(BACKOFF);
        let config = config.timeout_config(timeouts).retry_config(retries);
        let client = LazyLock::new(Box::new(|| Client::from_conf(config.build())) as Box<_>);
        Self {
            mapping: None,
            client,
            url,
        }
    }

    /// With the event source mapping that passes its messages on, if there is one.
    pub fn with_mapping(self, mapping: Option<EventSourceMapping>) -> Self {
        Self { mapping, ..self }
    }

    /// Whether processing is paused; `None` without a mapping.
    pub async fn is_paused(&self) -> Result<Option<bool>, MappingError> {
        match &self.mapping {
            Some(mapping) => mapping.state().await.map(|state| Some(state.is_paused())),
            None => Ok(None),
        }
    }

    /// The maximum number of messages per batch ("Amazon SQS message quotas").
    pub const MAX_BATCH: usize = 10;

    /// Sends the messages of up to [`TaskQueue::MAX_BATCH`] tasks, each with its delay in seconds, as
    /// part of this trace. Returns the tasks whose message was not accepted.
    pub async fn send_batch(&self, messages: &[(TaskId, i32)], trace: Option<&TraceHeader>) -> Vec<TaskId> {
        if messages.is_empty() {
            return Vec::new();
        }
        let entries = messages.iter().map(|&(id, delay)| {
            // An entry's id must be unique within its batch, and the task's id is.
            let entry = SendMessageBatchRequestEntry::builder().id(id.to_string());
            entry
                .message_body(body(id))
                .set_delay_seconds(delay_seconds(delay))
                .set_message_system_attributes(system_attributes(trace))
                .build()
                .expect("an entry has an id and a body")
        });
        let request = self.client.send_message_batch().queue_url(&self.url);
        let ids = messages.iter().map(|(id, _)| *id);
        match request.set_entries(Some(entries.collect())).send().await {
            Ok(response) => {
                let accepted: Vec<&str> = response.successful().iter().map(|entry| entry.id()).collect();
                ids.filter(|id| !accepted.contains(&id.to_string().as_str())).collect()
            }
            Err(error) => {
                telemetry::log_error(&QueueError::new(error), "sending a batch of messages failed");
                ids.collect()
            }
        }
    }

    /// Sends the messages of tasks in batches, several at a time. Returns the tasks whose message was
    /// not accepted. If as many batches in a row are refused as are sent at a time, no further one is
    /// sent: SQS is unavailable.
    pub async fn send_all(&self, messages: &[(TaskId, i32)], trace: Option<&TraceHeader>) -> Vec<TaskId> {
        let refused_in_a_row = &AtomicUsize::new(0);
        let batches = messages.chunks(Self::MAX_BATCH).map(|batch| async move {
            if refused_in_a_row.load(Ordering::Relaxed) >= CONCURRENT_BATCHES {
                return batch.iter().map(|(id, _)| *id).collect();
            }
            let refused = self.send_batch(batch, trace).await;
            if refused.len() == batch.len() {
                refused_in_a_row.fetch_add(1, Ordering::Relaxed);
            } else {
                refused_in_a_row.store(0, Ordering::Relaxed);
            }
            refused
        });
        stream::iter(batches)
            .buffer_unordered(CONCURRENT_BATCHES)
            .concat()
            .await
    }

    /// Delays the redelivery of messages. If that fails, or a message has no receipt handle, the
    /// queue's own visibility timeout applies.
    pub async fn postpone(&self, retries: &[Retry]) {
        let retries = retries.iter();
        let retries: Vec<_> = retries
            .filter_map(|retry| Some((retry.receipt_handle.as_ref()?, retry.seconds)))
            .collect();
        let batches = retries.chunks(Self::MAX_BATCH).map(async |batch| {
            let entries = batch.iter().enumerate().map(|(index, (receipt_handle, seconds))| {
                ChangeMessageVisibilityBatchRequestEntry::builder()
                    .id(index.to_string())
                    .receipt_handle(*receipt_handle)
                    .visibility_timeout(*seconds)
                    .build()
                    .expect("an entry has an id and a receipt handle")
            });
            let request = self.client.change_message_visibility_batch().queue_url(&self.url);
            match request.set_entries(Some(entries.collect())).send().await {
                Ok(response) => {
                    for failure in response.failed() {
                        tracing::warn!(
                            code = failure.code(),
                            "setting a retry delay failed; the message is redelivered after the visibility timeout"
                        );
                    }
                }
                Err(error) => telemetry::log_error(&QueueError::new(error), "setting the retry delays failed"),
            }
        });
        join_all(batches).await;
    }

    /// Counts the messages.
    pub async fn depth(&self) -> Result<Depth, QueueError> {
        use QueueAttributeName as Name;
        let names = [
            Name::ApproximateNumberOfMessages,
            Name::ApproximateNumberOfMessagesNotVisible,
            Name::ApproximateNumberOfMessagesDelayed,
        ];
        let request = self.client.get_queue_attributes().queue_url(&self.url);
        let response = request.set_attribute_names(Some(names.to_vec())).send().await;
        let attributes = response.map_err(QueueError::new)?.attributes.unwrap_or_default();
        let [visible, in_flight, delayed] = names.map(|name| {
            attributes
                .get(&name)
                .and_then(|count| count.parse().ok())
                .unwrap_or_default()
        });
        Ok(Depth {
            visible,
            in_flight,
            delayed,
        })
    }

    /// Of a dead-letter queue: why and after how many messages its last redrive failed, if it did.
    pub async fn failed_redrive(&self) -> Result<Option<String>, QueueError> {
        dead_letters::failed_redrive(&self.client, &self.url).await
    }

    /// The longest delay of a message, in seconds ("Amazon SQS message quotas").
    pub const MAX_DELAY: i32 = 900;

    /// Sends the message of a task, with this delay in seconds, as part of this trace.
    pub async fn send(&self, id: TaskId, delay: i32, trace: Option<&TraceHeader>) -> Result<(), QueueError> {
        self.client
            .send_message()
            .queue_url(&self.url)
            .message_body(body(id))
            .set_delay_seconds(delay_seconds(delay))
            .set_message_system_attributes(system_attributes(trace))
            .send()
            .await
            .map(|_| ())
            .map_err(QueueError::new)
    }
}

/// The approximate number of messages in a queue, as reported by SQS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Depth {
    /// Messages available to consumers.
    pub visible: u64,
    /// Messages received but not yet deleted or visible again.
    pub in_flight: u64,
    /// Messages delayed and not yet available.
    pub delayed: u64,
}

/// A received message to be redelivered, and its delay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    pub message_id: String,
    /// The receipt handle, if the event contains one.
    pub receipt_handle: Option<String>,
    /// The delay until the message is visible again, at most 12 hours ("Amazon SQS message
    /// quotas").
    pub seconds: i32,
}

/// Parses the `SentTimestamp` of a message: milliseconds since 1970 (Amazon SQS API Reference,
/// "ReceiveMessage").
pub fn parse_sent_timestamp(text: &str) -> Option<OffsetDateTime> {
    let milliseconds: i64 = text.parse().ok()?;
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(milliseconds) * 1_000_000).ok()
}

/// The body of a task's message.
fn body(id: TaskId) -> String {
    serde_json::to_string(&TaskMessage { task_id: id }).expect("a number always serializes")
}

/// The delay of a message, if it has one.
fn delay_seconds(seconds: i32) -> Option<i32> {
    (seconds > 0).then_some(seconds)
}

/// The attribute with which the consumer continues the trace (AWS X-Ray Developer Guide, "Amazon
/// SQS and AWS X-Ray").
fn system_attributes(
    trace: Option<&TraceHeader>,
) -> Option<HashMap<MessageSystemAttributeNameForSends, MessageSystemAttributeValue>> {
    let value = MessageSystemAttributeValue::builder()
        .data_type("String")
        .string_value(trace?.as_str())
        .build()
        .expect("it has a data type");
    Some(HashMap::from([(
        MessageSystemAttributeNameForSends::AwsTraceHeader,
        value,
    )]))
}
