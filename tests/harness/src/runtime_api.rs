//! A stub of the Lambda runtime API, as far as functions use it (AWS Lambda Developer Guide, "Using
//! the Lambda runtime API for custom runtimes").

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

/// The runtime API for one function.
pub struct RuntimeApi {
    pub address: SocketAddr,
    invocations: mpsc::UnboundedSender<(String, Duration)>,
    events: mpsc::UnboundedReceiver<RuntimeEvent>,
}

/// A call of the API by the function.
pub struct RuntimeEvent {
    /// When the call was completely received.
    pub at: Instant,
    pub call: RuntimeCall,
}

pub enum RuntimeCall {
    /// The request for the next invocation.
    Next,
    /// The response to an invocation.
    Response(Bytes),
    /// The error of an invocation or of the init phase.
    Error(Bytes),
}

struct Server {
    invocations: Mutex<mpsc::UnboundedReceiver<(String, Duration)>>,
    events: mpsc::UnboundedSender<RuntimeEvent>,
}

impl RuntimeApi {
    /// Serves the API on a free port.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (invocations, receiver) = mpsc::unbounded_channel();
        let (sender, events) = mpsc::unbounded_channel();
        let server = Arc::new(Server {
            invocations: Mutex::new(receiver),
            events: sender,
        });
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = Arc::clone(&server);
                tokio::spawn(async move {
                    // Otherwise the second segment of a response waits for the acknowledgment of
                    // the first.
                    let _ = stream.set_nodelay(true);
                    let service = service_fn(|request| server.respond(request));
                    // Ends when the function disconnects.
                    let _ = http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Ok(Self {
            address,
            invocations,
            events,
        })
    }

    /// Queues an invocation whose deadline is `time` from when the function receives it.
    pub fn invoke(&self, event: &str, time: Duration) -> Result<()> {
        let invocation = (event.to_owned(), time);
        self.invocations
            .send(invocation)
            .ok()
            .context("the runtime API is not running")
    }

    /// The next call.
    pub async fn next_event(&mut self) -> RuntimeEvent {
        self.events.recv().await.expect("the server runs as long as this")
    }
}

impl Server {
    async fn respond(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>> {
        let at = Instant::now();
        let path = request.uri().path().to_owned();
        if (request.method(), path.as_str()) == (&Method::GET, "/2018-06-01/runtime/invocation/next") {
            self.events.send(RuntimeEvent {
                at,
                call: RuntimeCall::Next,
            })?;
            let invocation = self.invocations.lock().await.recv().await;
            let (event, time) = invocation.context("the host was dropped")?;
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
        // Once the body has arrived, as on Lambda.
        let at = Instant::now();
        let call = match path.rsplit('/').next() {
            Some("response") => RuntimeCall::Response(body),
            _ => RuntimeCall::Error(body),
        };
        self.events.send(RuntimeEvent { at, call })?;
        let accepted = Response::builder().status(StatusCode::ACCEPTED);
        Ok(accepted.body(Full::from(r#"{"status":"OK"}"#))?)
    }
}
