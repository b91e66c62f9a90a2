//! The checks of the exercise rate-limiting.

// functions: create-task, task-reconciler

use std::{path::Path, time::Duration};

use grading::{Function, Response, TASK_QUEUE, TestEnvironment, events, eventually};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// A window that does not end while a check runs, whenever it starts.
const LONG: u64 = 1_000_000;

/// create-task with a limit.
async fn create_task(environment: &TestEnvironment, limit: u64, window: u64) -> Function {
    let starting = environment
        .function("create-task")
        .with("RATE_LIMIT", &limit.to_string());
    starting
        .with("RATE_LIMIT_WINDOW_SECONDS", &window.to_string())
        .start()
        .await
}

fn post(caller: &str, body: &Value) -> Value {
    let event = events::with_body(events::rest("POST", "/tasks", None), body);
    events::by(event, caller, false)
}

/// A valid request.
fn new_task(caller: &str) -> Value {
    post(caller, &json!({"title": "Process user data"}))
}

fn with_key(event: Value, key: &str) -> Value {
    events::with_header(event, "Idempotency-Key", key)
}

async fn tasks(environment: &TestEnvironment) -> usize {
    environment.rows("select id from tasks").await.len()
}

/// Creates as many tasks as the limit allows.
async fn use_up(function: &mut Function, caller: &str, limit: u64) {
    for number in 1..=limit {
        let response = function.call(&new_task(caller)).await;
        assert_eq!(
            response.status, 201,
            "request {number} of {limit} allowed requests: {}",
            response.body
        );
    }
}

/// Asserts that this is the 429 of the brief, and returns its `Retry-After`.
fn assert_refused(response: &Response, window: u64) -> u64 {
    assert_eq!(response.status, 429, "the status of a request over the limit");
    let problem = response.json();
    assert_eq!(response.header("content-type"), "application/problem+json");
    assert_eq!(
        (&problem["status"], &problem["title"], &problem["type"]),
        (&json!(429), &json!("Too Many Requests"), &json!("about:blank")),
        "the problem"
    );
    assert!(problem["detail"].is_string(), "the problem has no detail");
    let seconds = response.header("retry-after");
    let seconds = seconds.parse().unwrap_or_else(|_| panic!("Retry-After is {seconds:?}"));
    assert!(
        (1..=window).contains(&seconds),
        "Retry-After is {seconds}, the window {window} s"
    );
    seconds
}

/// A number in one of the two fields: a string item with parameters (RFC 9651, section 3.3).
fn parameter(response: &Response, field: &str, name: &str) -> u64 {
    let value = response.header(field);
    let (item, parameters) = value.split_once(';').unwrap_or((value, ""));
    let quoted = item.trim().strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    assert!(
        quoted.is_some_and(|name| !name.is_empty()),
        "{field} of a {} is {value:?}",
        response.status
    );
    let mut parameters = parameters
        .split(';')
        .filter_map(|parameter| parameter.trim().split_once('='));
    let found = parameters.find_map(|(found, number)| (found == name).then(|| number.parse().ok())?);
    found.unwrap_or_else(|| panic!("{field} of a {} has no {name}: {value:?}", response.status))
}

#[tokio::test]
async fn requests_within_the_limit_behave_as_before() {
    let environment = TestEnvironment::new().await;
    let mut function = create_task(&environment, 5, LONG).await;
    let response = function.call(&new_task("alice")).await;
    assert_eq!(response.status, 201);
    let id = response.json()["id"].as_i64().expect("an id");
    let row = environment.row(id).await;
    assert_eq!(
        (&row["created_by"], &row["status"]),
        (&json!("alice"), &json!("pending"))
    );
    assert!(row["enqueued_at"].is_string(), "its message was not sent");
    assert_eq!(response.header("location"), format!("tasks/{id}"));

    let keyed = with_key(post("alice", &json!({"title": "t", "description": "d"})), "order-1");
    let (first, again) = (function.call(&keyed).await, function.call(&keyed).await);
    assert_eq!((first.status, again.status), (201, 201));
    assert_eq!(
        (again.header("idempotent-replayed"), &again.body),
        ("true", &first.body)
    );
    let other = with_key(new_task("alice"), "order-1");
    assert_eq!(
        function.call(&other).await.status,
        422,
        "another body under the same key"
    );
    assert_eq!(function.call(&post("alice", &json!({"title": ""}))).await.status, 422);
    assert_eq!(
        (tasks(&environment).await, environment.messages(TASK_QUEUE).await),
        (2, 2),
        "tasks and messages"
    );
}

