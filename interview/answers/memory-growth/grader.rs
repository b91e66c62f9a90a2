//! memory-growth: a function's memory does not depend on the number of requests served.
// functions: api-docs, api-info, get-task

use grading::{Function, TestEnvironment, events};
use serde_json::{Value, json};

/// How much a function's memory may grow between some and many requests, in bytes.
const GROWTH: u64 = 3_000_000;

/// Some requests, after which a function has allocated what it needs, and many.
const SOME: usize = 300;
const MANY: usize = 1500;

/// Sends the events in turn, from this number up to that one.
async fn send(function: &mut Function, events: &[Value], from: usize, to: usize) {
    for number in from..to {
        function.call(&events[number % events.len()]).await;
    }
}

/// How much a function's peak memory grows between some and many of these requests.
async fn growth(function: &mut Function, events: &[Value], some: usize, many: usize) -> u64 {
    send(function, events, 0, some).await;
    let before = function.peak_memory();
    send(function, events, some, many).await;
    function.peak_memory() - before
}

fn assert_little(growth: u64, what: &str) {
    let megabytes = growth as f64 / 1e6;
    assert!(
        growth <= GROWTH,
        "{what} it uses {megabytes:.1} MB more than before, not at most {:.0}",
        GROWTH as f64 / 1e6
    );
}

fn get(id: i64) -> Value {
    events::task("GET", id, "")
}

/// The log line of the function's last failure.
fn failure(function: &Function) -> Value {
    let line = function.logged("the request failed").pop();
    line.expect("the failure is logged")
}

#[tokio::test]
async fn requests_are_served_and_logged() {
    let environment = TestEnvironment::new().await;
    let id = environment.task("Process user data", "Count the words of this").await;
    let mut function = environment.function("get-task").start().await;
    let response = function.call(&get(id)).await;
    assert_eq!(
        (response.status, &response.json()["title"]),
        (200, &json!("Process user data")),
        "the response"
    );
    assert_eq!(
        function.call(&get(id + 1)).await.status,
        404,
        "the status of a task that does not exist"
    );
    let statuses: Vec<Value> = function
        .logged("request served")
        .iter()
        .map(|line| line["status"].clone())
        .collect();
    assert_eq!(statuses, [200, 404], "the statuses in the log");
}

#[tokio::test]
async fn failure_log_shows_the_requests_served_before_it() {
    let environment = TestEnvironment::new().await;
    let id = environment.task("t", "").await;
    let proxy = environment.proxy().await;
    let mut function = environment.function("get-task").through(&proxy).start().await;
    function.call(&get(id)).await;
    function.call(&get(999)).await;
    proxy.take_down().await;
    let query = events::with_query(get(id), "secret", "token");
    assert_eq!(function.call(&query).await.status, 503, "the status without a database");
    let line = failure(&function);
    let expected = format!("GET /tasks/{id} 200, GET /tasks/999 404");
    assert_eq!(
        (&line["served"], &line["recent"]),
        (&json!(2), &json!(expected)),
        "`served` and `recent`"
    );
    // The next failure lists this one.
    function.call(&get(7)).await;
    let line = failure(&function);
    let expected = format!("{expected}, GET /tasks/{id} 503");
    assert_eq!(
        (&line["served"], &line["recent"]),
        (&json!(3), &json!(expected)),
        "`served` and `recent` later"
    );
}

#[tokio::test]
async fn failure_log_shows_the_last_twenty_requests_and_their_count() {
    let environment = TestEnvironment::new().await;
    let proxy = environment.proxy().await;
    let mut function = environment.function("get-task").through(&proxy).start().await;
    // Then each request fails and is logged, so the lines of many numbers of requests are seen. A
    // buffer that is emptied after more than these fails the check of memory with long paths.
    let events: Vec<Value> = (1..=1200).map(get).collect();
    send(&mut function, &events, 0, 407).await;
    proxy.take_down().await;
    send(&mut function, &events, 407, 1200).await;
    let lines = function.logged("the request failed");
    assert_eq!(lines.len(), 793, "logged failures");
    for (served, line) in (407..).zip(lines) {
        assert_eq!(line["served"], json!(served), "`served` after {served} requests");
        let shown = (served - 19..=served).map(|id| {
            let status = if id <= 407 { 404 } else { 503 };
            format!("GET /tasks/{id} {status}")
        });
        assert_eq!(
            line["recent"],
            json!(shown.collect::<Vec<_>>().join(", ")),
            "`recent` after {served} requests"
        );
    }
}

#[tokio::test]
async fn memory_does_not_grow_with_the_number_of_requests() {
    let environment = TestEnvironment::new().await;
    let id = environment.task("t", "short").await;
    let mut function = environment.function("get-task").start().await;
    // Found, missing and invalid.
    let events = [get(id), get(id + 1), get(0)];
    let growth = growth(&mut function, &events, SOME, MANY).await;
    assert_little(growth, "after 1,500 requests");
}

#[tokio::test]
async fn memory_does_not_grow_with_response_bodies() {
    let environment = TestEnvironment::new().await;
    let id = environment.task("t", &"word ".repeat(2000)).await;
    let mut function = environment.function("get-task").start().await;
    let growth = growth(&mut function, &[get(id)], SOME, MANY).await;
    assert_little(growth, "after 1,500 responses of 10 KB");
}

#[tokio::test]
async fn memory_does_not_grow_with_request_paths() {
    let environment = TestEnvironment::new().await;
    let mut function = environment.function("api-info").start().await;
    // Like a vulnerability scanner.
    let event = |number: usize| {
        let path = format!("/{}/{number}", "wp-admin/".repeat(700));
        events::rest("GET", &path, None)
    };
    let events: Vec<Value> = (0..MANY).map(event).collect();
    let growth = growth(&mut function, &events, SOME, MANY).await;
    assert_little(growth, "after 1,500 different paths of 6 KB");
}

#[tokio::test]
async fn large_response_is_released_once_sent() {
    let environment = TestEnvironment::new().await;
    let mut function = environment.function("api-docs").start().await;
    let mut asset = events::rest("GET", "/docs/swagger-ui-bundle.js", None);
    asset["pathParameters"] = json!({"asset": "swagger-ui-bundle.js"});
    let response = function.call(&asset).await;
    assert!(
        response.status == 200 && response.body.len() > 1_000_000,
        "the asset is missing: {}",
        response.status
    );
    let growth = growth(&mut function, &[asset], 3, 30).await;
    assert_little(growth, "after 30 responses of 1.7 MB");
}
