//! Calls a handler as API Gateway does: with an event, of either payload version.

use lambda_http::{Body, Context, LambdaEvent, Response, request::LambdaRequest};
use serde_json::{Map, Value, json};
use shared::{
    config::Auth,
    http::{self, ApiError, cors, respond},
};

/// Who sends the event.
#[derive(Clone, Copy, Debug)]
pub enum Gateway {
    /// API Gateway's REST API: payload 1.0. What template.yaml deploys.
    Rest,
    /// API Gateway's HTTP API: payload 2.0. What `cargo lambda watch` sends.
    Http,
}

/// A request to be.
#[derive(Clone)]
pub struct Call {
    method: String,
    path: String,
    query: Vec<(String, String)>,
    parameters: Map<String, Value>,
    headers: Map<String, Value>,
    body: Option<String>,
    base64: bool,
    allow_origins: &'static str,
    authorizer: Value,
    trace: Option<&'static str>,
}

/// What API Gateway is told to answer.
#[derive(Debug, PartialEq)]
pub struct Answer {
    pub status: u64,
    headers: Value,
    body: String,
}

impl Answer {
    /// A header, empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers[name].as_str().unwrap_or_default()
    }

    /// The body as it is.
    pub fn text(&self) -> &str {
        &self.body
    }

    /// The body, which is JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The pointers of the mistakes in a 422.
    pub fn pointers(&self) -> Vec<String> {
        let errors = self.json()["errors"].as_array().cloned().unwrap_or_default();
        errors
            .iter()
            .map(|error| error["pointer"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    /// Asserts that this is a complete problem (RFC 9457) with this status, and nothing else.
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
        let members: Vec<&str> = body
            .as_object()
            .expect("an object")
            .keys()
            .map(String::as_str)
            .collect();
        match status {
            422 => assert_eq!(members, ["detail", "errors", "status", "title", "type"]),
            _ => assert_eq!(members, ["detail", "status", "title", "type"]),
        }
    }
}

impl Call {
    pub fn new(method: &str, path: &str) -> Self {
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            query: Vec::new(),
            parameters: Map::new(),
            headers: Map::new(),
            body: None,
            base64: false,
            allow_origins: "",
            authorizer: json!({"sub": "tester", "admin": "true"}),
            trace: None,
        }
    }

    /// A call of `/tasks/{id}` and what is below it.
    pub fn task(method: &str, id: impl ToString, below: &str) -> Self {
        let id = id.to_string();
        Self::new(method, &format!("/tasks/{id}{below}")).parameter("id", &id)
    }

    /// A part of the path that API Gateway has taken out of it.
    pub fn parameter(mut self, name: &str, value: &str) -> Self {
        self.parameters.insert(name.to_owned(), value.into());
        self
    }

    pub fn query(mut self, name: &str, value: &str) -> Self {
        self.query.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(name.to_owned(), value.into());
        self
    }

    /// A body with the media type `application/json`.
    pub fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json").body(&body.to_string())
    }

    /// A body as it is.
    pub fn body(mut self, body: &str) -> Self {
        self.body = Some(body.to_owned());
        self
    }

    /// Marks the body as base64.
    pub fn base64(mut self) -> Self {
        self.base64 = true;
        self
    }

    /// By this subject, who is not an admin.
    pub fn by(mut self, subject: &str) -> Self {
        self.authorizer = json!({"sub": subject, "admin": "false"});
        self
    }

    /// By somebody who is not an admin.
    pub fn by_nobody_special(mut self) -> Self {
        self.authorizer["admin"] = json!("false");
        self
    }

    /// By way of a route that lacks the authorizer.
    pub fn without_authorizer(mut self) -> Self {
        self.authorizer = json!({});
        self
    }

    /// Answered by a function that allows calls of pages of these origins.
    pub fn allow_origins(mut self, origins: &'static str) -> Self {
        self.allow_origins = origins;
        self
    }

    /// In an invocation to which Lambda gives this trace header.
    pub fn traced(mut self, header: &'static str) -> Self {
        self.trace = Some(header);
        self
    }

    /// The answer to a REST API's event.
    pub async fn send<H, F>(self, handler: H) -> Answer
    where
        H: Fn(http::Context) -> F + Sync,
        F: Future<Output = Result<Response<Body>, ApiError>> + Send,
    {
        self.send_via(Gateway::Rest, handler).await
    }

    /// The answer to this gateway's event.
    pub async fn send_via<H, F>(self, gateway: Gateway, handler: H) -> Answer
    where
        H: Fn(http::Context) -> F + Sync,
        F: Future<Output = Result<Response<Body>, ApiError>> + Send,
    {
        let event: LambdaRequest = serde_json::from_value(self.event(gateway)).expect("an API Gateway event");
        let is_rest = matches!(event, LambdaRequest::ApiGatewayV1(_));
        assert_eq!(
            is_rest,
            matches!(gateway, Gateway::Rest),
            "the event is of the other version"
        );
        let cors = cors::layer(self.allow_origins);
        // `cargo lambda watch` asks no authorizer.
        let auth = match gateway {
            Gateway::Rest => Auth::Closed,
            Gateway::Http => Auth::Open,
        };
        let mut context = Context::default();
        context.xray_trace_id = self.trace.map(str::to_owned);
        let response = respond(&handler, auth, cors.as_ref(), LambdaEvent::new(event, context)).await;
        let response = serde_json::to_value(response.expect("handlers do not fail")).expect("serialisable");
        let multi = response["multiValueHeaders"].as_object().into_iter().flatten();
        let mut headers: Map<String, Value> = multi.map(|(name, all)| (name.clone(), all[0].clone())).collect();
        headers.extend(response["headers"].as_object().cloned().unwrap_or_default());
        Answer {
            status: response["statusCode"].as_u64().expect("a status"),
            headers: headers.into(),
            body: response["body"].as_str().unwrap_or_default().to_owned(),
        }
    }

    fn event(&self, gateway: Gateway) -> Value {
        match gateway {
            Gateway::Rest => {
                let mut event: Value = serde_json::from_str(include_str!("../events/rest.json")).expect("JSON");
                event["httpMethod"] = json!(self.method);
                event["path"] = json!(self.path);
                event["requestContext"]["httpMethod"] = json!(self.method);
                event["requestContext"]["authorizer"] = self.authorizer.clone();
                event["requestContext"]["path"] = json!(format!("/sandbox{}", self.path));
                if !self.parameters.is_empty() {
                    event["pathParameters"] = self.parameters.clone().into();
                }
                for (name, value) in &self.query {
                    event["queryStringParameters"][name] = json!(value);
                    let all = &mut event["multiValueQueryStringParameters"][name];
                    match all {
                        Value::Array(values) => values.push(json!(value)),
                        _ => *all = json!([value]),
                    }
                }
                for (name, value) in &self.headers {
                    event["headers"][name] = value.clone();
                    event["multiValueHeaders"][name] = json!([value]);
                }
                event["body"] = json!(self.body);
                event["isBase64Encoded"] = json!(self.base64);
                event
            }
            Gateway::Http => {
                let mut event: Value = serde_json::from_str(include_str!("../events/http.json")).expect("JSON");
                event["requestContext"]["http"]["method"] = json!(self.method);
                event["requestContext"]["http"]["path"] = json!(self.path);
                event["rawPath"] = json!(self.path);
                let pairs: Vec<String> = self
                    .query
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect();
                event["rawQueryString"] = json!(pairs.join("&"));
                if !self.parameters.is_empty() {
                    event["pathParameters"] = self.parameters.clone().into();
                }
                for (name, value) in &self.headers {
                    event["headers"][name] = value.clone();
                }
                if let Some(body) = &self.body {
                    event["body"] = json!(body);
                }
                event["isBase64Encoded"] = json!(self.base64);
                event
            }
        }
    }
}
