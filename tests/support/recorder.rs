//! An SQS that notes what it is asked for, and has the stack's SQS answer.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use aws_sdk_sqs::config::Builder;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
};

/// Stands in front of the stack's SQS.
pub struct Recorder {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    /// Listens.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let upstream = super::env("AWS_ENDPOINT_URL").replace("http://", "");
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let noted = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&upstream).await.expect("SQS is there");
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(forward(from_client, to_server, Some(Arc::clone(&noted))));
                tokio::spawn(forward(from_server, to_client, None));
            }
        });
        Self { url, requests }
    }

    /// How to reach it.
    pub fn client_config(&self) -> Builder {
        super::client_config().endpoint_url(&self.url)
    }

    /// The actions that it was asked for: "SendMessage".
    pub fn actions(&self) -> BTreeSet<String> {
        let requests = self.requests.lock().expect("not poisoned");
        let lines = requests.iter().flat_map(|request| request.lines());
        let actions = lines.filter_map(|line| {
            let (name, value) = line.split_once(": ")?;
            let target = name.eq_ignore_ascii_case("x-amz-target").then_some(value)?;
            // AWS General Reference, "AWS JSON 1.0 protocol": the service's version and the operation.
            Some(target.strip_prefix("AmazonSQS.")?.to_owned())
        });
        actions.collect()
    }
}

/// Hands on what comes, and notes it as one text for the connection.
async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, note: Option<Arc<Mutex<Vec<String>>>>) {
    let number = note.as_ref().map(|noted| {
        let mut noted = noted.lock().expect("not poisoned");
        noted.push(String::new());
        noted.len() - 1
    });
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if let (Some(noted), Some(number)) = (&note, number) {
            let text = String::from_utf8_lossy(&buffer[..length]);
            noted.lock().expect("not poisoned")[number].push_str(&text);
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