#[tokio::test]
async fn request_over_the_limit_is_429_without_side_effects() {
    let environment = TestEnvironment::new().await;
    let mut function = create_task(&environment, 3, LONG).await;
    use_up(&mut function, "alice", 3).await;
    for event in [new_task("alice"), with_key(new_task("alice"), "order-1")] {
        assert_refused(&function.call(&event).await, LONG);
    }
    // A fresh environment.
    let mut another = create_task(&environment, 3, LONG).await;
    assert_refused(&another.call(&new_task("alice")).await, LONG);
    assert_eq!(
        (tasks(&environment).await, environment.messages(TASK_QUEUE).await),
        (3, 3),
        "tasks and messages"
    );
    let keys = environment.rows("select key from idempotency_keys").await;
    assert!(keys.is_empty(), "a refused request has stored its key");
    // They have been created, and processed.
    environment
        .execute("delete from tasks where created_by = 'alice'")
        .await;
    assert_refused(&function.call(&new_task("alice")).await, LONG);
    use_up(&mut function, "bob", 3).await;

    // An admin, and the anonymous caller of an open API, who has no authorizer.
    let admin = events::by(new_task("root"), "root", true);
    let mut anonymous = new_task("anonymous");
    anonymous["requestContext"]["authorizer"] = json!({});
    let open = environment.function("create-task").with("AUTH", "open");
    let open = open.with("RATE_LIMIT", "3");
    let mut open = open.with("RATE_LIMIT_WINDOW_SECONDS", &LONG.to_string()).start().await;
    for (who, event) in [("an admin", admin), ("the anonymous caller", anonymous)] {
        for number in 1..=3 {
            let response = open.call(&event).await;
            assert_eq!(response.status, 201, "request {number} of {who}: {}", response.body);
        }
        let response = open.call(&event).await;
        assert_eq!(response.status, 429, "the status of one request more of {who}");
    }
}

#[tokio::test]
async fn responses_report_limit_remaining_and_reset() {
    let environment = TestEnvironment::new().await;
    let mut function = create_task(&environment, 3, LONG).await;
    let events = [
        new_task("alice"),
        with_key(new_task("alice"), "order-1"),
        new_task("alice"),
        new_task("alice"),
        with_key(new_task("alice"), "order-2"),
    ];
    for (event, (status, left)) in events.iter().zip([(201, 2), (201, 1), (201, 0), (429, 0), (429, 0)]) {
        let response = function.call(event).await;
        assert_eq!(response.status, status);
        assert_eq!(parameter(&response, "RateLimit-Policy", "q"), 3, "q of a {status}");
        assert_eq!(parameter(&response, "RateLimit-Policy", "w"), LONG, "w of a {status}");
        assert_eq!(parameter(&response, "RateLimit", "r"), left, "r of a {status}");
        assert!(parameter(&response, "RateLimit", "t") <= LONG, "t of a {status}");
    }
    // Whatever the algorithm, a refused caller comes closer to the end of the wait.
    let refused = function.call(&new_task("alice")).await;
    let wait = assert_refused(&refused, LONG);
    let before = parameter(&refused, "RateLimit", "t");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let still_refused = function.call(&new_task("alice")).await;
    assert_eq!(still_refused.status, 429, "the status two seconds later");
    assert!(
        wait > 2,
        "Retry-After is {wait}, and two seconds later requests are refused"
    );
    let after = parameter(&still_refused, "RateLimit", "t");
    assert!(
        after < before,
        "t of two 429s, two seconds apart: {before}, then {after}"
    );

    // As deployed: the template need not set the window.
    let mut function = environment.function("create-task").start().await;
    let response = function.call(&new_task("bob")).await;
    assert_eq!(response.status, 201, "the status with the variables of template.yaml");
    for name in ["q", "w"] {
        let default = parameter(&response, "RateLimit-Policy", name);
        assert_eq!(default, 60, "the default of {name}");
    }
}

