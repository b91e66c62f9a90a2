//! The dead-letter queue, for operators.

use std::{collections::BTreeMap, time::Duration};

use aws_sdk_sqs::{
    Client,
    config::{Builder, timeout::TimeoutConfig},
    error::{ProvideErrorMetadata, SdkError},
    operation::list_message_move_tasks::ListMessageMoveTasksError,
    types::{ListMessageMoveTasksResultEntry, Message, MessageSystemAttributeName, QueueAttributeName},
};
use shared::config::ConfigError;
use time::OffsetDateTime;

use crate::QueueError;

/// The visibility timeout of a received message, in seconds.
const VISIBILITY_SECONDS: i32 = 20;

/// How often to poll the progress of a redrive on AWS.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The timeouts of an attempt and of a call, which may wait a second for messages.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
const OPERATION_TIMEOUT: Duration = Duration::from_secs(5);

/// A message of the dead-letter queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The body, as sent.
    pub body: String,
    pub sent_at: Option<OffsetDateTime>,
}

/// The state of a redrive after its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redrive {
    /// AWS moves the messages in the background.
    Started {
        /// The dead-letter queue.
        arn: String,
    },
    /// AWS is already moving messages, as requested earlier, and allows one such task at a time.
    Running {
        /// The dead-letter queue.
        arn: String,
    },
    /// This many messages were moved.
    Done(usize),
}

/// A dead-letter queue and its source queue.
pub struct DeadLetterQueue {
    client: Client,
    url: String,
    source_url: String,
}

impl DeadLetterQueue {
    /// The queues at these URLs.
    pub fn new(config: Builder, url: String, source_url: String) -> Self {
        let timeouts = TimeoutConfig::builder()
            .operation_attempt_timeout(ATTEMPT_TIMEOUT)
            .operation_timeout(OPERATION_TIMEOUT)
            .build();
        let client = Client::from_conf(config.timeout_config(timeouts).build());
        Self {
            client,
            url,
            source_url,
        }
    }

    /// The queues of the environment (`DEAD_LETTER_QUEUE_URL`, `QUEUE_URL`). Does not connect yet.
    pub fn from_env() -> Result<Self, ConfigError> {
        let (url, source_url) = (crate::dead_letter_queue_url()?, crate::task_queue_url()?);
        Ok(Self::new(crate::client_config()?, url, source_url))
    }

    /// Lists all messages, oldest first, and leaves them in the queue.
    pub async fn list(&self) -> Result<Vec<DeadLetter>, QueueError> {
        // By message id: if listing takes longer than the visibility timeout, messages are received
        // again.
        let mut seen = BTreeMap::new();
        loop {
            let received = self.receive().await?;
            let known = seen.len();
            for message in received {
                seen.entry(message.message_id.clone()).or_insert(message);
            }
            if seen.len() == known {
                break;
            }
        }
        for message in seen.values() {
            self.client
                .change_message_visibility()
                .queue_url(&self.url)
                .set_receipt_handle(message.receipt_handle.clone())
                .visibility_timeout(0)
                .send()
                .await
                .map_err(QueueError::new)?;
        }
        let mut letters: Vec<DeadLetter> = seen.values().map(dead_letter).collect();
        letters.sort_by_key(|letter| letter.sent_at);
        Ok(letters)
    }

    /// Starts moving all messages back to the source queue.
    ///
    /// On AWS, SQS moves them (StartMessageMoveTask). If move tasks are not implemented, as in the
    /// emulator, this function receives, sends and only then deletes each message, since a
    /// duplicate is harmless and a lost message is not, and reports its progress.
    pub async fn start_redrive(&self, progress: impl Fn(usize)) -> Result<Redrive, QueueError> {
        let arn = arn(&self.client, &self.url).await?;
        // Without a destination, SQS refuses messages that were sent to the dead-letter queue
        // directly (CouldNotDetermineMessageSource), and LocalStack crashes.
        let start = self.client.start_message_move_task().source_arn(&arn);
        let destination = sibling_arn(&arn, &self.source_url);
        let started = start.destination_arn(destination).send().await;
        let Err(error) = started else {
            return Ok(Redrive::Started { arn });
        };
        // SQS refuses a second task with InvalidParameterValue, which has many causes, and may
        // refuse any with UnsupportedOperation: only the list tells whether one is running, and
        // whether there are move tasks at all.
        match last_move(&self.client, &arn).await {
            Ok(Some(task)) if is_running(&task) => Ok(Redrive::Running { arn }),
            Err(unlisted) if is_not_implemented(&unlisted) && is_not_implemented(&error) => {
                Ok(Redrive::Done(self.move_messages(progress).await?))
            }
            // The list is unavailable: the message decides.
            Err(_)
                if error
                    .message()
                    .is_some_and(|text| text.contains("already a task running")) =>
            {
                Ok(Redrive::Running { arn })
            }
            _ => Err(QueueError::new(error)),
        }
    }

