//! SQS queues of a test's own, in the stack's SQS.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU32, Ordering},
};

use aws_lambda_events::sqs::SqsEvent;
use aws_sdk_sqs::{
    Client,
    config::Builder,
    types::{Message, MessageSystemAttributeName},
};
use harness::{Bytes, HttpResponse, Request, serve};
use queue::{DeadLetterQueue, TaskQueue};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

/// A queue that only this test uses.
pub struct TestQueue {
    client: Client,
    url: String,
}

impl TestQueue {
    /// Creates one.
    pub async fn create() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let client = sqs();
        let created = client
            .create_queue()
            .queue_name(name)
            .send()
            .await
            .expect("the queue is created");
        let url = created.queue_url().expect("a queue has a URL").to_owned();
        Self { client, url }
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The function's side of it.
    pub fn sender(&self) -> TaskQueue {
        TaskQueue::new(client_config(), self.url.clone())
    }

    /// What an operator sees of it as the dead-letter queue of another one.
    pub fn as_dead_letter_queue_of(&self, source: &Self) -> DeadLetterQueue {
        DeadLetterQueue::new(client_config(), self.url.clone(), source.url.clone())
    }

    /// Puts messages into it.
    pub async fn send(&self, bodies: &[String]) {
        for body in bodies {
            let request = self.client.send_message().queue_url(&self.url).message_body(body);
            request.send().await.expect("the message is sent");
        }
    }

    /// Receives messages as the event source mapping does: all in one event.
    pub async fn receive_as_event(&self, count: usize) -> SqsEvent {
        let request = self.client.receive_message().queue_url(&self.url);
        let request = request
            .max_number_of_messages(count as i32)
            .message_system_attribute_names(MessageSystemAttributeName::All);
        let received = request.send().await.expect("the queue can be read");
        let records: Vec<_> = received.messages().iter().map(as_record).collect();
        assert_eq!(records.len(), count);
        serde_json::from_value(json!({"Records": records})).expect("an SQS event")
    }

    /// The bodies of all messages in it.
    pub async fn bodies(&self) -> Vec<String> {
        let mut bodies = Vec::new();
        loop {
            let request = self
                .client
                .receive_message()
                .queue_url(&self.url)
                .max_number_of_messages(10);
            let received = request.send().await.expect("the queue can be read");
            if received.messages().is_empty() {
                return bodies;
            }
            bodies.extend(
                received
                    .messages()
                    .iter()
                    .filter_map(|message| message.body().map(str::to_owned)),
            );
        }
    }
}

fn as_record(message: &Message) -> Value {
    let attributes = message.attributes().into_iter().flatten();
    let attributes: Map<String, Value> = attributes
        .map(|(name, value)| (name.as_str().to_owned(), json!(value)))
        .collect();
    json!({
        "messageId": message.message_id(),
        "receiptHandle": message.receipt_handle(),
        "body": message.body(),
        "attributes": attributes,
    })
}

/// An SQS that refuses connections.
pub async fn refusing_sqs() -> Builder {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    sqs_at(&listener)
}

/// An SQS that accepts connections and never responds.
pub async fn hanging_sqs() -> Builder {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let sqs = sqs_at(&listener);
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok(connection) = listener.accept().await {
            held.push(connection);
        }
    });
    sqs
}

fn sqs_at(listener: &TcpListener) -> Builder {
    let address = listener.local_addr().expect("an address");
    client_config().endpoint_url(format!("http://{address}"))
}

/// A queue of an SQS that refuses connections.
pub async fn refusing_queue() -> TaskQueue {
    TaskQueue::new(refusing_sqs().await, "http://sqs/000000000000/none".to_owned())
}

/// How the functions speak with the stack's SQS.
pub fn client_config() -> Builder {
    super::env("AWS_ENDPOINT_URL");
    queue::client_config().expect("the environment of `make test`")
}

/// The stack's SQS.
pub fn sqs() -> Client {
    Client::from_conf(client_config().build())
}

/// An SQS that responds to each action as told, and notes its requests. The local AWS cannot move messages by itself,
/// and loses the system attributes of a batch.
pub async fn sqs_that_answers(respond: impl Fn(&str, usize) -> Value + Send + Sync + 'static) -> (String, Asked) {
    let asked = Asked::default();
    let noted = asked.clone();
    let url = serve(move |request: Request<Bytes>| {
        let target = request.headers()["x-amz-target"].to_str().expect("text");
        let action = target.rsplit('.').next().unwrap_or_default().to_owned();
        let times = {
            let mut noted = noted.lock().expect("not poisoned");
            noted.push((action.clone(), serde_json::from_slice(request.body()).expect("JSON")));
            noted.iter().filter(|(earlier, _)| *earlier == action).count()
        };
        let body = respond(&action, times);
        let status = if body["__type"].is_null() { 200 } else { 400 };
        let response = HttpResponse::builder().status(status);
        let response = response.header("content-type", "application/x-amz-json-1.0");
        response.body(body.to_string()).expect("a response")
    });
    (url.await, asked)
}

/// The requested actions, with their requests.
pub type Asked = Arc<Mutex<Vec<(String, Value)>>>;
