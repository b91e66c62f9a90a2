//! Lambda events, built from AWS's samples in `events/`.

use std::time::SystemTime;

use serde_json::{Value, json};

/// A request as API Gateway's REST API sends it (payload 1.0).
pub fn rest_sample() -> Value {
    serde_json::from_str(include_str!("../events/rest.json")).expect("JSON")
}

/// A request as API Gateway's HTTP API and `cargo lambda watch` send it (payload 2.0).
pub fn http_sample() -> Value {
    serde_json::from_str(include_str!("../events/http.json")).expect("JSON")
}

/// A record of a batch from SQS.
pub fn sqs_sample() -> Value {
    serde_json::from_str(include_str!("../events/sqs.json")).expect("JSON")
}

/// A request by an admin to the REST API, with the path parameter `id`, for which the path has this
/// number.
pub fn rest(method: &str, path: &str, id: Option<i64>) -> Value {
    let mut event = rest_sample();
    event["httpMethod"] = json!(method);
    event["path"] = json!(path);
    let resource = id.map(|id| path.replace(&id.to_string(), "{id}"));
    event["resource"] = json!(resource.as_deref().unwrap_or(path));
    event["requestContext"]["resourcePath"] = event["resource"].clone();
    event["requestContext"]["httpMethod"] = json!(method);
    event["requestContext"]["path"] = json!(format!("/sandbox{path}"));
    event["requestContext"]["authorizer"] = json!({"sub": "bench", "admin": "true"});
    if let Some(id) = id {
        event["pathParameters"] = json!({"id": id.to_string()});
    }
    event
}

/// A request by an admin for `/tasks/{id}` and below.
pub fn task(method: &str, id: i64, below: &str) -> Value {
    rest(method, &format!("/tasks/{id}{below}"), Some(id))
}

/// Adds a JSON body.
pub fn with_body(mut event: Value, body: &Value) -> Value {
    event["body"] = json!(body.to_string());
    with_header(event, "Content-Type", "application/json")
}

/// Sets the caller, in the authorizer's format.
pub fn by(mut event: Value, subject: &str, admin: bool) -> Value {
    event["requestContext"]["authorizer"] = json!({"sub": subject, "admin": admin.to_string()});
    event
}

/// Adds a header.
pub fn with_header(mut event: Value, name: &str, value: &str) -> Value {
    event["headers"][name] = json!(value);
    event["multiValueHeaders"][name] = json!([value]);
    event
}

/// Adds a query parameter.
pub fn with_query(mut event: Value, name: &str, value: &str) -> Value {
    event["queryStringParameters"][name] = json!(value);
    event["multiValueQueryStringParameters"][name] = json!([value]);
    event
}

/// A batch of messages about these tasks, sent now.
pub fn sqs(ids: &[i64]) -> Value {
    let record = |(number, id): (usize, &i64)| {
        let body = json!({"task_id": id}).to_string();
        record(&format!("m{number}"), &body, 1)
    };
    batch(ids.iter().enumerate().map(record).collect())
}

/// A record of a message that was sent now and received `receives` times.
pub fn record(message_id: &str, body: &str, receives: u32) -> Value {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let sent = now.expect("after 1970").as_millis().to_string();
    let mut record = sqs_sample();
    record["messageId"] = json!(message_id);
    record["body"] = json!(body);
    record["attributes"]["ApproximateReceiveCount"] = json!(receives.to_string());
    record["attributes"]["SentTimestamp"] = json!(sent);
    record
}

/// The event with these records.
pub fn batch(records: Vec<Value>) -> Value {
    json!({"Records": records})
}
