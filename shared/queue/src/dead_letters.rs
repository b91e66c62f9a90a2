//! The dead-letter queue, for operators.

use std::{collections::BTreeMap, time::Duration};

use aws_sdk_sqs::{
    Client,
    config::Builder,
    error::ProvideErrorMetadata,
    types::{Message, MessageSystemAttributeName, QueueAttributeName},
};
use shared::config::ConfigError;
use time::OffsetDateTime;

use crate::QueueError;

/// The visibility timeout of a received message, in seconds.
const VISIBILITY_SECONDS: i32 = 20;

/// How often to poll the progress of a redrive on AWS.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

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
        let client = Client::from_conf(config.build());
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
    /// On AWS, SQS moves them (StartMessageMoveTask). If that is not implemented, as in the
    /// emulator, this function receives, sends and only then deletes each message, since a
    /// duplicate is harmless and a lost message is not, and reports its progress.
    pub async fn start_redrive(&self, progress: impl Fn(usize)) -> Result<Redrive, QueueError> {
        let arn = self.arn().await?;
        let started = self.client.start_message_move_task().source_arn(&arn).send().await;
        match started {
            Ok(_) => Ok(Redrive::Started { arn }),
            Err(error) if is_not_implemented(&error) => Ok(Redrive::Done(self.move_messages(progress).await?)),
            Err(error) => Err(QueueError::new(error)),
        }
    }

    /// Moves all messages back to the source queue, waits for the end and returns their number.
    pub async fn redrive(&self, progress: impl Fn(usize)) -> Result<usize, QueueError> {
        match self.start_redrive(&progress).await? {
            Redrive::Started { arn } => self.follow(&arn, progress).await,
            Redrive::Done(moved) => Ok(moved),
        }
    }

    async fn follow(&self, arn: &str, progress: impl Fn(usize)) -> Result<usize, QueueError> {
        loop {
            let tasks = self.client.list_message_move_tasks().source_arn(arn).max_results(1);
            let tasks = tasks.send().await.map_err(QueueError::new)?;
            let Some(task) = tasks.results().first() else {
                return Ok(0);
            };
            let moved = usize::try_from(task.approximate_number_of_messages_moved()).unwrap_or_default();
            match task.status() {
                Some("RUNNING") => progress(moved),
                Some("COMPLETED") => return Ok(moved),
                status => {
                    let reason = task.failure_reason().or(status).unwrap_or("no reason given");
                    return Err(QueueError::new(format!(
                        "the redrive stopped after {moved} messages: {reason}"
                    )));
                }
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

    async fn arn(&self) -> Result<String, QueueError> {
        let request = self.client.get_queue_attributes().queue_url(&self.url);
        let attributes = request.attribute_names(QueueAttributeName::QueueArn).send().await;
        let attributes = attributes.map_err(QueueError::new)?;
        let arn = attributes
            .attributes()
            .and_then(|all| all.get(&QueueAttributeName::QueueArn));
        arn.cloned().ok_or_else(|| QueueError::new("the queue has no ARN"))
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
