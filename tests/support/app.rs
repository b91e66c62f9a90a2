//! The application in the test's process: each request becomes an API Gateway event and reaches the
//! function to which it is routed; batches and sweeps reach the other functions.

use std::{
    future::{Future, IntoFuture},
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent};
use aws_sdk_sqs::config::Builder;
use harness::events;
use lambda_http::{Context, LambdaEvent};
use queue::{DeadLetterQueue, EventSourceMapping, TaskQueue};
use serde_json::{Map, Value, json};
use shared::{
    config::Auth,
    http::{cors, respond},
    store::Database,
    trace::TraceHeader,
};
use sqlx::PgPool;
use task_metrics::Metrics;
use task_processor::BatchError;
use task_reconciler::{Progress, SweepError, SweepReport};
use tokio::sync::OnceCell;

use super::{Response, TestQueue, client_config, database, database_that_is_down, functions, routes, settings};

/// The functions with the test's own database and queues, and their caller: an admin by default.
/// Clones share everything but the caller.
#[derive(Clone)]
pub struct App {
    functions: Arc<Functions>,
    authorizer: Value,
}

/// One execution environment of each function.
pub(super) struct Functions {
    pub database: Database,
    pub metrics: Metrics,
    /// None unless a test sets one: the emulator has no mapping of the tests' own queues.
    pub mapping: Option<EventSourceMapping>,
    sqs: Builder,
    queues: Arc<OnceCell<Queues>>,
}

/// The queues, created when first used.
pub(super) struct Queues {
    tasks: TestQueue,
    dead_letters: TestQueue,
    pub task_queue: TaskQueue,
    pub dead_letter_queue: TaskQueue,
    pub redrive: DeadLetterQueue,
}

impl App {
    /// With the test's database.
    pub fn new(pool: &PgPool) -> Self {
        Self::with_database(database(pool))
    }

    /// With a database that refuses connections.
    pub fn without_database() -> Self {
        Self::with_database(database_that_is_down())
    }

    /// With this database.
    pub fn with_database(database: Database) -> Self {
        let functions = Functions {
            database,
            metrics: Metrics::none(),
            mapping: None,
            sqs: client_config(),
            queues: Arc::default(),
        };
        Self {
            functions: Arc::new(functions),
            authorizer: json!({"sub": "tester", "admin": "true"}),
        }
    }

    /// With this configuration of the SQS client.
    pub fn with_sqs(mut self, sqs: Builder) -> Self {
        self.unshared().sqs = sqs;
        self
    }

    /// With this event source mapping.
    pub fn with_mapping(mut self, mapping: EventSourceMapping) -> Self {
        self.unshared().mapping = Some(mapping);
        self
    }

    /// With these metrics.
    pub fn with_metrics(mut self, metrics: Metrics) -> Self {
        self.unshared().metrics = metrics;
        self
    }

    fn unshared(&mut self) -> &mut Functions {
        Arc::get_mut(&mut self.functions).expect("not cloned yet")
    }

    /// Another execution environment of each function, with its own connection and the same queues.
    pub fn another_environment(&self, pool: &PgPool) -> Self {
        let mut another = Self::new(pool).with_sqs(self.functions.sqs.clone());
        another.unshared().queues = Arc::clone(&self.functions.queues);
        another
    }

    /// The task queue.
    pub async fn queue(&self) -> &TestQueue {
        &self.functions.queues().await.tasks
    }

    /// The dead-letter queue.
    pub async fn dead_letters(&self) -> &TestQueue {
        &self.functions.queues().await.dead_letters
    }

    /// Receives all messages from the task queue, and returns their bodies.
    pub async fn messages(&self) -> Vec<String> {
        self.queue().await.bodies().await
    }

    /// The task-processor's response to a batch, with a deadline in 30 s.
    pub async fn process(&self, event: SqsEvent) -> Result<SqsBatchResponse, BatchError> {
        self.process_with(settings::TASK_PROCESSOR, event).await
    }

    /// Like `process`, with these settings.
    pub async fn process_with(
        &self,
        settings: task_processor::Settings,
        event: SqsEvent,
    ) -> Result<SqsBatchResponse, BatchError> {
        let Functions { database, metrics, .. } = &*self.functions;
        let queue = &self.functions.queues().await.task_queue;
        let deadline = SystemTime::now() + Duration::from_secs(30);
        task_processor::handle(database, queue, metrics, settings, event, deadline).await
    }

