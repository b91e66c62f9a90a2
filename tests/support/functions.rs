//! The functions that template.yaml deploys: what the tests expect of each, how `App` calls them,
//! and the handlers that openapi.json documents.

use lambda_http::{Body, Response};
use shared::http::{ApiError, Context};
use utoipa::OpenApi;

use super::{app::Functions, settings};

/// A function and the properties that the tests verify.
pub struct FunctionSpec {
    pub name: &'static str,
    /// Its role in Postgres.
    pub role: Option<&'static str>,
    /// The SQS actions that its IAM role allows.
    pub sqs: &'static [&'static str],
    /// The Lambda actions on the event source mapping that its IAM role allows.
    pub lambda: &'static [&'static str],
    /// The maximum size of its zip in megabytes.
    pub size_budget: f64,
    /// Requests (or `sweep`), and how many round trips to Postgres each takes when warm.
    pub round_trips: &'static [(&'static str, usize)],
    /// The event with which its instructions are counted: a request or `SQS`.
    pub sample_event: Option<&'static str>,
}

const SMALL: f64 = 1.7;
const WITH_SQS: f64 = 2.4;

const fn reading(
    name: &'static str,
    round_trips: &'static [(&'static str, usize)],
    sample: &'static str,
) -> FunctionSpec {
    FunctionSpec {
        name,
        role: Some("reader"),
        sqs: &[],
        lambda: &[],
        size_budget: SMALL,
        round_trips,
        sample_event: Some(sample),
    }
}

/// "GetTaskFunction" -> "get-task"
pub fn function_name(logical_id: &str) -> String {
    let name = logical_id.trim_end_matches("Function");
    let words = name.char_indices().map(|(at, letter)| match letter {
        'A'..='Z' if at > 0 => format!("-{}", letter.to_ascii_lowercase()),
        letter => letter.to_ascii_lowercase().to_string(),
    });
    words.collect()
}

pub const FUNCTIONS: [FunctionSpec; 22] = [
    reading("admin-actions", &[("GET /admin/actions", 1)], "GET /admin/actions"),
    FunctionSpec {
        role: Some("writer"),
        sample_event: None,
        ..reading("admin-bulk", &[], "")
    },
    FunctionSpec {
        role: None,
        ..reading(
            "admin-dashboard",
            &[("GET /admin/dashboard", 0)],
            "GET /admin/dashboard",
        )
    },
    reading("admin-failures", &[("GET /admin/failures", 1)], "GET /admin/failures"),
    FunctionSpec {
        role: Some("writer"),
        lambda: &["GetEventSourceMapping", "UpdateEventSourceMapping"],
        sample_event: None,
        ..reading(
            "admin-processing",
            &[("GET /admin/processing", 0), ("PUT /admin/processing", 1)],
            "",
        )
    },
    FunctionSpec {
        name: "admin-redrive",
        role: Some("writer"),
        sqs: &[
            "DeleteMessage",
            "GetQueueAttributes",
            "ListMessageMoveTasks",
            "ReceiveMessage",
            "SendMessage",
            "StartMessageMoveTask",
        ],
        lambda: &[],
        size_budget: WITH_SQS,
        round_trips: &[],
        sample_event: None,
    },
    FunctionSpec {
        sqs: &["GetQueueAttributes", "ListMessageMoveTasks"],
        lambda: &["GetEventSourceMapping"],
        size_budget: WITH_SQS,
        ..reading("admin-status", &[("GET /admin/status", 1)], "GET /admin/status")
    },
    reading("admin-task", &[("GET /admin/tasks/{id}", 1)], "GET /admin/tasks/{id}"),
    FunctionSpec {
        role: None,
        ..reading("api-docs", &[("GET /docs", 0)], "GET /openapi.json")
    },
    FunctionSpec {
        role: None,
        ..reading("api-info", &[("GET /", 0)], "GET /")
    },
    FunctionSpec {
        role: None,
        sample_event: None,
        ..reading("authorizer", &[], "")
    },
    FunctionSpec {
        role: Some("writer"),
        ..reading(
            "cancel-task",
            &[("POST /tasks/{id}/cancel", 1)],
            "POST /tasks/{id}/cancel",
        )
    },
    FunctionSpec {
        role: Some("writer"),
        sqs: &["SendMessage"],
        size_budget: WITH_SQS,
        // The second records that the message was sent.
        ..reading("create-task", &[("POST /tasks", 2)], "POST /tasks")
    },
    FunctionSpec {
        role: Some("writer"),
        ..reading("delete-task", &[("DELETE /tasks/{id}", 1)], "DELETE /tasks/{id}")
    },
    reading("get-task", &[("GET /tasks/{id}", 1)], "GET /tasks/{id}"),
    reading("health", &[("GET /health", 0), ("GET /ready", 1)], "GET /health"),
    reading(
        "list-tasks",
        &[("GET /tasks?q=new&limit=2", 1), ("GET /tasks?count=true&limit=1", 2)],
        "GET /tasks?limit=10",
    ),
    FunctionSpec {
        role: Some("migrator"),
        sample_event: None,
        ..reading("migrator", &[], "")
    },
    FunctionSpec {
        role: Some("writer"),
        sqs: &["SendMessage"],
        size_budget: WITH_SQS,
        ..reading(
            "process-task",
            &[("POST /tasks/{id}/process", 2)],
            "POST /tasks/{id}/process",
        )
    },
    FunctionSpec {
        name: "task-processor",
        role: Some("processor"),
        sqs: &[
            "ChangeMessageVisibility",
            "DeleteMessage",
            "GetQueueAttributes",
            "ReceiveMessage",
        ],
        lambda: &[],
        size_budget: WITH_SQS,
        round_trips: &[],
        sample_event: Some("SQS"),
    },
    FunctionSpec {
        name: "task-reconciler",
        role: Some("writer"),
        sqs: &["GetQueueAttributes", "SendMessage"],
        lambda: &["GetEventSourceMapping"],
        size_budget: WITH_SQS,
        // Takes due tasks, deletes expired keys.
        round_trips: &[("sweep", 3)],
        sample_event: None,
    },
    FunctionSpec {
        role: Some("writer"),
        ..reading("update-task", &[("PATCH /tasks/{id}", 1)], "PATCH /tasks/{id}")
    },
];

