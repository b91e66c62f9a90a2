//! `POST /tasks`: stores a task and enqueues a message for the task-processor.

use std::time::Duration;

use confique::Config;
use lambda_http::{
    Body, Response,
    http::{HeaderValue, StatusCode, header},
};
use queue::TaskQueue;
use shared::{
    domain::{FieldError, NewTask, Task},
    http::{self, ApiError, Context, problem},
    store::{
        Database,
        idempotency::{CreateOnce, CreateOnceOutcome},
        outbox, tasks,
    },
};
use task_metrics::Metrics;

/// The function's settings.
#[derive(Config)]
pub struct Settings {
    /// The lifetime of an `Idempotency-Key`, in seconds.
    #[config(env = "IDEMPOTENCY_KEY_SECONDS", default = 86400)]
    pub idempotency_key_seconds: u64,
}

/// 201 with the task, its `Location` and `ETag`; 400, 409 while a request with the same
/// `Idempotency-Key` is in progress, 413, 415, 422.
///
/// The task is stored before its message is sent. If SQS is unavailable, the client still gets a
/// 201: `enqueued_at` remains null, and the reconciler sends the message.
#[utoipa::path(
    post,
    path = "/tasks",
    operation_id = "createTask",
    tag = "tasks",
    summary = "Create a task",
    description = "Stores the task as `pending` and queues it for a worker; with `run_at`, as `scheduled`, and queues it \
                   when its time comes. Repeating a request with the same \
                   `Idempotency-Key` and body within a day creates nothing and returns the first response again. \
                   The keys of different users are independent.",
    params((
        "Idempotency-Key" = Option<String>, Header, nullable = false,
        description = "Identifies retries of the same request, for example a UUID. Up to 255 characters, with or without quotes.",
        pattern = r#"^("[!#-~]{1,255}"|[!#-~]{1,255})$"#,
    )),
    request_body = NewTask,
    responses(
        (status = 201, description = "The task was created.", body = Task,
            headers(
                ("Location" = String, description = "The URL of the task, relative to this URL."),
                ("ETag" = String, description = "The version of the task."),
                ("Idempotent-Replayed" = bool, description = "`true` if the first response is replayed."),
            ),
            links(
                ("getTask" = (operation_id = "getTask", parameters(("id" = "$response.body#/id")))),
                ("putTask" = (operation_id = "putTask", parameters(("id" = "$response.body#/id")))),
                ("patchTask" = (operation_id = "patchTask", parameters(("id" = "$response.body#/id")))),
                ("deleteTask" = (operation_id = "deleteTask", parameters(("id" = "$response.body#/id")))),
                ("processTask" = (operation_id = "processTask", parameters(("id" = "$response.body#/id")))),
                ("cancelTask" = (operation_id = "cancelTask", parameters(("id" = "$response.body#/id")))),
                ("getTaskIfModified" = (operation_id = "getTask",
                    parameters(("id" = "$response.body#/id"), ("header.If-None-Match" = "$response.header.ETag")))),
                ("patchTaskIfUnchanged" = (operation_id = "patchTask",
                    parameters(("id" = "$response.body#/id"), ("header.If-Match" = "$response.header.ETag")))),
                ("deleteTaskIfUnchanged" = (operation_id = "deleteTask",
                    parameters(("id" = "$response.body#/id"), ("header.If-Match" = "$response.header.ETag")))),
                ("getTaskHistory" = (operation_id = "getTaskHistory", parameters(("id" = "$response.body#/id")))),
            )),
        (status = 400, response = problem::NotJson),
        (status = 409, response = problem::InProgress),
        (status = 413, response = problem::TooLarge),
        (status = 415, response = problem::UnsupportedMediaType),
        (status = 422, response = problem::Invalid),
        (status = 503, response = problem::Unavailable),
    )
)]
pub async fn handle(
    database: &Database,
    queue: &TaskQueue,
    metrics: &Metrics,
    settings: &Settings,
    context: Context,
) -> Result<Response<Body>, ApiError> {
    let caller = context.caller()?;
    let key = http::idempotency_key(&context.request)?;
    let new: NewTask = http::json_body(&context.request)?;
    let (created_by, trace) = (&caller.subject, context.trace());
    let outcome = match &key {
        None => {
            let insert = tasks::Insert { new: &new, created_by };
            CreateOnceOutcome::Created(database.run(&insert).await?)
        }
        Some(key) => {
            let create = CreateOnce {
                key,
                created_by,
                keep: Duration::from_secs(settings.idempotency_key_seconds),
                new: &new,
            };
            database.run(&create).await?
        }
    };
    match outcome {
        CreateOnceOutcome::Created(task) => {
            metrics.task_created();
            // The reconciler sends the others.
            if let Some(delay) = delay(&task) {
                outbox::enqueue(database, task.id, task.run_at, queue.send(task.id, delay, trace)).await;
            }
            Ok(created(&task))
        }
        CreateOnceOutcome::Replayed(task) => {
            let mut response = created(&task);
            let replayed = HeaderValue::from_static("true");
            response.headers_mut().insert("idempotent-replayed", replayed);
            Ok(response)
        }
        CreateOnceOutcome::KeyReused => {
            let error = FieldError::new("#/header/idempotency-key", "was already used with a different body");
            Err(ApiError::Invalid(vec![error]))
        }
        CreateOnceOutcome::InProgress => Err(ApiError::InProgress),
    }
}

/// The delay of a new task's message in seconds, by Postgres's clock; `None` if that is longer than a
/// message can be delayed.
fn delay(task: &Task) -> Option<i32> {
    let Some(run_at) = task.run_at else { return Some(0) };
    let remaining = run_at - task.created_at;
    let seconds = remaining.whole_seconds() + i64::from(remaining.subsec_nanoseconds() > 0);
    i32::try_from(seconds)
        .ok()
        .filter(|seconds| *seconds <= TaskQueue::MAX_DELAY)
}

fn created(task: &Task) -> Response<Body> {
    let mut response = http::task(StatusCode::CREATED, task);
    // Relative to the request's URL (RFC 3986, section 5.2), which works behind any stage or
    // domain.
    let location = HeaderValue::from_str(&format!("tasks/{}", task.id)).expect("digits are a valid header value");
    response.headers_mut().insert(header::LOCATION, location);
    response
}
