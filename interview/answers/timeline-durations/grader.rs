//! timeline-durations: `GET /admin/tasks/{id}` shows how long a task waited and was processed.
// functions: admin-task

use std::fs;

use grading::{Function, Response, TestEnvironment, events};
use serde_json::{Map, Value, json};

async fn admin_task(environment: &TestEnvironment) -> Function {
    environment.function("admin-task").start().await
}

/// A new task whose columns have these values, and the response about it.
async fn history(environment: &TestEnvironment, function: &mut Function, columns: &str) -> Value {
    let id = environment.task("t", "d").await;
    environment
        .execute(&format!("update tasks set {columns} where id = {id}"))
        .await;
    let response = get(function, id).await;
    assert_eq!(response.status, 200, "the status of a task with {columns}");
    response.json()
}

async fn get(function: &mut Function, id: i64) -> Response {
    function
        .call(&events::rest("GET", &format!("/admin/tasks/{id}"), Some(id)))
        .await
}

/// The events of a timeline with the seconds since the previous one.
fn durations(history: &Value) -> Vec<(String, Value)> {
    let timeline = history["timeline"].as_array().expect("the timeline is a list");
    timeline
        .iter()
        .map(|entry| {
            let after = entry.get("after_seconds");
            let after = after.unwrap_or_else(|| panic!("an entry has no after_seconds: {entry}"));
            (entry["event"].as_str().unwrap_or_default().to_owned(), after.clone())
        })
        .collect()
}

/// Waiting and processing time.
fn times(history: &Value) -> (Value, Value) {
    let member = |name: &str| {
        let value = history.get(name);
        value.unwrap_or_else(|| panic!("the response has no {name}")).clone()
    };
    (member("waiting_seconds"), member("processing_seconds"))
}

/// A finished task, requested on the third of May.
const FINISHED: &str = "status = 'completed', result = 'r', created_at = '2026-05-01', requested_at = '2026-05-03',
    enqueued_at = '2026-05-03 00:00:00.25', started_at = '2026-05-03 00:00:02', settled_at = '2026-05-03 00:00:02.5'";

#[tokio::test]
async fn task_and_events_are_shown_as_before() {
    let environment = TestEnvironment::new().await;
    let mut function = admin_task(&environment).await;
    let history = history(&environment, &mut function, FINISHED).await;
    assert_eq!(
        json!([history["title"], history["status"], history["result"]]),
        json!(["t", "completed", "r"]),
        "title, status and result"
    );
    let timeline = history["timeline"].as_array().expect("the timeline is a list");
    let shown: Vec<Value> = timeline
        .iter()
        .map(|entry| json!([entry["at"], entry["event"]]))
        .collect();
    let expected = json!([
        ["2026-05-01T00:00:00Z", "created"],
        ["2026-05-03T00:00:00Z", "requested"],
        ["2026-05-03T00:00:00.25Z", "enqueued"],
        ["2026-05-03T00:00:02Z", "claimed"],
        ["2026-05-03T00:00:02.5Z", "completed"],
    ]);
    assert_eq!(json!(shown), expected, "times and events");
}

#[tokio::test]
async fn only_admins_see_it_and_unknown_tasks_are_404() {
    let environment = TestEnvironment::new().await;
    let mut function = admin_task(&environment).await;
    let id = environment.task("t", "d").await;
    let event = events::rest("GET", &format!("/admin/tasks/{id}"), Some(id));
    let response = function.call(&events::by(event, "alice", false)).await;
    assert_eq!(response.status, 403, "the status for a caller who is no admin");
    assert!(!response.body.contains("seconds"), "a 403 has no durations");
    assert_eq!(
        get(&mut function, id + 1).await.status,
        404,
        "the status of a task that does not exist"
    );
}