#[tokio::test]
async fn concurrent_requests_are_limited_exactly() {
    const LIMIT: usize = 17;
    let environment = TestEnvironment::new().await;
    let mut functions = Vec::new();
    for _ in 0..10 {
        functions.push(create_task(&environment, LIMIT as u64, LONG).await);
    }
    for (round, keyed) in [false, true].into_iter().enumerate() {
        let caller = format!("caller {round}");
        let mut senders = JoinSet::new();
        for (index, mut function) in functions.drain(..).enumerate() {
            let caller = caller.clone();
            senders.spawn(async move {
                let mut created = 0;
                for number in 0..5 {
                    let event = new_task(&caller);
                    let event = match keyed {
                        true => with_key(event, &format!("{index}-{number}")),
                        false => event,
                    };
                    let response = function.call(&event).await;
                    match response.status {
                        201 => created += 1,
                        _ => {
                            assert_refused(&response, LONG);
                        }
                    }
                }
                (function, created)
            });
        }
        let mut created = 0;
        for (function, those) in senders.join_all().await {
            functions.push(function);
            created += those;
        }
        let what = if keyed { "with a key" } else { "without a key" };
        assert_eq!(created, LIMIT, "requests {what} that were accepted");
        let there = (round + 1) * LIMIT;
        assert_eq!(
            (tasks(&environment).await, environment.messages(TASK_QUEUE).await),
            (there, there as u64)
        );
    }
}

#[tokio::test]
async fn invalid_and_repeated_requests_do_not_count() {
    let environment = TestEnvironment::new().await;
    let (mut function, mut another) = (
        create_task(&environment, 2, LONG).await,
        create_task(&environment, 2, LONG).await,
    );
    let keyed = with_key(new_task("alice"), "order-1");
    let first = function.call(&keyed).await;
    assert_eq!(first.status, 201);
    for _ in 0..2 {
        assert_eq!(function.call(&post("alice", &json!({"title": ""}))).await.status, 422);
        let other = with_key(post("alice", &json!({"title": "another"})), "order-1");
        assert_eq!(
            function.call(&other).await.status,
            422,
            "another body under the same key"
        );
        assert_eq!(another.call(&keyed).await.status, 201, "a repeated request");
    }
    use_up(&mut function, "alice", 1).await;
    assert_refused(&function.call(&new_task("alice")).await, LONG);
    let again = another.call(&keyed).await;
    assert_eq!(
        again.status, 201,
        "a repeated request from a caller who has used up the limit"
    );
    assert_eq!(
        (again.header("idempotent-replayed"), &again.body),
        ("true", &first.body)
    );
    assert_eq!(function.call(&post("alice", &json!({"title": ""}))).await.status, 422);

    // The first of two concurrent identical requests takes the last slot.
    for round in 0..10 {
        let caller = format!("caller {round}");
        use_up(&mut function, &caller, 1).await;
        let keyed = with_key(new_task(&caller), "order-1");
        let (one, two) = tokio::join!(function.call(&keyed), another.call(&keyed));
        assert_eq!(
            (one.status, two.status),
            (201, 201),
            "one request, sent twice concurrently"
        );
        assert_eq!(one.body, two.body);
    }
}

#[tokio::test]
async fn limit_costs_at_most_one_extra_round_trip() {
    let environment = TestEnvironment::new().await;
    let proxy = environment.proxy().await;
    let starting = environment.function("create-task").with("RATE_LIMIT", "4");
    let starting = starting.with("RATE_LIMIT_WINDOW_SECONDS", &LONG.to_string());
    let mut function = starting.through(&proxy).start().await;
    for keyed in [false, true] {
        let caller = format!("keyed: {keyed}");
        for number in 0..7 {
            let event = new_task(&caller);
            let event = match keyed {
                true => with_key(event, &number.to_string()),
                false => event,
            };
            let before = proxy.round_trips();
            let response = function.call(&event).await;
            let used = proxy.round_trips() - before;
            let (status, most) = if number < 4 { (201, 3) } else { (429, 2) };
            assert_eq!(response.status, status, "request {number}");
            // The first requests also prepare statements.
            if number != 0 && number != 4 {
                assert!(used <= most, "{used} round trips for a {status}, with a key: {keyed}");
            }
        }
    }
}

