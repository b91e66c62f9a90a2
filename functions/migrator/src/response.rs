//! The response to CloudFormation: a document that is uploaded to the URL in the request.

use std::time::Duration;

use http_body_util::Full;
use hyper::{Method, StatusCode, body::Bytes};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use lambda_runtime::Diagnostic;
use serde::Serialize;
use serde_json::json;
use shared::telemetry;
use tokio::time::{sleep, timeout};

use crate::{MigratorError, Request};

/// The maximum size of a response, in bytes (AWS CloudFormation User Guide, "Custom resource
/// response objects").
const MAX_RESPONSE: usize = 4096;

/// The physical id of the resource. Constant: CloudFormation would delete the resource with the
/// previous id.
const RESOURCE_ID: &str = "migrations";

/// How often to try to send the response, the timeout of each attempt, and the time between
/// attempts. In total they fit into the time that [`crate::handle`] reserves.
const ATTEMPTS: u32 = 3;
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(4);
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// CloudFormation did not get the response.
#[derive(Debug, thiserror::Error)]
pub enum ResponseError {
    /// S3 is unreachable, or the URL is invalid.
    #[error("the response to CloudFormation could not be sent")]
    Send(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// S3 refused the upload.
    #[error("the response to CloudFormation was refused: {0}")]
    Refused(StatusCode),
    /// S3 did not respond in time.
    #[error("sending the response to CloudFormation timed out")]
    TimedOut,
}

impl From<ResponseError> for Diagnostic {
    fn from(error: ResponseError) -> Self {
        telemetry::diagnostic("ResponseError", &error)
    }
}

/// AWS CloudFormation User Guide, "Custom resource response objects".
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Response<'a> {
    status: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    physical_resource_id: &'static str,
    stack_id: &'a str,
    request_id: &'a str,
    logical_resource_id: &'a str,
    data: serde_json::Value,
}

/// Reports the outcome to CloudFormation; on success, with the name of the database.
pub(crate) async fn send(
    request: &Request,
    outcome: Result<Option<String>, MigratorError>,
) -> Result<(), ResponseError> {
    let body = body(request, outcome);
    for _ in 1..ATTEMPTS {
        match put(&request.response_url, body.clone()).await {
            Ok(()) => return Ok(()),
            Err(error) => telemetry::log_error(&error, "retrying"),
        }
        sleep(RETRY_INTERVAL).await;
    }
    put(&request.response_url, body).await
}

fn body(request: &Request, outcome: Result<Option<String>, MigratorError>) -> Bytes {
    let (status, mut reason, data) = match outcome {
        Ok(database) => ("SUCCESS", String::new(), database.map(|name| json!({"Database": name}))),
        Err(error) => ("FAILED", error.to_string(), None),
    };
    loop {
        let response = Response {
            status,
            reason: &reason,
            physical_resource_id: RESOURCE_ID,
            stack_id: &request.stack_id,
            request_id: &request.request_id,
            logical_resource_id: &request.logical_resource_id,
            data: data.clone().unwrap_or_else(|| json!({})),
        };
        let body = serde_json::to_vec(&response).expect("text always serializes");
        // Quotes and line breaks are longer in JSON: measure the serialized response.
        let excess = body.len().saturating_sub(MAX_RESPONSE);
        if excess == 0 || reason.is_empty() {
            return body.into();
        }
        let shorter = reason.len().saturating_sub(excess.div_ceil(6) + '…'.len_utf8() + 1);
        reason.truncate(reason.floor_char_boundary(shorter));
        reason.push('…');
    }
}

/// Uploads the response to S3, which requires a length, and no content type, because the URL's
/// signature covers it.
async fn put(url: &str, body: Bytes) -> Result<(), ResponseError> {
    let https = HttpsConnectorBuilder::new()
        .with_webpki_roots()
        .https_or_http()
        .enable_http1()
        .build();
    let client = Client::builder(TokioExecutor::new()).build(https);
    let request = hyper::Request::builder()
        .method(Method::PUT)
        .uri(url)
        .body(Full::new(body));
    let request = request.map_err(|error| ResponseError::Send(error.into()))?;
    let stored = timeout(ATTEMPT_TIMEOUT, client.request(request)).await;
    let stored = stored.map_err(|_| ResponseError::TimedOut)?;
    let status = stored.map_err(|error| ResponseError::Send(error.into()))?.status();
    match status.is_success() {
        true => Ok(()),
        false => Err(ResponseError::Refused(status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        let request = json!({
            "RequestType": "Create",
            "ResponseURL": "http://127.0.0.1:1/",
            "StackId": "arn:aws:cloudformation:eu-central-1:123456789012:stack/tasks/1",
            "RequestId": "r-1",
            "LogicalResourceId": "Migrations",
            "ResourceType": "Custom::Migrations",
            "ServiceToken": "arn:aws:lambda:eu-central-1:123456789012:function:migrator",
            "ResourceProperties": {"Code": "1"},
        });
        serde_json::from_value(request).expect("a request from CloudFormation")
    }

    #[test]
    fn long_reason_is_truncated_to_cloudformation_limit() {
        for text in ["x", "\"", "ü\n", "\u{1}", "😀"] {
            let error = MigratorError::Roles(sqlx::Error::Protocol(text.repeat(5000)));
            let body = body(&request(), Err(error));
            assert!(
                (MAX_RESPONSE - 200..=MAX_RESPONSE).contains(&body.len()),
                "{text:?}: {}",
                body.len()
            );
            let response: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            assert!(response["Reason"].as_str().expect("text").ends_with('…'));
        }
    }
}