#[tokio::test]
async fn each_event_has_the_seconds_since_the_previous_one() {
    let environment = TestEnvironment::new().await;
    let mut function = admin_task(&environment).await;
    let history = history(&environment, &mut function, FINISHED).await;
    let expected = [
        ("created", Value::Null),
        ("requested", json!(172_800.0)),
        ("enqueued", json!(0.25)),
        ("claimed", json!(1.75)),
        ("completed", json!(0.5)),
    ];
    assert_eq!(numbers(durations(&history)), numbers(expected), "after_seconds");
}

/// The events with their seconds as numbers: 2 and 2.0 are the same.
fn numbers<Name: Into<String>>(durations: impl IntoIterator<Item = (Name, Value)>) -> Vec<(String, Option<f64>)> {
    durations
        .into_iter()
        .map(|(name, value)| (name.into(), number(&value)))
        .collect()
}

/// A number or null.
fn number(value: &Value) -> Option<f64> {
    assert!(
        value.is_number() || value.is_null(),
        "{value} is neither a number nor null"
    );
    value.as_f64()
}

#[tokio::test]
async fn events_out_of_order_have_no_negative_durations() {
    let environment = TestEnvironment::new().await;
    let mut function = admin_task(&environment).await;
    // The worker was faster than the note that the message was sent; created and claimed at once.
    let columns = "status = 'failed', result = 'r', created_at = '2026-05-01', requested_at = '2026-05-01',
        started_at = '2026-05-01', enqueued_at = '2026-05-01 00:00:01', settled_at = '2026-05-01 00:00:00.5'";
    let history = history(&environment, &mut function, columns).await;
    let durations = numbers(durations(&history));
    let seconds: Vec<Option<f64>> = durations.iter().map(|(_, seconds)| *seconds).collect();
    assert_eq!(
        seconds,
        [None, Some(0.0), Some(0.5), Some(0.5)],
        "after_seconds of events at 0, 0, 0.5 and 1 s: {durations:?}"
    );
}

#[tokio::test]
async fn waiting_and_processing_times_are_those_of_the_latest_request() {
    let environment = TestEnvironment::new().await;
    let mut function = admin_task(&environment).await;
    for (columns, expected) in [
        (FINISHED, (Some(2.0), Some(0.5))),
        (
            "created_at = '2026-05-01', requested_at = '2026-05-01', enqueued_at = '2026-05-01 00:00:00.4',
             started_at = '2026-05-01 00:01:01.5', status = 'failed', result = 'r', settled_at = '2026-05-01 01:01:01.5'",
            (Some(61.5), Some(3600.0)),
        ),
    ] {
        let (waiting, processing) = times(&history(&environment, &mut function, columns).await);
        assert_eq!(
            (number(&waiting), number(&processing)),
            expected,
            "waiting_seconds and processing_seconds"
        );
    }
}

#[tokio::test]
async fn times_that_are_not_over_are_null() {
    let environment = TestEnvironment::new().await;
    let mut function = admin_task(&environment).await;
    for (what, columns, expected) in [
        (
            "of a task that was not claimed yet",
            "created_at = '2026-05-01', requested_at = '2026-05-01'",
            (None, None),
        ),
        (
            "of a task that was claimed and not settled yet",
            "created_at = '2026-05-01', requested_at = '2026-05-01', started_at = '2026-05-01 00:00:03'",
            (Some(3.0), None),
        ),
        (
            "of a task that was requested again and waits",
            "created_at = '2026-05-01', started_at = '2026-05-01 00:00:03', requested_at = '2026-05-02'",
            (None, None),
        ),
    ] {
        let (waiting, processing) = times(&history(&environment, &mut function, columns).await);
        assert_eq!(
            (number(&waiting), number(&processing)),
            expected,
            "waiting_seconds and processing_seconds {what}"
        );
    }
}

