//! The test environment's queues, and what Lambda's event source mapping does.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use aws_sdk_sqs::{
    Client,
    types::{MessageSystemAttributeName, QueueAttributeName},
};
use serde_json::{Map, Value, json};

use crate::{Function, Template, TestEnvironment};

/// The queue that triggers the task-processor, by its name in template.yaml.
pub const TASK_QUEUE: &str = "TaskQueue";

/// The dead-letter queue, by its name in template.yaml.
pub const DEAD_LETTER_QUEUE: &str = "TaskDeadLetterQueue";

/// How long a message may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

/// SQS's approximate message counts of a queue. Not read through the crate `queue`, which
/// candidates change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    /// Ready to be received.
    pub visible: u64,
    /// Received, and neither deleted nor visible again.
    pub in_flight: u64,
    /// Delayed: not visible yet.
    pub delayed: u64,
}

/// A received message.
#[derive(Clone, Debug)]
pub struct Message {
    /// The body.
    pub body: String,
    /// How often it was received, including this time.
    pub receives: u32,
    id: String,
    receipt_handle: String,
    attributes: Map<String, Value>,
}

/// The result of a delivered batch.
#[derive(Debug)]
pub struct Delivered {
    /// The batch's messages.
    pub messages: Vec<Message>,
    /// The bodies of those that Lambda would leave in the queue. All others are deleted.
    pub redelivered: Vec<String>,
    /// The error that the function returned, if any.
    pub error: Option<String>,
}

/// Creates all queues of the template under unique names; returns their URLs.
pub async fn create(sqs: &Client, template: &Template, prefix: &str) -> BTreeMap<String, String> {
    let queues = template.resources("AWS::SQS::Queue");
    let mut urls = BTreeMap::new();
    for (name, queue) in &queues {
        let mut request = sqs.create_queue().queue_name(format!("{prefix}_{name}"));
        for attribute in [QueueAttributeName::VisibilityTimeout, QueueAttributeName::DelaySeconds] {
            let value = &queue["Properties"][attribute.as_str()];
            // A number, or a number as text.
            if let Some(value) = value
                .as_str()
                .map(str::to_owned)
                .or(value.as_u64().map(|n| n.to_string()))
            {
                request = request.attributes(attribute, value);
            }
        }
        let created = request.send().await.expect("the queue is created");
        urls.insert((*name).to_owned(), created.queue_url.expect("a queue has a URL"));
    }
    // Once all of them exist.
    for (name, queue) in queues {
        let policy = &queue["Properties"]["RedrivePolicy"];
        let Some(target) = policy["deadLetterTargetArn"]["Fn::GetAtt"][0].as_str() else {
            continue;
        };
        let target = urls.get(target).expect("the dead-letter queue is in the template");
        let asked = sqs.get_queue_attributes().queue_url(target);
        let asked = asked.attribute_names(QueueAttributeName::QueueArn).send().await;
        let attributes = asked.expect("the queue exists").attributes.unwrap_or_default();
        let arn = attributes
            .get(&QueueAttributeName::QueueArn)
            .expect("a queue has an ARN");
        let policy = json!({"deadLetterTargetArn": arn, "maxReceiveCount": policy["maxReceiveCount"]});
        let request = sqs.set_queue_attributes().queue_url(&urls[name]);
        let request = request.attributes(QueueAttributeName::RedrivePolicy, policy.to_string());
        request.send().await.expect("the queue gets its dead-letter queue");
    }
    urls
}

impl TestEnvironment {
    /// The URL of a queue, by its name in template.yaml.
    pub fn queue_url(&self, queue: &str) -> &str {
        let url = self.queues.get(queue);
        url.unwrap_or_else(|| panic!("template.yaml has no queue {queue}"))
    }

    /// Sends a message to a queue.
    pub async fn send(&self, queue: &str, body: &str) {
        let request = self.sqs.send_message().queue_url(self.queue_url(queue));
        request.message_body(body).send().await.expect("the message is sent");
    }

    /// Sends a message about each of these tasks to the task queue.
    pub async fn enqueue(&self, ids: &[i64]) {
        for id in ids {
            self.send(TASK_QUEUE, &json!({"task_id": id}).to_string()).await;
        }
    }

    /// How many messages a queue has: visible, in flight, delayed.
    pub async fn depth(&self, queue: &str) -> Depth {
        let names = [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
            QueueAttributeName::ApproximateNumberOfMessagesDelayed,
        ];
        let request = self.sqs.get_queue_attributes().queue_url(self.queue_url(queue));
        let response = request.set_attribute_names(Some(names.to_vec())).send().await;
        let attributes = response
            .expect("the queue has attributes")
            .attributes
            .unwrap_or_default();
        let [visible, in_flight, delayed] = names.map(|name| {
            let count = attributes.get(&name).and_then(|count| count.parse().ok());
            count.unwrap_or_default()
        });
        Depth {
            visible,
            in_flight,
            delayed,
        }
    }

    /// How many messages a queue has, in any state.
    pub async fn messages(&self, queue: &str) -> u64 {
        let depth = self.depth(queue).await;
        depth.visible + depth.in_flight + depth.delayed
    }

