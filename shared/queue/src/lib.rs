//! The SQS client, apart from `shared` so that a function that only reads does not link it.

mod dead_letters;
pub mod https;

pub use dead_letters::{DeadLetter, DeadLetterQueue, Redrive};

use std::{collections::HashMap, sync::LazyLock, time::Duration};

use aws_sdk_sqs::{
    Client,
    config::{BehaviorVersion, Builder, Credentials, Region, timeout::TimeoutConfig},
    types::{
        ChangeMessageVisibilityBatchRequestEntry, MessageSystemAttributeNameForSends, MessageSystemAttributeValue,
        QueueAttributeName, SendMessageBatchRequestEntry,
    },
};
use confique::Config;
use futures::future::join_all;
use serde::Serialize;
use shared::{
    config::{self, AwsCredentials, ConfigError},
    domain::{TaskId, TaskMessage},
    telemetry,
    trace::TraceHeader,
};
use time::OffsetDateTime;
use utoipa::ToSchema;

/// How long one attempt may take. SQS answers in some 20 ms; an endpoint that accepts the connection and
/// then says nothing must not hold up the client.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(700);

/// How long a call may take with all its attempts.
const OPERATION_TIMEOUT: Duration = Duration::from_millis(1500);

/// Where the task queue is.
#[derive(Config)]
struct QueueConfig {
    /// The URL of the queue.
    #[config(env = "QUEUE_URL")]
    queue_url: String,
}

/// Where the dead-letter queue is.
#[derive(Config)]
struct DeadLetterQueueConfig {
    /// The URL of the queue.
    #[config(env = "DEAD_LETTER_QUEUE_URL")]
    dead_letter_queue_url: String,
}

/// The URL of the dead-letter queue that the environment names (`DEAD_LETTER_QUEUE_URL`).
pub fn dead_letter_queue_url() -> Result<String, ConfigError> {
    config::from_env::<DeadLetterQueueConfig>().map(|config| config.dead_letter_queue_url)
}

/// The URL of the task queue that the environment names (`QUEUE_URL`).
pub fn task_queue_url() -> Result<String, ConfigError> {
    config::from_env::<QueueConfig>().map(|config| config.queue_url)
}

/// SQS did not do what it was asked to, or did not say so in time.
#[derive(Debug, thiserror::Error)]
#[error("SQS did not accept the request")]
pub struct QueueError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl QueueError {
    fn new(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(cause.into())
    }
}

/// What an SQS client needs of the environment beside [`AwsCredentials`].
#[derive(Config)]
struct EndpointConfig {
    /// Where AWS is, if it is not AWS (AWS SDKs and Tools Reference Guide, "Service-specific endpoints").
    #[config(env = "AWS_ENDPOINT_URL")]
    aws_endpoint_url: Option<String>,
}

/// What a function's SQS clients are made from: what Lambda puts into its environment.
///
/// Not by `aws_config`, which would look for files, containers and EC2 first, and bring along the code to do so.
pub fn client_config() -> Result<Builder, ConfigError> {
    let own: AwsCredentials = config::from_env()?;
    let credentials = Credentials::new(
        own.access_key_id,
        own.secret_access_key,
        own.session_token,
        None,
        "Lambda",
    );
    let mut client = Builder::new()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(own.region))
        .credentials_provider(credentials)
        .http_client(https::client());
    client.set_endpoint_url(config::from_env::<EndpointConfig>()?.aws_endpoint_url);
    Ok(client)
}

/// The queue that triggers the task-processor.
pub struct TaskQueue {
    /// Made for the first call: a function's init must not wait for that.
    client: LazyLock<Client, Box<dyn FnOnce() -> Client + Send>>,
    url: String,
}

impl TaskQueue {
    /// The queue that the environment names (`QUEUE_URL`). Opens no connection yet.
    pub fn from_env() -> Result<Self, ConfigError> {
        Ok(Self::new(client_config()?, task_queue_url()?))
    }