/// How many rows there are in the tables that the exercise added.
async fn left_behind(environment: &TestEnvironment) -> i64 {
    let tables = "select table_name from information_schema.tables
                  where table_schema = 'public' and table_type = 'BASE TABLE'
                    and table_name not in ('tasks', 'idempotency_keys', '_sqlx_migrations')";
    let mut rows = 0;
    for table in environment.rows(tables).await {
        let table = table["table_name"].as_str().expect("a name");
        let counted = environment
            .rows(&format!(r#"select count(*) as rows from public."{table}""#))
            .await;
        rows += counted[0]["rows"].as_i64().expect("a number");
    }
    rows
}

#[tokio::test]
async fn limit_resets_after_the_wait_and_idle_callers_are_deleted() {
    const WINDOW: u64 = 3;
    let environment = TestEnvironment::new().await;
    let mut function = create_task(&environment, 2, WINDOW).await;
    // A window may end at any time, but one of so many requests is refused.
    let mut refused = None;
    for _ in 0..50 {
        let response = function.call(&new_task("alice")).await;
        if response.status != 201 {
            refused = Some(response);
            break;
        }
    }
    let refused = refused.expect("none of 50 requests was refused");
    let wait = assert_refused(&refused, WINDOW);
    let function = tokio::sync::Mutex::new(function);
    eventually(
        wait + 3,
        "a request is accepted again, although others were refused meanwhile",
        async || {
            let response = function.lock().await.call(&new_task("alice")).await;
            (response.status == 201).then_some(())
        },
    )
    .await;

    // In the next window as well.
    let mut accepted = 0;
    while function.lock().await.call(&new_task("alice")).await.status == 201 {
        accepted += 1;
        assert!(accepted < 50, "none of 50 requests in the next window was refused");
    }

    for number in 0..20 {
        let caller = format!("caller {number}");
        assert_eq!(function.lock().await.call(&new_task(&caller)).await.status, 201);
    }
    let starting = environment.function("task-reconciler").with("RATE_LIMIT", "2");
    let starting = starting.with("RATE_LIMIT_WINDOW_SECONDS", &WINDOW.to_string());
    let reconciler = tokio::sync::Mutex::new(starting.start().await);
    eventually(WINDOW + 12, "sweeps delete the rows of idle callers", async || {
        let swept = reconciler.lock().await.invoke(&json!({})).await;
        swept.unwrap_or_else(|error| panic!("the sweep fails: {error}"));
        (left_behind(&environment).await == 0).then_some(())
    })
    .await;
}

/// Follows a reference within the document.
fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => document
            .pointer(reference.trim_start_matches('#'))
            .unwrap_or(&Value::Null),
        None => value,
    }
}

fn read(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).expect("JSON")
}

#[tokio::test]
async fn template_alarm_and_openapi_reflect_the_limit() {
    let templates = std::env::var("TEMPLATES").expect("make grade sets it");
    let template = read(&Path::new(&templates).join("sandbox.json"));
    let parameter = &template["Parameters"]["RateLimit"]["Default"];
    assert!(
        parameter == 60 || parameter == "60",
        "the default of the parameter RateLimit is {parameter}"
    );
    let variables = &template["Resources"]["CreateTaskFunction"]["Properties"]["Environment"]["Variables"];
    assert_eq!(
        variables["RATE_LIMIT"],
        json!({"Ref": "RateLimit"}),
        "RATE_LIMIT of create-task"
    );

    let filter = &template["Resources"]["ApiThrottledFilter"]["Properties"]["FilterPattern"];
    let pattern = filter.as_str().unwrap_or_default();
    let fields = pattern.split("$.").skip(1);
    let fields = fields.filter_map(|rest| rest.split(|letter: char| !letter.is_alphanumeric()).next());
    // Which request it was does not say who refused it.
    let of_request = ["status", "route", "method", "path", "ip", "subject"];
    let others: Vec<&str> = fields.filter(|field| !of_request.contains(field)).collect();
    assert!(
        !others.is_empty(),
        "ApiThrottledAlarm goes off when one caller has used up their own limit: {pattern}"
    );

    let document = read(Path::new("../../openapi.json"));
    let response = resolve(&document, &document["paths"]["/tasks"]["post"]["responses"]["429"]);
    assert!(response.is_object(), "openapi.json describes no 429 of POST /tasks");
    assert!(
        response["content"]["application/problem+json"].is_object(),
        "the 429 is a problem"
    );
    let headers = response["headers"].as_object().into_iter().flatten();
    let headers: Vec<String> = headers.map(|(name, _)| name.to_ascii_lowercase()).collect();
    for header in ["retry-after", "ratelimit", "ratelimit-policy"] {
        assert!(
            headers.iter().any(|name| name == header),
            "the 429 has no {header} in openapi.json"
        );
    }
}