    /// Runs a sweep of the task-reconciler.
    pub async fn sweep(&self, trace: Option<&TraceHeader>) -> Result<SweepReport, SweepError> {
        let queue = &self.functions.queues().await.task_queue;
        let (settings, metrics) = (&settings::TASK_RECONCILER, &Metrics::none());
        let (progress, time) = (&Progress::default(), Duration::from_secs(30));
        task_reconciler::sweep(
            &self.functions.database,
            queue,
            metrics,
            settings,
            progress,
            time,
            trace,
        )
        .await
    }

    /// Called by this subject, not an admin.
    pub fn as_user(&self, subject: &str) -> Self {
        self.called_by(json!({"sub": subject, "admin": "false"}))
    }

    /// Called by an operator who may only read.
    pub fn as_viewer(&self) -> Self {
        self.called_by(json!({"sub": "viewer", "admin": "false", "viewer": "true"}))
    }

    /// Called by an admin.
    pub fn as_admin(&self) -> Self {
        self.called_by(json!({"sub": "tester", "admin": "true"}))
    }

    /// Called through routes without an authorizer.
    pub fn without_authorizer(&self) -> Self {
        self.called_by(json!({}))
    }

    fn called_by(&self, authorizer: Value) -> Self {
        let functions = Arc::clone(&self.functions);
        Self { functions, authorizer }
    }

    pub fn get(&self, path: impl Into<String>) -> Request {
        self.request("GET", path)
    }

    pub fn delete(&self, path: impl Into<String>) -> Request {
        self.request("DELETE", path)
    }

    /// With a JSON body, if any.
    pub fn post(&self, path: impl Into<String>, body: impl Into<Option<Value>>) -> Request {
        let request = self.request("POST", path);
        body.into().iter().fold(request, Request::json)
    }

    /// With a JSON body.
    pub fn put(&self, path: impl Into<String>, body: Value) -> Request {
        self.request("PUT", path).json(&body)
    }

    /// With a JSON body.
    pub fn patch(&self, path: impl Into<String>, body: Value) -> Request {
        self.request("PATCH", path).json(&body)
    }

    /// A request without a body. The path may have a query.
    pub fn request(&self, method: &str, path: impl Into<String>) -> Request {
        let path = path.into();
        let (path, query) = path.split_once('?').unwrap_or((&path, ""));
        let routes::Route {
            function,
            resource,
            parameters,
        } = routes::find(method, path);
        Request {
            app: self.clone(),
            function,
            resource,
            parameters,
            method: method.to_owned(),
            path: path.to_owned(),
            query: form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
            headers: Map::new(),
            body: None,
            base64: false,
            gateway: Gateway::Rest,
            allow_origins: "",
            trace: None,
        }
    }
}

impl Functions {
    pub(super) async fn queues(&self) -> &Queues {
        let create = async || {
            let (tasks, dead_letters) = (TestQueue::create().await, TestQueue::create().await);
            let queue = |queue: &TestQueue| TaskQueue::new(self.sqs.clone(), queue.url().to_owned());
            let (dead, source) = (dead_letters.url().to_owned(), tasks.url().to_owned());
            Queues {
                task_queue: queue(&tasks).with_mapping(self.mapping.clone()),
                dead_letter_queue: queue(&dead_letters),
                redrive: DeadLetterQueue::new(self.sqs.clone(), dead, source),
                tasks,
                dead_letters,
            }
        };
        self.queues.get_or_init(create).await
    }
}

/// The sender of the event.
#[derive(Clone, Copy, Debug)]
pub enum Gateway {
    /// API Gateway's REST API (payload 1.0), which template.yaml deploys.
    Rest,
    /// API Gateway's HTTP API (payload 2.0), the format of `cargo lambda watch`.
    Http,
}

/// A request, sent when awaited.
#[derive(Clone)]
pub struct Request {
    app: App,
    function: String,
    resource: String,
    parameters: Map<String, Value>,
    method: String,
    path: String,
    query: Vec<(String, String)>,
    /// The lines of each header.
    headers: Map<String, Value>,
    body: Option<String>,
    base64: bool,
    gateway: Gateway,
    allow_origins: &'static str,
    trace: Option<&'static str>,
}

impl Request {
    /// Sends it to this function with this path parameter, regardless of the routes.
    pub fn routed_to(mut self, function: &str, name: &str, value: &str) -> Self {
        self.function = function.to_owned();
        self.resource = String::new();
        self.parameters = Map::from_iter([(name.to_owned(), value.into())]);
        self
    }

