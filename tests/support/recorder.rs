//! A proxy in front of the stack's SQS that records requests.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use aws_sdk_sqs::config::Builder;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
};

pub struct Recorder {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let upstream = super::env("AWS_ENDPOINT_URL").replace("http://", "");
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let recorded = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&upstream).await.expect("SQS accepts connections");
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(forward(from_client, to_server, Some(Arc::clone(&recorded))));
                tokio::spawn(forward(from_server, to_client, None));
            }
        });
        Self { url, requests }
    }

    /// The functions' client configuration, with the proxy as endpoint.
    pub fn client_config(&self) -> Builder {
        super::client_config().endpoint_url(&self.url)
    }

    /// The requested actions, such as "SendMessage".
    pub fn actions(&self) -> BTreeSet<String> {
        let requests = self.requests.lock().expect("not poisoned");
        let lines = requests.iter().flat_map(|request| request.lines());
        let actions = lines.filter_map(|line| {
            let (name, value) = line.split_once(": ")?;
            let target = name.eq_ignore_ascii_case("x-amz-target").then_some(value)?;
            // AWS General Reference, "AWS JSON 1.0 protocol": the service's version and the
            // operation.
            Some(target.strip_prefix("AmazonSQS.")?.to_owned())
        });
        actions.collect()
    }
}

/// Forwards bytes, and records them as one text for each connection.
async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, record: Option<Arc<Mutex<Vec<String>>>>) {
    let number = record.as_ref().map(|recorded| {
        let mut recorded = recorded.lock().expect("not poisoned");
        recorded.push(String::new());
        recorded.len() - 1
    });
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if let (Some(recorded), Some(number)) = (&record, number) {
            let text = String::from_utf8_lossy(&buffer[..length]);
            recorded.lock().expect("not poisoned")[number].push_str(&text);
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
