//! openapi.json matches the template and the parsers, and is consistent.

use std::collections::BTreeSet;

use proptest::prelude::*;
use regex::Regex;
use serde_json::{Value, json};
use shared::domain::{Description, IdempotencyKey, Page, Status, Title};

use crate::template::{public_routes, template_routes, templates};

fn committed() -> Value {
    serde_json::from_str(include_str!("../../openapi.json")).expect("JSON")
}

/// Every operation of the document, by method and path.
fn operations(document: &Value) -> Vec<(String, &Value)> {
    let paths = document["paths"].as_object().expect("paths").iter();
    paths
        .flat_map(|(path, operations)| {
            let operations = operations.as_object().expect("operations").iter();
            operations.map(move |(method, operation)| (format!("{} {path}", method.to_uppercase()), operation))
        })
        .collect()
}

fn parameter<'a>(document: &'a Value, path: &str, method: &str, name: &str) -> &'a Value {
    let parameters = document["paths"][path][method]["parameters"]
        .as_array()
        .expect("parameters");
    let found = parameters.iter().find(|parameter| parameter["name"] == name);
    found.unwrap_or_else(|| panic!("{method} {path} has no parameter {name}"))
}

#[test]
fn document_has_routes_of_template() {
    let document = committed();
    let documented: BTreeSet<String> = operations(&document).into_iter().map(|(route, _)| route).collect();
    let mut deployed: BTreeSet<String> = template_routes().into_keys().collect();
    // The catch-all routes are api-info's 404 and 405; it documents only GET / and HEAD /.
    assert!(deployed.remove("ANY /{proxy+}") && deployed.remove("ANY /"));
    deployed.extend(["GET /", "HEAD /"].map(str::to_owned));
    assert_eq!(documented, deployed);
}

#[test]
fn public_operations_match_template() {
    let document = committed();
    let all = operations(&document).into_iter();
    let public = all
        .filter(|(_, operation)| operation["security"] == json!([]))
        .map(|(route, _)| route);
    let mut open = public_routes(&templates()["prod"]);
    assert!(open.remove("ANY /{proxy+}") && open.remove("ANY /"));
    open.extend(["GET /", "HEAD /"].map(str::to_owned));
    assert_eq!(public.collect::<BTreeSet<_>>(), open);
}

#[test]
fn operations_have_unique_id_summary_and_tag() {
    let document = committed();
    let tags = document["tags"].as_array().expect("tags");
    let tags: Vec<&Value> = tags.iter().map(|tag| &tag["name"]).collect();
    let mut ids = BTreeSet::new();
    for (route, operation) in operations(&document) {
        assert!(ids.insert(operation["operationId"].as_str().expect("an id")), "{route}");
        assert!(operation["summary"].is_string(), "{route}");
        assert!(tags.contains(&&operation["tags"][0]), "{route}");
    }
}

/// RFC 9457; a response to HEAD has no body.
#[test]
fn client_errors_are_problem_details_except_for_head() {
    let document = committed();
    for (route, operation) in operations(&document) {
        for (status, response) in operation["responses"].as_object().expect("responses") {
            let response = match response["$ref"].as_str() {
                Some(reference) => document
                    .pointer(reference.trim_start_matches('#'))
                    .expect("a shared response"),
                None => response,
            };
            if route.starts_with("HEAD ") {
                assert!(response["content"].is_null(), "{route} {status}");
            } else if status.starts_with('4') {
                let content = response["content"].as_object().expect("content");
                let types: Vec<&String> = content.keys().collect();
                assert_eq!(types, ["application/problem+json"], "{route} {status}");
            }
        }
    }
}

#[test]
fn links_lead_to_operations_with_valid_parameters() {
    let document = committed();
    let all = operations(&document);
    let mut links = 0;
    for (route, operation) in &all {
        let responses = operation["responses"].as_object().expect("responses").values();
        for (name, link) in responses.filter_map(|response| response["links"].as_object()).flatten() {
            let found = all
                .iter()
                .find(|(_, target)| target["operationId"] == link["operationId"]);
            let (_, target) = found.unwrap_or_else(|| panic!("{route}: {name} links to no operation"));
            for parameter in link["parameters"].as_object().expect("parameters").keys() {
                let parameter = parameter.trim_start_matches("header.");
                let known = target["parameters"].as_array().expect("parameters");
                assert!(
                    known.iter().any(|known| known["name"] == parameter),
                    "{route}: {name}: {parameter}"
                );
            }
            links += 1;
        }
    }
    assert!(links >= 15, "{links}");
}