/// Calls a function's handler.
pub(super) async fn handle(app: &Functions, function: &str, context: Context) -> Result<Response<Body>, ApiError> {
    let database = &app.database;
    match function {
        "admin-actions" => admin_actions::handle(database, context).await,
        "admin-bulk" => admin_bulk::handle(database, context).await,
        "admin-dashboard" => admin_dashboard::handle(context).await,
        "admin-failures" => admin_failures::handle(database, context).await,
        "admin-processing" => admin_processing::handle(database, app.mapping.as_ref(), context).await,
        "admin-redrive" => admin_redrive::handle(database, &app.queues().await.redrive, context).await,
        "admin-status" => {
            let queues = app.queues().await;
            let (queue, dead_letter_queue) = (&queues.task_queue, &queues.dead_letter_queue);
            admin_status::handle(database, queue, dead_letter_queue, context).await
        }
        "admin-task" => admin_task::handle(database, context).await,
        "api-docs" => api_docs::handle(context).await,
        "api-info" => api_info::handle(context).await,
        "cancel-task" => cancel_task::handle(database, context).await,
        "create-task" => {
            let queue = &app.queues().await.task_queue;
            create_task::handle(database, queue, &app.metrics, &settings::CREATE_TASK, context).await
        }
        "delete-task" => delete_task::handle(database, context).await,
        "get-task" => get_task::handle(database, context).await,
        "health" => health::handle(database, context).await,
        "list-tasks" => list_tasks::handle(database, context).await,
        "process-task" => process_task::handle(database, &app.queues().await.task_queue, context).await,
        "update-task" => update_task::handle(database, context).await,
        _ => panic!("{function} is not behind the API"),
    }
}

/// The API's handlers, for the OpenAPI document.
#[derive(OpenApi)]
#[openapi(paths(
    create_task::handle,
    list_tasks::handle,
    get_task::handle,
    update_task::handle,
    delete_task::handle,
    process_task::handle,
    cancel_task::handle,
    admin_dashboard::handle,
    admin_status::handle,
    admin_task::handle,
    admin_processing::get,
    admin_processing::set,
    admin_redrive::handle,
    admin_failures::handle,
    admin_actions::handle,
    admin_bulk::start,
    admin_bulk::resume,
    api_info::handle,
    api_docs::openapi,
    api_docs::docs,
    api_docs::redoc,
    api_docs::asset,
    health::health,
    health::ready,
))]
pub struct Routes;