#[tokio::test]
async fn durations_are_rounded_down_to_milliseconds() {
    let environment = TestEnvironment::new().await;
    let mut function = admin_task(&environment).await;
    let columns = "status = 'completed', result = 'r', created_at = '2026-05-01', requested_at = '2026-05-01',
        enqueued_at = null, started_at = '2026-05-01 00:00:01.234999', settled_at = '2026-05-01 00:00:01.235899'";
    let history = history(&environment, &mut function, columns).await;
    let (waiting, processing) = times(&history);
    assert_eq!(
        (number(&waiting), number(&processing)),
        (Some(1.234), Some(0.0)),
        "1.234999 and 0.0009 s"
    );
    let seconds: Vec<Option<f64>> = numbers(durations(&history))
        .into_iter()
        .map(|(_, seconds)| seconds)
        .collect();
    assert_eq!(seconds, [None, Some(1.234), Some(0.0)], "after_seconds");

    // In floating point 1.001 times 1,000 is less than 1,001, and two days in 32 bits have no
    // milliseconds.
    let columns = "status = 'completed', result = 'r', created_at = '2026-05-01', requested_at = '2026-05-01',
        enqueued_at = null, started_at = '2026-05-01 00:00:01.001', settled_at = '2026-05-03 00:00:01.002'";
    let history = self::history(&environment, &mut function, columns).await;
    let (waiting, processing) = times(&history);
    assert_eq!(
        (number(&waiting), number(&processing)),
        (Some(1.001), Some(172_800.001)),
        "1.001 and 172,800.001 s, which have no parts of a millisecond"
    );
    let seconds: Vec<Option<f64>> = numbers(durations(&history))
        .into_iter()
        .map(|(_, seconds)| seconds)
        .collect();
    assert_eq!(
        seconds,
        [None, Some(1.001), Some(172_800.001)],
        "after_seconds without parts of a millisecond"
    );
}

/// The properties of a schema of openapi.json, through references and `allOf`.
fn properties(document: &Value, schema: &Value) -> Map<String, Value> {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.trim_start_matches('#'));
        return properties(document, target.expect("the reference resolves"));
    }
    let parts = schema["allOf"].as_array().into_iter().flatten();
    let mut all: Map<String, Value> = parts.flat_map(|part| properties(document, part)).collect();
    all.extend(schema["properties"].as_object().cloned().unwrap_or_default());
    all
}

/// The names that a schema of openapi.json requires, through references and `allOf`.
fn required(document: &Value, schema: &Value) -> Vec<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.trim_start_matches('#'));
        return required(document, target.expect("the reference resolves"));
    }
    let parts = schema["allOf"].as_array().into_iter().flatten();
    let mut all: Vec<String> = parts.flat_map(|part| required(document, part)).collect();
    let own = schema["required"].as_array().into_iter().flatten();
    all.extend(own.filter_map(|name| name.as_str().map(str::to_owned)));
    all
}

#[tokio::test]
async fn openapi_document_describes_all_three() {
    let text = fs::read_to_string("../../openapi.json").expect("openapi.json");
    let document: Value = serde_json::from_str(&text).expect("openapi.json is JSON");
    let content = &document["paths"]["/admin/tasks/{id}"]["get"]["responses"]["200"]["content"];
    let whole = &content["application/json"]["schema"];
    let history = properties(&document, whole);
    let items = &history["timeline"]["items"];
    let entry = properties(&document, items);
    for (name, schema, owner) in [
        ("waiting_seconds", history.get("waiting_seconds"), whole),
        ("processing_seconds", history.get("processing_seconds"), whole),
        ("after_seconds", entry.get("after_seconds"), items),
    ] {
        assert!(
            schema.is_none() || required(&document, owner).iter().any(|required| required == name),
            "openapi.json says that {name} may be absent"
        );
        let schema = schema.unwrap_or_else(|| panic!("openapi.json has no {name}: make openapi"));
        assert_eq!(schema["type"], json!(["number", "null"]), "the type of {name}");
        assert!(
            schema["description"].as_str().is_some_and(|text| !text.is_empty()),
            "{name} has no description"
        );
    }
}
