//! Connections to SQS that die silently, as while an execution environment is frozen.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use queue::{TaskQueue, https};
use serde_json::{Value, json};
use shared::domain::TaskId;
use sqlx::PgPool;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy, sink},
    net::{TcpListener, TcpStream},
};

use crate::support::{App, client_config, row};

/// An SQS that responds to this many requests on each connection, and to further ones never.
struct SilentSqs {
    url: String,
    connections: Arc<AtomicUsize>,
}

impl SilentSqs {
    async fn after(requests: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let connections = Arc::<AtomicUsize>::default();
        let counter = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, requests));
            }
        });
        Self { url, connections }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    fn queue(&self, http_client: aws_sdk_sqs::config::SharedHttpClient) -> TaskQueue {
        let config = client_config().endpoint_url(&self.url).http_client(http_client);
        TaskQueue::new(config, "http://sqs/000000000000/tasks".to_owned())
    }
}

async fn serve(stream: TcpStream, requests: usize) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    for _ in 0..requests {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let line = line.to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
            if line.trim().is_empty() {
                break;
            }
        }
        stream.read_exact(&mut vec![0; length]).await?;
        let body = r#"{"MessageId":"m"}"#;
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.0";
        let response = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(response.as_bytes()).await?;
    }
    copy(&mut stream, &mut sink()).await.map(|_| ())
}

/// Sends a message and returns how long that took.
async fn send(queue: &TaskQueue) -> Duration {
    let started = Instant::now();
    let id = TaskId::try_from(1).expect("an id");
    queue.send(id, 0, None).await.expect("the message is accepted");
    started.elapsed()
}

#[tokio::test]
async fn silent_connection_is_replaced_in_time() {
    let sqs = SilentSqs::after(1).await;
    let queue = sqs.queue(https::client());
    send(&queue).await;
    for number in 2..=5 {
        let took = send(&queue).await;
        assert!(took < Duration::from_millis(1000), "{took:?}");
        assert_eq!(sqs.connections(), number);
    }
}

#[tokio::test]
async fn idle_connection_is_reused_only_for_seconds() {
    let sqs = SilentSqs::after(1).await;
    let queue = sqs.queue(https::client_reusing(&[], Duration::ZERO));
    for number in 1..=3 {
        // Without waiting for a timeout.
        let took = send(&queue).await;
        assert!(took < Duration::from_millis(350), "{took:?}");
        assert_eq!(sqs.connections(), number);
    }

    let sqs = SilentSqs::after(usize::MAX).await;
    let queue = sqs.queue(https::client());
    for _ in 0..3 {
        send(&queue).await;
    }
    assert_eq!(sqs.connections(), 1);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn task_is_enqueued_despite_silent_connection(pool: PgPool) {
    let sqs = SilentSqs::after(1).await;
    let app = App::new(&pool).with_sqs(client_config().endpoint_url(&sqs.url));
    for number in 1..=3 {
        let started = Instant::now();
        let created = app.post("/tasks", json!({"title": "t"})).await;
        assert_eq!(created.status(), 201);
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
        assert_ne!(row(&pool, created.id()).await["enqueued_at"], Value::Null);
        assert_eq!(sqs.connections(), number);
    }
}