/// utoipa's attributes take only literals, so the limits are written twice.
#[test]
fn document_limits_match_parsers() {
    let document = committed();
    let schemas = &document["components"]["schemas"];
    assert_eq!(schemas["Title"]["maxLength"], Title::MAX_CHARS);
    assert_eq!(schemas["Description"]["maxLength"], Description::MAX_CHARS);
    let list = |name: &str| &parameter(&document, "/tasks", "get", name)["schema"];
    assert_eq!(list("limit")["maximum"], Page::MAX_LIMIT);
    assert_eq!(list("q")["maxLength"], Page::MAX_SEARCH_CHARS);
}

#[test]
fn document_query_parameters_match_parser() {
    let document = committed();
    let parameters = document["paths"]["/tasks"]["get"]["parameters"]
        .as_array()
        .expect("parameters");
    let names: Vec<&str> = parameters
        .iter()
        .filter_map(|parameter| parameter["name"].as_str())
        .collect();
    let errors = Page::parse([("unknown", "")]).expect_err("unknown");
    let known = errors[0]
        .detail
        .split_once("which supports ")
        .expect("the names")
        .1
        .replace(" and ", ", ");
    assert_eq!(names, known.split(", ").collect::<Vec<_>>());
    for name in names {
        // A known parameter, even if the value is invalid.
        let errors = Page::parse([(name, "\0")]).expect_err("a NUL");
        assert!(!errors[0].detail.starts_with("is not a parameter"), "{name}");
    }
}

#[test]
fn bodies_refuse_undocumented_members() {
    let document = committed();
    for name in ["NewTask", "TaskPatch"] {
        let schema = &document["components"]["schemas"][name];
        assert_eq!(schema["additionalProperties"], json!(false), "{name}");
    }
}

#[test]
fn api_page_names_routes_members_and_statuses() {
    let (document, page) = (committed(), include_str!("../../docs/api.md"));
    let keys = |pointer: &str| {
        let object = document.pointer(pointer).and_then(Value::as_object);
        object.expect("an object").keys()
    };
    for path in keys("/paths").filter(|path| *path != "/docs/{asset}") {
        let spellings = [format!("`{path}`"), format!(" {path}`")];
        assert!(spellings.iter().any(|name| page.contains(name)), "{path}");
    }
    let statuses = Status::ALL.map(|status| status.as_str().to_owned());
    for name in keys("/components/schemas/Task/properties").chain(&statuses) {
        assert!(page.contains(&format!("`{name}`")), "{name}");
    }
}

/// A pattern of the document. The syntax that these use means the same in ECMA-262 and in Rust.
fn pattern(schema: &Value) -> Regex {
    Regex::new(schema["pattern"].as_str().expect("a pattern")).expect("a regular expression")
}

/// Edge cases: white space and control characters, quotes, and lengths around the limits.
fn texts() -> impl Strategy<Value = String> {
    let letters = prop_oneof![
        4 => any::<char>(),
        4 => prop::sample::select(vec!['"', ' ', '\t', '\0', '\u{85}', '\u{a0}', '\u{feff}', '\u{2028}', '\u{1c}']),
        2 => prop::sample::select(vec!['\u{200b}', '\u{2800}', '\u{3164}', '\u{fffb}', '\u{1d173}', '\u{e0fff}']),
        1 => Just('k'),
    ];
    let lengths = prop_oneof![0..4_usize, 253..259_usize];
    prop_oneof![
        prop::collection::vec(letters, 0..4).prop_map(String::from_iter),
        lengths.clone().prop_map(|length| "k".repeat(length)),
        lengths.prop_map(|length| format!("\"{}\"", "k".repeat(length))),
    ]
}

proptest! {
    #[test]
    fn document_patterns_match_parsers(text in texts()) {
        let document = committed();
        let title = &document["components"]["schemas"]["Title"];
        let length = text.chars().count();
        let allowed = pattern(title).is_match(&text) && (1..=Title::MAX_CHARS).contains(&length);
        prop_assert_eq!(allowed, Title::try_from(text.clone()).is_ok(), "title {:?}", text);

        // White space around a header's value is not part of it.
        prop_assume!(text.trim_matches([' ', '\t']) == text);
        let key = &parameter(&document, "/tasks", "post", "Idempotency-Key")["schema"];
        prop_assert_eq!(pattern(key).is_match(&text), IdempotencyKey::parse(text.as_bytes()).is_ok(), "key {:?}", text);
    }
}
