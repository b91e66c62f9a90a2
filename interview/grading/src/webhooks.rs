//! A server that receives webhooks.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;

/// Records calls, and replies as configured.
pub struct Webhooks {
    address: SocketAddr,
    calls: Arc<Mutex<Vec<Call>>>,
}

/// A configured reply to a call.
#[derive(Clone, Debug)]
pub enum Reply {
    /// This status, and an empty body.
    Status(u16),
    /// 307, which redirects the same request to this URL.
    Redirect(String),
    /// No response, while the connection stays open.
    Silence,
}

/// A recorded call.
#[derive(Clone, Debug)]
pub struct Call {
    /// Like `POST`.
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// Headers by lower-case name.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: String,
}

impl Call {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("not JSON, {error}: {}", self.body))
    }
}

impl Webhooks {
    /// Serves on a free port. Calls get the replies in turn, later calls the last one, and 200 if
    /// there are none.
    pub async fn start(replies: &[Reply]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (calls, replies) = (Arc::<Mutex<Vec<Call>>>::default(), Arc::new(replies.to_vec()));
        let noted = Arc::clone(&calls);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (noted, replies) = (Arc::clone(&noted), Arc::clone(&replies));
                tokio::spawn(async move {
                    let service = service_fn(|request| respond(request, &noted, &replies));
                    // Ends with the client.
                    let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                    let _ = served.await;
                });
            }
        });
        Self { address, calls }
    }

    /// The URL of a path, like `/hook`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The calls so far.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().expect("not poisoned").clone()
    }
}

async fn respond(
    request: Request<Incoming>,
    noted: &Mutex<Vec<Call>>,
    replies: &[Reply],
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let headers = head.headers.iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes());
        (name.as_str().to_owned(), value.into_owned())
    });
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let call = Call {
        method: head.method.to_string(),
        path: head.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        headers: headers.collect(),
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    let earlier = {
        let mut noted = noted.lock().expect("not poisoned");
        noted.push(call);
        noted.len() - 1
    };
    let reply = replies.get(earlier).or(replies.last()).cloned();
    let response = match reply.unwrap_or(Reply::Status(200)) {
        Reply::Status(status) => Response::builder().status(status),
        Reply::Redirect(url) => Response::builder().status(307).header("location", url),
        Reply::Silence => std::future::pending().await,
    };
    let response = response.body(Full::default());
    Ok(response.expect("a status that there is"))
}
