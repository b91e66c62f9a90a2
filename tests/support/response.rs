//! A function's response to API Gateway.

use serde_json::{Map, Value, json};

#[derive(Debug, PartialEq)]
pub struct Response {
    status: u64,
    headers: Value,
    body: String,
}

impl Response {
    /// From the function's output.
    pub(super) fn of(response: Value) -> Self {
        let multi = response["multiValueHeaders"].as_object().into_iter().flatten();
        let mut headers: Map<String, Value> = multi.map(|(name, all)| (name.clone(), all[0].clone())).collect();
        headers.extend(response["headers"].as_object().cloned().unwrap_or_default());
        Self {
            status: response["statusCode"].as_u64().expect("a status"),
            headers: headers.into(),
            body: response["body"].as_str().unwrap_or_default().to_owned(),
        }
    }

    pub fn status(&self) -> u64 {
        self.status
    }

    /// A header, empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers[name].as_str().unwrap_or_default()
    }

    pub fn text(&self) -> &str {
        &self.body
    }

    /// The parsed body.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The id of the task in the body.
    pub fn id(&self) -> i64 {
        self.json()["id"].as_i64().expect("an id")
    }

    /// The pointers of the errors in a 422.
    pub fn pointers(&self) -> Vec<String> {
        let errors = self.json()["errors"].as_array().cloned().unwrap_or_default();
        let pointers = errors.iter().map(|error| error["pointer"].as_str().unwrap_or_default());
        pointers.map(str::to_owned).collect()
    }

    /// Asserts that this is a complete problem (RFC 9457) with this status and no further members.
    pub fn assert_problem(&self, status: u64, title: &str) {
        let body = self.json();
        assert_eq!((self.status, &body["status"]), (status, &json!(status)), "{body}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(body["type"], "about:blank");
        assert_eq!(body["title"], title);
        assert!(
            body["detail"].as_str().is_some_and(|detail| detail.len() > 10),
            "{body}"
        );
        let members = body.as_object().expect("an object").keys();
        let members: Vec<&str> = members.map(String::as_str).collect();
        match status {
            422 => assert_eq!(members, ["detail", "errors", "status", "title", "type"]),
            _ => assert_eq!(members, ["detail", "status", "title", "type"]),
        }
    }
}
