//! SQS queues of a test's own, in the stack's SQS.

use std::sync::atomic::{AtomicU32, Ordering};

use aws_sdk_sqs::Client;
use queue::TaskQueue;
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
        super::env("AWS_ENDPOINT_URL");
        let client = Client::new(&queue::sdk_config().await);
        let created = client
            .create_queue()
            .queue_name(name)
            .send()
            .await
            .expect("the queue is created");
        let url = created.queue_url().expect("a queue has a URL").to_owned();
        Self { client, url }
    }

    /// The function's side of it.
    pub async fn sender(&self) -> TaskQueue {
        TaskQueue::new(&queue::sdk_config().await, self.url.clone())
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

/// A queue at an address where connections are refused, or accepted and never answered.
pub async fn queue_nobody_serves(accepts: bool) -> TaskQueue {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    if accepts {
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok(connection) = listener.accept().await {
                held.push(connection);
            }
        });
    } else {
        drop(listener);
    }
    let endpoint = format!("http://{address}");
    let config = queue::sdk_config().await.into_builder().endpoint_url(&endpoint).build();
    TaskQueue::new(&config, format!("{endpoint}/000000000000/none"))
}