    /// Receives up to this many messages without waiting; they are then in flight.
    pub async fn receive(&self, queue: &str, at_most: usize) -> Vec<Message> {
        let mut messages = Vec::new();
        while messages.len() < at_most {
            // SQS's own limit is 10.
            let count = (at_most - messages.len()).min(10);
            let request = self.sqs.receive_message().queue_url(self.queue_url(queue));
            let request = request
                .max_number_of_messages(i32::try_from(count).expect("a small number"))
                .message_system_attribute_names(MessageSystemAttributeName::All);
            let received = request.send().await.expect("the queue can be read");
            let received = received.messages.unwrap_or_default();
            if received.is_empty() {
                break;
            }
            messages.extend(received.into_iter().map(Message::from));
        }
        messages
    }

    /// Receives exactly this many messages, waiting for them.
    pub async fn receive_all(&self, queue: &str, count: usize) -> Vec<Message> {
        let deadline = Instant::now() + PATIENCE;
        let mut messages = Vec::new();
        loop {
            messages.extend(self.receive(queue, count - messages.len()).await);
            if messages.len() == count {
                return messages;
            }
            let there = messages.len();
            assert!(Instant::now() < deadline, "{queue} has {there} of {count} messages");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Acts as Lambda's event source mapping of the task queue: waits for this many messages,
    /// invokes the function with them, and deletes those that it acknowledges.
    pub async fn deliver(&self, function: &mut Function, count: usize) -> Delivered {
        let messages = self.receive_all(TASK_QUEUE, count).await;
        self.hand_over(function, messages).await
    }

    /// The same with messages of the task queue that were already received.
    pub async fn hand_over(&self, function: &mut Function, messages: Vec<Message>) -> Delivered {
        let records = messages.iter().map(Message::record).collect();
        let response = function.invoke(&harness::events::batch(records)).await;
        let trigger = self.template.trigger(TASK_QUEUE, &function.name);
        let partial = trigger["FunctionResponseTypes"]
            .as_array()
            .is_some_and(|types| types.contains(&json!("ReportBatchItemFailures")));
        let ids = messages.iter().map(|message| message.id.as_str()).collect();
        let redelivered = match &response {
            Ok(response) if partial => failures(response, ids),
            Ok(_) => Vec::new(),
            Err(_) => ids,
        };
        let url = self.queue_url(TASK_QUEUE);
        for message in &messages {
            if !redelivered.contains(&message.id.as_str()) {
                let request = self.sqs.delete_message().queue_url(url);
                let deleted = request.receipt_handle(&message.receipt_handle).send().await;
                deleted.expect("the message is deleted");
            }
        }
        let redelivered = messages
            .iter()
            .filter(|message| redelivered.contains(&message.id.as_str()));
        Delivered {
            redelivered: redelivered.map(|message| message.body.clone()).collect(),
            messages,
            error: response.err(),
        }
    }
}

/// The messages that a response reports as failed; all of them if the response is invalid (AWS
/// Lambda Developer Guide, "Implementing partial batch responses").
fn failures<'a>(response: &Value, ids: Vec<&'a str>) -> Vec<&'a str> {
    let failures = match response {
        Value::Null => return Vec::new(),
        response => response.get("batchItemFailures"),
    };
    let failures = match failures {
        None | Some(Value::Null) => return Vec::new(),
        Some(Value::Array(failures)) => failures,
        Some(_) => return ids,
    };
    let identifiers = failures.iter().map(|failure| failure["itemIdentifier"].as_str());
    let known = |id: Option<&str>| ids.iter().copied().find(|known| Some(*known) == id);
    match identifiers.map(known).collect() {
        Some(failed) => failed,
        None => ids,
    }
}

impl Message {
    /// Its record in a Lambda event.
    pub fn record(&self) -> Value {
        json!({
            "messageId": self.id,
            "receiptHandle": self.receipt_handle,
            "body": self.body,
            "attributes": self.attributes,
            "messageAttributes": {},
            "eventSource": "aws:sqs",
            "eventSourceARN": "arn:aws:sqs:us-east-1:000000000000:task-queue",
            "awsRegion": "us-east-1",
        })
    }
}

impl From<aws_sdk_sqs::types::Message> for Message {
    fn from(message: aws_sdk_sqs::types::Message) -> Self {
        let attributes = message.attributes.unwrap_or_default().into_iter();
        let attributes: Map<String, Value> = attributes
            .map(|(name, value)| (name.as_str().to_owned(), value.into()))
            .collect();
        let receives = attributes.get("ApproximateReceiveCount").and_then(Value::as_str);
        Self {
            body: message.body.unwrap_or_default(),
            receives: receives.and_then(|count| count.parse().ok()).unwrap_or(1),
            id: message.message_id.unwrap_or_default(),
            receipt_handle: message.receipt_handle.unwrap_or_default(),
            attributes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn response_is_read_as_lambda_reads_it() {
        let failures = |response: Value| failures(&response, vec!["a", "b"]);
        let item = |id: &str| json!({"itemIdentifier": id});
        assert_eq!(failures(json!(null)), [""; 0]);
        assert_eq!(failures(json!({})), [""; 0]);
        assert_eq!(failures(json!({"batchItemFailures": null})), [""; 0]);
        assert_eq!(failures(json!({"batchItemFailures": []})), [""; 0]);
        assert_eq!(failures(json!({"batchItemFailures": [item("b")]})), ["b"]);
        for invalid in [
            json!([item("c")]),
            json!([item("")]),
            json!([{"itemIdentifier": null}]),
            json!("b"),
        ] {
            assert_eq!(failures(json!({"batchItemFailures": invalid})), ["a", "b"], "{invalid}");
        }
    }
}
