//! The event source mapping, which passes the messages of the task queue to the task-processor.
//! While it is disabled, processing is paused: messages wait in the queue.
//!
//! Two requests to Lambda, signed by `shared`. aws-sdk-lambda has types for every other request as
//! well: too many to compile and to ship, for one member of a JSON object.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use aws_smithy_types::body::SdkBody;
use confique::Config;
use http_body_util::{BodyExt, Limited};
use hyper::{Method, Request, StatusCode, body::Bytes};
use serde::{Deserialize, Serialize};
use shared::{
    config::{self, AwsCredentials, ConfigError},
    signature::Signer,
};
use time::OffsetDateTime;
use tokio::time::timeout;

use crate::{EndpointConfig, https::Connections};

/// The timeout of reading the state: that of a call of SQS.
const GET_TIMEOUT: Duration = crate::OPERATION_TIMEOUT;

/// The timeout of a change. Together with a statement, less than that of the function.
const UPDATE_TIMEOUT: Duration = Duration::from_secs(3);

/// The maximum size of a response, in bytes. Lambda's have about one KiB.
const MAX_BODY: usize = 64 * 1024;

/// The errors of Lambda while an earlier change is not complete (AWS Lambda API Reference,
/// "UpdateEventSourceMapping").
const CHANGING: [&str; 2] = ["ResourceConflictException", "ResourceInUseException"];

#[derive(Config)]
struct MappingConfig {
    /// The id of the mapping. Without one, as under `cargo lambda watch` and `sam local`, nothing
    /// processes messages.
    #[config(env = "EVENT_SOURCE_MAPPING_ID")]
    event_source_mapping_id: Option<String>,
}

/// Why a request to Lambda failed.
#[derive(Debug, thiserror::Error)]
pub enum MappingError {
    /// An earlier change is not complete.
    #[error("the event source mapping is being changed")]
    Changing(#[source] Refusal),
    /// Lambda refused the request for another reason.
    #[error("Lambda refused the request")]
    Refused(#[source] Refusal),
    /// Lambda is unreachable, or the response is not what it documents.
    #[error("Lambda cannot be reached")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Lambda did not respond in time.
    #[error("Lambda did not respond in time")]
    TimedOut,
}

/// An error response of Lambda.
#[derive(Debug, thiserror::Error)]
#[error("{status} {code}: {body}")]
pub struct Refusal {
    status: StatusCode,
    code: String,
    body: String,
}

/// The state of the mapping.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct MappingState {
    /// `Creating`, `Enabling`, `Enabled`, `Disabling`, `Disabled`, `Updating` or `Deleting` (AWS
    /// Lambda API Reference, "GetEventSourceMapping").
    #[serde(rename = "State")]
    pub name: String,
}

impl MappingState {
    /// True if the mapping passes on no messages, or soon will not.
    pub fn is_paused(&self) -> bool {
        matches!(self.name.as_str(), "Disabling" | "Disabled")
    }
}

#[derive(Serialize)]
struct Update {
    #[serde(rename = "Enabled")]
    enabled: bool,
}

/// The mapping of the task queue. Clones share the connection.
#[derive(Clone)]
pub struct EventSourceMapping {
    credentials: AwsCredentials,
    /// The URL of Lambda, without a slash at the end.
    endpoint: String,
    path: String,
    /// Created by the first request, so that it does not slow down init.
    connections: Arc<LazyLock<Connections>>,
}

impl EventSourceMapping {
    /// The mapping of the environment (`EVENT_SOURCE_MAPPING_ID`), if any. Does not connect yet.
    pub fn from_env() -> Result<Option<Self>, ConfigError> {
        let config: MappingConfig = config::from_env()?;
        let Some(id) = config.event_source_mapping_id.filter(|id| !id.is_empty()) else {
            return Ok(None);
        };
        let credentials: AwsCredentials = config::from_env()?;
        let endpoint = config::from_env::<EndpointConfig>()?.aws_endpoint_url;
        let endpoint = endpoint.unwrap_or_else(|| format!("https://lambda.{}.amazonaws.com", credentials.region));
        Ok(Some(Self::new(credentials, &endpoint, &id)))
    }

    /// The mapping with this id, in the Lambda at this URL.
    pub fn new(credentials: AwsCredentials, endpoint: &str, id: &str) -> Self {
        Self {
            credentials,
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            path: format!("/2015-03-31/event-source-mappings/{id}"),
            connections: Arc::new(LazyLock::new(Connections::default)),
        }
    }

    /// Reads its state.
    pub async fn state(&self) -> Result<MappingState, MappingError> {
        self.send(Method::GET, String::new(), GET_TIMEOUT).await
    }

    /// Enables or disables it, which Lambda completes after its response. Repeated, nothing changes.
    pub async fn set_enabled(&self, enabled: bool) -> Result<MappingState, MappingError> {
        let body = serde_json::to_string(&Update { enabled }).expect("a boolean always serializes");
        self.send(Method::PUT, body, UPDATE_TIMEOUT).await
    }

    async fn send(&self, method: Method, body: String, within: Duration) -> Result<MappingState, MappingError> {
        let request = self.request(method, body)?;
        let exchange = async {
            let response = self.connections.send(request).await;
            let (head, body) = response.map_err(unreachable)?.into_parts();
            let body = Limited::new(body, MAX_BODY).collect().await;
            Ok((head, body.map_err(MappingError::Unreachable)?.to_bytes()))
        };
        let (head, body) = timeout(within, exchange).await.map_err(|_| MappingError::TimedOut)??;
        if head.status.is_success() {
            return serde_json::from_slice(&body).map_err(unreachable);
        }
        // "ResourceInUseException:http://..."
        let code = head.headers.get("x-amzn-errortype").and_then(|code| code.to_str().ok());
        let code = code.unwrap_or_default().split(':').next().unwrap_or_default();
        Err(refused(head.status, code, &body))
    }

    fn request(&self, method: Method, body: String) -> Result<Request<SdkBody>, MappingError> {
        let (_, host) = self.endpoint.split_once("://").unwrap_or_default();
        let signer = Signer::new(&self.credentials, "lambda", OffsetDateTime::now_utc());
        let headers = signer.headers(method.as_str(), host, &self.path, &body);
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{}", self.endpoint, self.path))
            .header("host", host)
            .header("content-type", "application/json");
        let request = headers
            .into_iter()
            .fold(request, |request, (name, value)| request.header(name, value));
        request.body(SdkBody::from(body)).map_err(unreachable)
    }
}

fn refused(status: StatusCode, code: &str, body: &Bytes) -> MappingError {
    let refusal = Refusal {
        status,
        code: code.to_owned(),
        body: String::from_utf8_lossy(body).into_owned(),
    };
    match CHANGING.contains(&code) {
        true => MappingError::Changing(refusal),
        false => MappingError::Refused(refusal),
    }
}

fn unreachable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> MappingError {
    MappingError::Unreachable(error.into())
}