    pub fn query(mut self, name: &str, value: &str) -> Self {
        self.query.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn header(self, name: &str, value: &str) -> Self {
        self.header_lines(name, &[value])
    }

    /// A header that is sent in several lines.
    pub fn header_lines(mut self, name: &str, lines: &[&str]) -> Self {
        self.headers.insert(name.to_owned(), json!(lines));
        self
    }

    /// Sets the body, with the media type `application/json`.
    pub fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json").body(&body.to_string())
    }

    /// Sets the body, without a media type.
    pub fn body(mut self, body: &str) -> Self {
        self.body = Some(body.to_owned());
        self
    }

    /// Marks the body as base64.
    pub fn base64(mut self) -> Self {
        self.base64 = true;
        self
    }

    pub fn via(mut self, gateway: Gateway) -> Self {
        self.gateway = gateway;
        self
    }

    /// Sets the origins that the function allows for CORS.
    pub fn allow_origins(mut self, origins: &'static str) -> Self {
        self.allow_origins = origins;
        self
    }

    /// Sets the trace header of the invocation.
    pub fn traced(mut self, header: &'static str) -> Self {
        self.trace = Some(header);
        self
    }

    async fn send(self) -> Response {
        self.send_as(&self.event()).await
    }

    /// Sends this event instead of the one that API Gateway would send.
    pub async fn send_as(&self, event: &Value) -> Response {
        self.send_text(&event.to_string()).await
    }

    /// Sends the event with this text.
    pub async fn send_text(&self, event: &str) -> Response {
        let cors = cors::layer(self.allow_origins);
        // `cargo lambda watch` has no authorizer.
        let auth = match self.gateway {
            Gateway::Rest => Auth::Closed,
            Gateway::Http => Auth::Open,
        };
        let mut context = Context::default();
        context.xray_trace_id = self.trace.map(str::to_owned);
        let handler = |context| functions::handle(&self.app.functions, &self.function, context);
        let event = LambdaEvent::new(serde_json::from_str(event).expect("JSON"), context);
        let response = respond(&handler, auth, cors.as_ref(), event).await;
        Response::of(serde_json::to_value(response.expect("handlers do not fail")).expect("serializable"))
    }

    /// The event that API Gateway sends.
    pub fn event(&self) -> Value {
        let mut event = match self.gateway {
            Gateway::Rest => self.rest_event(),
            Gateway::Http => self.http_event(),
        };
        if !self.parameters.is_empty() {
            event["pathParameters"] = self.parameters.clone().into();
        }
        if let Some(body) = &self.body {
            event["body"] = json!(body);
        }
        event["isBase64Encoded"] = json!(self.base64);
        event
    }

    fn rest_event(&self) -> Value {
        let mut event = events::rest_sample();
        event["httpMethod"] = json!(self.method);
        event["path"] = json!(self.path);
        event["resource"] = json!(self.resource);
        event["requestContext"]["resourcePath"] = json!(self.resource);
        event["requestContext"]["httpMethod"] = json!(self.method);
        event["requestContext"]["authorizer"] = self.app.authorizer.clone();
        event["requestContext"]["path"] = json!(format!("/sandbox{}", self.path));
        for (name, value) in &self.query {
            event["queryStringParameters"][name] = json!(value);
            let all = &mut event["multiValueQueryStringParameters"][name];
            match all {
                Value::Array(values) => values.push(json!(value)),
                _ => *all = json!([value]),
            }
        }
        for (name, lines) in &self.headers {
            let last = lines.as_array().and_then(|lines| lines.last());
            event["headers"][name] = json!(last);
            event["multiValueHeaders"][name] = lines.clone();
        }
        event["body"] = Value::Null;
        event
    }

    fn http_event(&self) -> Value {
        let mut event = events::http_sample();
        event["requestContext"]["http"]["method"] = json!(self.method);
        event["requestContext"]["http"]["path"] = json!(self.path);
        event["rawPath"] = json!(self.path);
        let pairs: Vec<String> = self
            .query
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        event["rawQueryString"] = json!(pairs.join("&"));
        for (name, lines) in &self.headers {
            let lines = lines.as_array().expect("lines").iter().filter_map(Value::as_str);
            event["headers"][name] = json!(lines.collect::<Vec<_>>().join(","));
        }
        event
    }
}

impl IntoFuture for Request {
    type Output = Response;
    type IntoFuture = Pin<Box<dyn Future<Output = Response>>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}