    /// Moves all messages back to the source queue, waits for the end and returns their number.
    pub async fn redrive(&self, progress: impl Fn(usize)) -> Result<usize, QueueError> {
        match self.start_redrive(&progress).await? {
            Redrive::Started { arn } | Redrive::Running { arn } => self.follow(&arn, progress).await,
            Redrive::Done(moved) => Ok(moved),
        }
    }

    async fn follow(&self, arn: &str, progress: impl Fn(usize)) -> Result<usize, QueueError> {
        loop {
            let Some(task) = last_move(&self.client, arn).await.map_err(QueueError::new)? else {
                return Ok(0);
            };
            if is_running(&task) {
                progress(moved(&task));
            } else if task.status() == Some("COMPLETED") {
                return Ok(moved(&task));
            } else {
                return Err(QueueError::new(format!("the redrive stopped {}", reason(&task))));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    async fn move_messages(&self, progress: impl Fn(usize)) -> Result<usize, QueueError> {
        let mut moved = 0;
        loop {
            let received = self.receive().await?;
            if received.is_empty() {
                return Ok(moved);
            }
            for message in received {
                let send = self.client.send_message().queue_url(&self.source_url);
                let send = send.set_message_body(message.body).send();
                send.await.map_err(QueueError::new)?;
                let delete = self.client.delete_message().queue_url(&self.url);
                let delete = delete.set_receipt_handle(message.receipt_handle).send();
                delete.await.map_err(QueueError::new)?;
                moved += 1;
            }
            progress(moved);
        }
    }

    async fn receive(&self) -> Result<Vec<Message>, QueueError> {
        let request = self.client.receive_message().queue_url(&self.url);
        let request = request
            .max_number_of_messages(10)
            .visibility_timeout(VISIBILITY_SECONDS)
            // Long polling queries all servers of SQS, so that an empty response means an empty
            // queue.
            .wait_time_seconds(1)
            .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp);
        let received = request.send().await.map_err(QueueError::new)?;
        Ok(received.messages.unwrap_or_default())
    }
}

/// Why the last redrive of this dead-letter queue stopped, if it failed.
pub(crate) async fn failed_redrive(client: &Client, url: &str) -> Result<Option<String>, QueueError> {
    let arn = arn(client, url).await?;
    match last_move(client, &arn).await {
        Ok(task) => Ok(task
            .filter(|task| task.status() == Some("FAILED"))
            .map(|task| reason(&task))),
        Err(error) if is_not_implemented(&error) => Ok(None),
        Err(error) => Err(QueueError::new(error)),
    }
}

async fn arn(client: &Client, url: &str) -> Result<String, QueueError> {
    let request = client.get_queue_attributes().queue_url(url);
    let attributes = request.attribute_names(QueueAttributeName::QueueArn).send().await;
    let attributes = attributes.map_err(QueueError::new)?;
    let arn = attributes
        .attributes()
        .and_then(|all| all.get(&QueueAttributeName::QueueArn));
    arn.cloned().ok_or_else(|| QueueError::new("the queue has no ARN"))
}

/// The ARN of the queue at this URL, from that of another queue of the same account and region.
fn sibling_arn(arn: &str, url: &str) -> String {
    let (account, _) = arn.rsplit_once(':').unwrap_or_default();
    let (_, name) = url.rsplit_once('/').unwrap_or_default();
    format!("{account}:{name}")
}

/// The latest move task of a dead-letter queue.
async fn last_move(
    client: &Client,
    arn: &str,
) -> Result<Option<ListMessageMoveTasksResultEntry>, SdkError<ListMessageMoveTasksError>> {
    let tasks = client.list_message_move_tasks().source_arn(arn).max_results(1);
    Ok(tasks.send().await?.results.and_then(|tasks| tasks.into_iter().next()))
}

/// True until the task has ended. (The other states: COMPLETED, CANCELLED, FAILED.)
fn is_running(task: &ListMessageMoveTasksResultEntry) -> bool {
    matches!(task.status(), Some("RUNNING" | "CANCELLING"))
}

fn moved(task: &ListMessageMoveTasksResultEntry) -> usize {
    usize::try_from(task.approximate_number_of_messages_moved()).unwrap_or_default()
}

/// "after 7 messages: AccessDenied"
fn reason(task: &ListMessageMoveTasksResultEntry) -> String {
    let reason = task.failure_reason().or(task.status()).unwrap_or("no reason given");
    match moved(task) {
        1 => format!("after 1 message: {reason}"),
        moved => format!("after {moved} messages: {reason}"),
    }
}

fn dead_letter(message: &Message) -> DeadLetter {
    let attributes = message.attributes();
    let sent = attributes.and_then(|all| all.get(&MessageSystemAttributeName::SentTimestamp));
    DeadLetter {
        body: message.body().unwrap_or_default().to_owned(),
        sent_at: sent.and_then(|sent| crate::parse_sent_timestamp(sent)),
    }
}

fn is_not_implemented(error: &impl ProvideErrorMetadata) -> bool {
    const CODES: [&str; 4] = [
        "InvalidAction",
        "NotImplemented",
        "UnknownOperationException",
        "UnsupportedOperation",
    ];
    error
        .code()
        .is_some_and(|code| CODES.iter().any(|known| code.ends_with(known)))
}
