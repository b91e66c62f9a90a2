//! A stub of Lambda's event source mapping, for tests in which nothing is deployed.

use std::sync::{Arc, Mutex};

use harness::{Bytes, HttpResponse, Request, serve};
use queue::EventSourceMapping;
use serde_json::{Value, json};
use shared::config::AwsCredentials;

/// The requests that a stub has recorded.
pub type MappingLog = Arc<Mutex<Vec<Request<Bytes>>>>;

/// A mapping that is enabled, and like Lambda's completes a change after its response.
pub async fn mapping() -> (EventSourceMapping, MappingLog) {
    let state = Mutex::new("Enabled");
    scripted_mapping(move |request| {
        let mut state = state.lock().expect("not poisoned");
        *state = match (request.method().as_str(), *state) {
            ("PUT", _) => match body(request)["Enabled"].as_bool().expect("a boolean") {
                true => "Enabling",
                false => "Disabling",
            },
            (_, "Enabling") => "Enabled",
            (_, "Disabling") => "Disabled",
            (_, state) => state,
        };
        let response = json!({"UUID": "a1b2", "State": *state, "BatchSize": 10}).to_string();
        HttpResponse::builder().status(202).body(response).expect("a response")
    })
    .await
}

/// A mapping to which Lambda responds with this error.
pub async fn refusing_mapping(status: u16, code: &'static str) -> (EventSourceMapping, MappingLog) {
    scripted_mapping(move |_| {
        let response = HttpResponse::builder().status(status);
        let response = response.header("x-amzn-errortype", format!("{code}:http://internal.amazon.com/"));
        let body = json!({"Type": "User", "Message": "s3cret"}).to_string();
        response.body(body).expect("a response")
    })
    .await
}

pub async fn scripted_mapping(
    respond: impl Fn(&Request<Bytes>) -> HttpResponse<String> + Send + Sync + 'static,
) -> (EventSourceMapping, MappingLog) {
    let requests = MappingLog::default();
    let recorded = Arc::clone(&requests);
    let url = serve(move |request| {
        let response = respond(&request);
        recorded.lock().expect("not poisoned").push(request);
        response
    });
    (mapping_at(&url.await), requests)
}

/// A mapping of the Lambda at this URL.
pub fn mapping_at(url: &str) -> EventSourceMapping {
    let credentials = AwsCredentials {
        access_key_id: "AKIDEXAMPLE".to_owned(),
        secret_access_key: "s3cret".to_owned(),
        session_token: Some("a token".to_owned()),
        region: "eu-central-1".to_owned(),
    };
    EventSourceMapping::new(credentials, url, "a1b2")
}

/// The JSON body of a recorded request.
pub fn body(request: &Request<Bytes>) -> Value {
    serde_json::from_slice(request.body()).expect("JSON")
}
