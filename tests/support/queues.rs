//! Separate SQS queues for each test, in the stack's SQS.

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

    pub fn url(&self) -> &str {
        &self.url
    }

    /// The queue as the functions use it.
    pub fn sender(&self) -> TaskQueue {
        TaskQueue::new(client_config(), self.url.clone())
    }

    /// The queue as the dead-letter queue of another one, for operators.
    pub fn as_dead_letter_queue_of(&self, source: &Self) -> DeadLetterQueue {
        DeadLetterQueue::new(client_config(), self.url.clone(), source.url.clone())
    }

    /// Sends one message for each body.
    pub async fn send(&self, bodies: &[String]) {
        for body in bodies {
            let request = self.client.send_message().queue_url(&self.url).message_body(body);
            request.send().await.expect("the message is sent");
        }
    }

    /// Receives `count` messages as one event, as the event source mapping does.
    pub async fn receive_as_event(&self, count: usize) -> SqsEvent {
        let event = self.poll(count).await;
        assert_eq!(event.records.len(), count);
        event
    }

    /// Receives up to `count` messages as one event.
    pub async fn poll(&self, count: usize) -> SqsEvent {
        let request = self.client.receive_message().queue_url(&self.url);
        let request = request
            .max_number_of_messages(count as i32)
            .message_system_attribute_names(MessageSystemAttributeName::All);
        let received = request.send().await.expect("the queue can be read");
        let records: Vec<_> = received.messages().iter().map(as_record).collect();
        serde_json::from_value(json!({"Records": records})).expect("an SQS event")
    }

    /// Receives all messages, and returns their bodies.
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

/// The functions' client configuration, with the endpoint of the stack's SQS.
pub fn client_config() -> Builder {
    super::env("AWS_ENDPOINT_URL");
    queue::client_config().expect("the environment of `make test`")
}

/// A client for the stack's SQS.
pub fn sqs() -> Client {
    Client::from_conf(client_config().build())
}

/// A stub of SQS. `respond` gets the action and the request's body.
pub async fn sqs_stub(respond: impl Fn(&str, Value) -> Value + Send + Sync + 'static) -> String {
    serve(move |request: Request<Bytes>| {
        let target = request.headers()["x-amz-target"].to_str().expect("text");
        let action = target.rsplit('.').next().unwrap_or_default();
        let body = respond(action, serde_json::from_slice(request.body()).expect("JSON"));
        let status = if body["__type"].is_null() { 200 } else { 400 };
        let response = HttpResponse::builder().status(status);
        let response = response.header("content-type", "application/x-amz-json-1.0");
        response.body(body.to_string()).expect("a response")
    })
    .await
}

/// A stub of SQS with scripted responses, and the requests that it has recorded: for what the
/// emulator lacks, message move tasks and the system attributes of a batch.
///
/// `respond` gets the action and how often it has been requested.
pub async fn scripted_sqs(respond: impl Fn(&str, usize) -> Value + Send + Sync + 'static) -> (String, SqsLog) {
    let requests = SqsLog::default();
    let recorded = requests.clone();
    let url = sqs_stub(move |action, request| {
        let times = {
            let mut recorded = recorded.lock().expect("not poisoned");
            recorded.push((action.to_owned(), request));
            recorded.iter().filter(|(earlier, _)| *earlier == action).count()
        };
        respond(action, times)
    });
    (url.await, requests)
}

/// The requested actions with their request bodies.
pub type SqsLog = Arc<Mutex<Vec<(String, Value)>>>;