    /// The queue at this URL.
    pub fn new(config: Builder, url: String) -> Self {
        let timeouts = TimeoutConfig::builder()
            .operation_attempt_timeout(ATTEMPT_TIMEOUT)
            .operation_timeout(OPERATION_TIMEOUT)
            .build();
        let config = config.timeout_config(timeouts);
        let client = LazyLock::new(Box::new(|| Client::from_conf(config.build())) as Box<_>);
        Self { client, url }
    }

    /// The most messages of one batch ("Amazon SQS message quotas").
    pub const MAX_BATCH: usize = 10;

    /// Asks the task-processor to process up to [`TaskQueue::MAX_BATCH`] tasks, as a part of this trace. Returns
    /// those whose message was not accepted.
    pub async fn send_batch(&self, ids: &[TaskId], trace: Option<&TraceHeader>) -> Vec<TaskId> {
        if ids.is_empty() {
            return Vec::new();
        }
        let entries = ids.iter().map(|id| {
            // An entry's id only has to be unique in its batch; the task's is.
            let entry = SendMessageBatchRequestEntry::builder().id(id.to_string());
            entry
                .message_body(body(*id))
                .set_message_system_attributes(system_attributes(trace))
                .build()
                .expect("an entry has an id and a body")
        });
        let request = self.client.send_message_batch().queue_url(&self.url);
        match request.set_entries(Some(entries.collect())).send().await {
            Ok(answer) => {
                let accepted: Vec<&str> = answer.successful().iter().map(|entry| entry.id()).collect();
                let refused = |id: &&TaskId| !accepted.contains(&id.to_string().as_str());
                ids.iter().filter(refused).copied().collect()
            }
            Err(error) => {
                telemetry::log_error(&QueueError::new(error), "no message of the batch was sent");
                ids.to_vec()
            }
        }
    }

    /// Sets when messages come back. Where that fails, or a message has no receipt handle, the queue's own visibility
    /// timeout stays in force.
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
                Ok(answer) => {
                    for failure in answer.failed() {
                        tracing::warn!(
                            code = failure.code(),
                            "a message comes back when its visibility timeout ends"
                        );
                    }
                }
                Err(error) => telemetry::log_error(&QueueError::new(error), "no message of the batch was postponed"),
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
        let answer = request.set_attribute_names(Some(names.to_vec())).send().await;
        let attributes = answer.map_err(QueueError::new)?.attributes.unwrap_or_default();
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

    /// Asks the task-processor to process a task, as a part of this trace.
    pub async fn send(&self, id: TaskId, trace: Option<&TraceHeader>) -> Result<(), QueueError> {
        self.client
            .send_message()
            .queue_url(&self.url)
            .message_body(body(id))
            .set_message_system_attributes(system_attributes(trace))
            .send()
            .await
            .map(|_| ())
            .map_err(QueueError::new)
    }
}

/// How many messages are in a queue, approximately, as SQS says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Depth {
    /// Waiting to be received.
    pub visible: u64,
    /// Received, and neither deleted nor visible again.
    pub in_flight: u64,
    /// Not to be received yet.
    pub delayed: u64,
}

/// A received message that must come back, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The message.
    pub message_id: String,
    /// The receipt handle of this receive, if the event has one.
    pub receipt_handle: Option<String>,
    /// In how many seconds the message is visible again, at most 12 hours ("Amazon SQS message quotas").
    pub seconds: i32,
}

/// When a message was sent, by its `SentTimestamp`: milliseconds since 1970 (Amazon SQS API Reference,
/// "ReceiveMessage").
pub fn parse_sent_timestamp(text: &str) -> Option<OffsetDateTime> {
    let milliseconds: i64 = text.parse().ok()?;
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(milliseconds) * 1_000_000).ok()
}

/// The body of the message about a task.
fn body(id: TaskId) -> String {
    serde_json::to_string(&TaskMessage { task_id: id }).expect("a number always serialises")
}

/// What makes the message's consumer go on with the trace (AWS X-Ray Developer Guide, "Amazon SQS and AWS X-Ray").
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
