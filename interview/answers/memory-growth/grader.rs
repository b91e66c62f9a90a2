//! memory-growth: what a function holds does not depend on how many requests it has served.
// functions: api-docs, api-info, get-task

use grading::{Function, Stand, events};
use serde_json::{Value, json};

/// How much more a function may hold after many requests than after some, in bytes.
const GROWTH: u64 = 3_000_000;

/// Some requests, after which a function holds what it needs, and many.
const SOME: usize = 300;
const MANY: usize = 1500;

/// Sends it the events in turn, until it was sent this many.
async fn send(function: &mut Function, events: &[Value], from: usize, to: usize) {
    for number in from..to {
        function.call(&events[number % events.len()]).await;
    }
}

/// How much more a function holds at the most after many of these requests than after some.
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
        "{what} it holds {megabytes:.1} MB more than before, not at most {:.0}",
        GROWTH as f64 / 1e6
    );
}

fn get(id: i64) -> Value {
    events::task("GET", id, "")
}

/// The line that the function's last failure has logged.
fn failure(function: &Function) -> Value {
    let line = function.logged("the request failed").pop();
    line.expect("the failure is logged")
}

#[tokio::test]
async fn requests_are_answered_and_each_has_its_line_in_the_log() {
    let stand = Stand::new().await;
    let id = stand.task("Process user data", "Count the words of this").await;
    let mut function = stand.function("get-task").start().await;
    let answer = function.call(&get(id)).await;
    assert_eq!(
        (answer.status, &answer.json()["title"]),
        (200, &json!("Process user data")),
        "the answer"
    );
    assert_eq!(
        function.call(&get(id + 1)).await.status,
        404,
        "the status of a task that is not there"
    );
    let statuses: Vec<Value> = function
        .logged("request served")
        .iter()
        .map(|line| line["status"].clone())
        .collect();
    assert_eq!(statuses, [200, 404], "the statuses in the log");
}

#[tokio::test]
async fn a_failure_shows_what_was_served_before_it() {
    let stand = Stand::new().await;
    let id = stand.task("t", "").await;
    let proxy = stand.proxy().await;
    let mut function = stand.function("get-task").through(&proxy).start().await;
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
    // The next failure comes after this one.
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
async fn a_failure_shows_the_last_twenty_and_how_many_there_were() {
    let stand = Stand::new().await;
    let proxy = stand.proxy().await;
    let mut function = stand.function("get-task").through(&proxy).start().await;
    let events: Vec<Value> = (1..=400).map(get).collect();
    send(&mut function, &events, 0, 400).await;
    proxy.take_down().await;
    function.call(&get(1)).await;
    let line = failure(&function);
    assert_eq!(line["served"], json!(400), "`served` after 400 requests");
    let expected: Vec<String> = (381..=400).map(|id| format!("GET /tasks/{id} 404")).collect();
    assert_eq!(
        line["recent"],
        json!(expected.join(", ")),
        "`recent` after 400 requests"
    );
}

#[tokio::test]
async fn what_a_function_holds_does_not_grow_with_the_number_of_requests() {
    let stand = Stand::new().await;
    let id = stand.task("t", "short").await;
    let mut function = stand.function("get-task").start().await;
    // Found, not there, and not valid.
    let events = [get(id), get(id + 1), get(0)];
    let growth = growth(&mut function, &events, SOME, MANY).await;
    assert_little(growth, "after 1,500 requests");
}

#[tokio::test]
async fn what_a_function_holds_does_not_grow_with_its_answers() {
    let stand = Stand::new().await;
    let id = stand.task("t", &"word ".repeat(2000)).await;
    let mut function = stand.function("get-task").start().await;
    let growth = growth(&mut function, &[get(id)], SOME, MANY).await;
    assert_little(growth, "after 1,500 answers of 10 KB");
}

#[tokio::test]
async fn what_a_function_holds_does_not_grow_with_the_paths_of_requests() {
    let stand = Stand::new().await;
    let mut function = stand.function("api-info").start().await;
    // As those who look for holes do.
    let event = |number: usize| {
        let path = format!("/{}/{number}", "wp-admin/".repeat(700));
        events::rest("GET", &path, None)
    };
    let events: Vec<Value> = (0..MANY).map(event).collect();
    let growth = growth(&mut function, &events, SOME, MANY).await;
    assert_little(growth, "after 1,500 different paths of 6 KB");
}

#[tokio::test]
async fn a_large_answer_is_let_go_of_when_it_is_sent() {
    let stand = Stand::new().await;
    let mut function = stand.function("api-docs").start().await;
    let mut asset = events::rest("GET", "/docs/swagger-ui-bundle.js", None);
    asset["pathParameters"] = json!({"asset": "swagger-ui-bundle.js"});
    let answer = function.call(&asset).await;
    assert!(
        answer.status == 200 && answer.body.len() > 1_000_000,
        "the asset is not there: {}",
        answer.status
    );
    let growth = growth(&mut function, &[asset], 3, 30).await;
    assert_little(growth, "after 30 answers of 1.7 MB");
}
