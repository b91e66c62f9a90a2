//! The OpenAPI 3.1 document of the API, generated from the annotations of the serialized types and
//! of the handlers.

use shared::http::{StatusCode, problem};
use support::functions::Routes;
use utoipa::{
    OpenApi,
    openapi::{
        Ref, RefOr, Response, Schema,
        extensions::Extensions,
        path::Operation,
        schema::AdditionalProperties,
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};

#[derive(OpenApi)]
#[openapi(
    info(title = "Task API", description = "Stores tasks and processes them in the background."),
    servers((url = ".", description = "The stage that serves this document")),
    tags(
        (name = "tasks", description = "Create, read, change and process tasks"),
        (name = "operators", description = "Monitor and operate the system"),
        (name = "about", description = "Documentation and health"),
    ),
    components(schemas(problem::Problem), responses(
        problem::NotJson,
        problem::Unauthorized,
        problem::Forbidden,
        problem::NoSuchTask,
        problem::NoSuchAction,
        problem::NoSuchRoute,
        problem::Processing,
        problem::Settled,
        problem::InProgress,
        problem::RedriveRunning,
        problem::ProcessingChanging,
        problem::Stale,
        problem::TooLarge,
        problem::UnsupportedMediaType,
        problem::Invalid,
        problem::NoEventSourceMapping,
        problem::Unavailable,
    ))
)]
struct Document;

/// The routes without authentication. A test compares them with template.yaml.
const PUBLIC: [&str; 7] = [
    "/",
    "/admin/dashboard",
    "/docs",
    "/docs/{asset}",
    "/health",
    "/openapi.json",
    "/redoc",
];

/// Headers that are always present in the responses that document them.
const ALWAYS: [&str; 4] = ["ETag", "Location", "Retry-After", "WWW-Authenticate"];

/// The text of openapi.json, including what utoipa's annotations cannot express.
pub fn document() -> String {
    let mut document = Document::openapi().merge_from(Routes::openapi());
    // One handler serves both methods, and an operation id must be unique.
    let task = document
        .paths
        .paths
        .get_mut("/tasks/{id}")
        .expect("the task route is documented");
    let patch = task.patch.as_mut().expect("update-task takes PATCH");
    patch.operation_id = Some("patchTask".to_owned());
    patch.summary = Some("Change a task (same as PUT)".to_owned());

    // Their parser rejects unknown members; utoipa recognizes that only from serde's attributes.
    let components = document.components.as_mut().expect("there are schemas");
    for name in ["BulkRequest", "NewTask", "ProcessingRequest", "TaskPatch"] {
        if let Some(RefOr::T(Schema::Object(object))) = components.schemas.get_mut(name) {
            object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
        }
    }

    components.responses.values_mut().for_each(describe_headers);
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT");
    components.add_security_scheme("token", SecurityScheme::Http(bearer.build()));
    document.security = Some(vec![SecurityRequirement::new("token", [""; 0])]);
    for (name, path) in &mut document.paths.paths {
        let methods = [
            (true, &mut path.get),
            (false, &mut path.put),
            (false, &mut path.post),
            (false, &mut path.delete),
            (false, &mut path.patch),
        ];
        let operations = methods.into_iter();
        let mut operations: Vec<_> = operations
            .filter_map(|(only_reads, operation)| Some((only_reads, operation.as_mut()?)))
            .collect();
        for (only_reads, operation) in &mut operations {
            if PUBLIC.contains(&name.as_str()) {
                operation.security = Some(Vec::new());
                continue;
            }
            let responses = &mut operation.responses.responses;
            responses.insert("401".to_owned(), Ref::from_response_name("Unauthorized").into());
            // Viewers may only read.
            if name.starts_with("/admin/") || !*only_reads {
                responses.insert("403".to_owned(), Ref::from_response_name("Forbidden").into());
            }
        }
        operations
            .into_iter()
            .flat_map(|(_, operation)| operation.responses.responses.values_mut())
            .for_each(describe_headers);
    }
    for path in document.paths.paths.values_mut() {
        path.head = path.get.as_ref().map(head_of);
    }
    let mut text = document.to_pretty_json().expect("its keys are strings");
    text.push('\n');
    escape_beyond_ascii(&text)
}

/// HEAD beside GET: the same responses without their bodies.
fn head_of(get: &Operation) -> Operation {
    let mut head = get.clone();
    let id = get.operation_id.as_deref().expect("every operation has an id");
    head.operation_id = Some(id.replacen("get", "head", 1).replacen("list", "head", 1));
    head.summary = get.summary.as_ref().map(|summary| format!("{summary} (headers only)"));
    for (status, response) in &mut head.responses.responses {
        // The responses that operations share have bodies.
        let described = match &*response {
            RefOr::T(described) => described.clone(),
            RefOr::Ref(_) => {
                let code: u16 = status.parse().expect("a status code");
                let reason = StatusCode::from_u16(code).ok().and_then(|code| code.canonical_reason());
                Response::new(reason.expect("a known status code"))
            }
        };
        let mut without_body = Response::new(described.description);
        without_body.headers = described.headers;
        *response = RefOr::T(without_body);
    }
    head
}

/// Escapes characters that are invisible in an editor, like those of the pattern of titles.
fn escape_beyond_ascii(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        if character.is_ascii() {
            escaped.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                escaped.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    escaped
}

fn describe_headers(response: &mut RefOr<Response>) {
    let RefOr::T(response) = response else { return };
    for (name, header) in &mut response.headers {
        let RefOr::T(header) = header else { continue };
        if ALWAYS.contains(&name.as_str()) {
            header.extensions = Some(Extensions::from_iter([("required", true)]));
        }
        if let ("ETag", Some(RefOr::T(Schema::Object(schema)))) = (name.as_str(), &mut header.schema) {
            schema.pattern = Some(r#"^"[1-9][0-9]*"$"#.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn committed_document_matches_functions() {
        assert!(
            super::document() == include_str!("../../../openapi.json"),
            "openapi.json is out of date: run `make openapi` and commit the result"
        );
    }
}
