//! The OpenAPI 3.1 document of the API. What it says stands where it is true: on the types that parse and serialise,
//! and on the handlers.

use shared::http::problem;
use utoipa::{
    OpenApi,
    openapi::{RefOr, Schema, schema::AdditionalProperties},
};

#[derive(OpenApi)]
#[openapi(
    info(title = "Task API", description = "Stores tasks, and has workers process them."),
    servers((url = ".", description = "The stage that serves this document")),
    tags(
        (name = "tasks", description = "For clients"),
        (name = "operators", description = "To watch and operate all this"),
        (name = "about", description = "What this is, and whether it works"),
    ),
    paths(
        create_task::handle,
        list_tasks::handle,
        get_task::handle,
        update_task::handle,
        delete_task::handle,
        process_task::handle,
        admin_dashboard::handle,
        admin_status::handle,
        admin_task::handle,
        admin_redrive::handle,
        api_info::handle,
        api_docs::openapi,
        api_docs::docs,
        api_docs::redoc,
        api_docs::asset,
        health::handle,
    ),
    components(schemas(problem::Problem), responses(
        problem::NotJson,
        problem::NoSuchTask,
        problem::NoSuchRoute,
        problem::Processing,
        problem::InProgress,
        problem::Stale,
        problem::TooLarge,
        problem::UnsupportedMediaType,
        problem::Invalid,
        problem::Unavailable,
    ))
)]
struct Document;

/// The document, as openapi.json has it.
pub fn document() -> String {
    let mut document = Document::openapi();
    // One handler serves both methods, and an operation id must be unique.
    let task = document
        .paths
        .paths
        .get_mut("/tasks/{id}")
        .expect("its handlers are listed above");
    let patch = task.patch.as_mut().expect("update-task takes PATCH");
    patch.operation_id = Some("patchTask".to_owned());
    patch.summary = Some("Change a task, as PUT does".to_owned());
    // The parser of these refuses unknown members; utoipa would learn that only from serde.
    let schemas = &mut document.components.as_mut().expect("there are schemas").schemas;
    for name in ["NewTask", "TaskPatch"] {
        if let Some(RefOr::T(Schema::Object(object))) = schemas.get_mut(name) {
            object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
        }
    }
    let mut text = document.to_pretty_json().expect("its keys are strings");
    text.push('\n');
    text
}
