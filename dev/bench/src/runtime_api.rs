//! The Lambda runtime API, as far as a function needs it (AWS Lambda Developer Guide, "Using the Lambda runtime API for
//! custom runtimes").

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result};
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpListener,
    sync::{Mutex, mpsc},
};

/// The API of one function.
pub struct RuntimeApi {
    /// Where it is served.
    pub address: SocketAddr,
    events: mpsc::UnboundedSender<(String, Duration)>,
    news: mpsc::UnboundedReceiver<News>,
}

/// What a function has called.
pub struct News {
    /// When the call had arrived.
    pub at: Instant,
    /// Which one it was.
    pub call: Call,
}

/// A call of the API.
pub enum Call {
    /// The function asks for an invocation.
    Next,
    /// It has answered one.
    Response(Bytes),
    /// It could not, or not even start.
    Error(Bytes),
}

struct Server {
    events: Mutex<mpsc::UnboundedReceiver<(String, Duration)>>,
    news: mpsc::UnboundedSender<News>,
}

impl RuntimeApi {
    /// Serves it on a port of its own.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (events, receiver) = mpsc::unbounded_channel();
        let (sender, news) = mpsc::unbounded_channel();
        let server = Arc::new(Server {
            events: Mutex::new(receiver),
            news: sender,
        });
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = Arc::clone(&server);
                tokio::spawn(async move {
                    // Otherwise an answer in two segments waits for the acknowledgement of the first.
                    let _ = stream.set_nodelay(true);
                    let service = service_fn(|request| server.answer(request));
                    // Ends with the function.
                    let _ = http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Ok(Self { address, events, news })
    }

    /// Has the function invoked with an event, for which it has this much time, as soon as it asks.
    pub fn invoke(&self, event: &str, time: Duration) -> Result<()> {
        let invocation = (event.to_owned(), time);
        self.events.send(invocation).ok().context("the API is not served")
    }

    /// What the function has called next.
    pub async fn next_call(&mut self) -> News {
        self.news.recv().await.expect("the server lives as long as this")
    }
}

impl Server {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>> {
        let at = Instant::now();
        let path = request.uri().path().to_owned();
        if (request.method(), path.as_str()) == (&Method::GET, "/2018-06-01/runtime/invocation/next") {
            self.news.send(News { at, call: Call::Next })?;
            let invocation = self.events.lock().await.recv().await;
            let (event, time) = invocation.context("nobody invokes")?;
            let deadline = (SystemTime::now() + time).duration_since(SystemTime::UNIX_EPOCH)?;
            return Ok(Response::builder()
                .header("content-type", "application/json")
                .header("lambda-runtime-aws-request-id", "5f0a7c1e-0a4e-4b7c-9a53-1b6f9f3f0c11")
                .header("lambda-runtime-deadline-ms", deadline.as_millis().to_string())
                .header(
                    "lambda-runtime-invoked-function-arn",
                    "arn:aws:lambda:eu-central-1:123456789012:function:bench",
                )
                .header(
                    "lambda-runtime-trace-id",
                    "Root=1-66f1b2c3-0123456789abcdef01234567;Sampled=0",
                )
                .body(Full::from(event))?);
        }
        let body = request.into_body().collect().await?.to_bytes();
        // Not before the body is here: that is when Lambda has the answer.
        let at = Instant::now();
        let call = match path.rsplit('/').next() {
            Some("response") => Call::Response(body),
            _ => Call::Error(body),
        };
        self.news.send(News { at, call })?;
        let accepted = Response::builder().status(StatusCode::ACCEPTED);
        Ok(accepted.body(Full::from(r#"{"status":"OK"}"#))?)
    }
}
