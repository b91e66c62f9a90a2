//! connection-exhaustion: each execution environment has one connection to Postgres, and loses no
//! work.
// functions: create-task, delete-task, get-task, task-processor, task-reconciler, update-task
// tests: functions

use grading::{Function, Proxy, Response, TASK_QUEUE, TestEnvironment, events, eventually};
use serde_json::{Value, json};

/// How many repetitions to count connections over.
const TIMES: usize = 8;

fn new_task(title: &str) -> Value {
    events::with_body(events::rest("POST", "/tasks", None), &json!({"title": title}))
}

/// A function behind its own proxy.
async fn behind_proxy(environment: &TestEnvironment, function: &str) -> (Function, Proxy) {
    let proxy = environment.proxy().await;
    let function = environment.function(function).through(&proxy).start().await;
    (function, proxy)
}

fn assert_success(response: &Response, what: &str) {
    assert!(
        (200..300).contains(&response.status),
        "{what}: {} {}",
        response.status,
        response.body
    );
}

/// Pending tasks whose messages are in the queue.
async fn enqueued(environment: &TestEnvironment, count: usize, description: &str) -> Vec<i64> {
    let mut ids = Vec::new();
    for number in 0..count {
        ids.push(environment.task(&format!("task {number}"), description).await);
    }
    environment.enqueue(&ids).await;
    ids
}

async fn statuses(environment: &TestEnvironment, ids: &[i64]) -> Vec<String> {
    let mut statuses = Vec::new();
    for id in ids {
        let row = environment.row(*id).await;
        statuses.push(row["status"].as_str().unwrap_or("no such task").to_owned());
    }
    statuses
}

#[tokio::test]
async fn task_is_created_read_and_completed() {
    let environment = TestEnvironment::new().await;
    let mut create = environment.function("create-task").start().await;
    let created = create.call(&new_task("Process user data")).await;
    assert_eq!(created.status, 201, "the status of POST /tasks");
    let id = created.json()["id"].as_i64().expect("a task has an id");
    let mut processor = environment.function("task-processor").start().await;
    let delivered = environment.deliver(&mut processor, 1).await;
    assert!(delivered.redelivered.is_empty(), "the message was not acknowledged");
    let mut get = environment.function("get-task").start().await;
    let found = get.call(&events::task("GET", id, "")).await;
    assert_eq!(found.json()["status"], "completed", "the task's status");
}

#[tokio::test]
async fn reads_share_one_connection_and_need_one_round_trip_each() {
    let environment = TestEnvironment::new().await;
    let id = environment.task("t", "").await;
    let (mut get, proxy) = behind_proxy(&environment, "get-task").await;
    eventually(
        5,
        "get-task connects in its init phase, before its first request",
        async || (proxy.connections() == 1).then_some(()),
    )
    .await;
    assert_success(&get.call(&events::task("GET", id, "")).await, "GET");
    let before = proxy.round_trips();
    for _ in 0..TIMES {
        assert_success(&get.call(&events::task("GET", id, "")).await, "GET");
    }
    assert_eq!(
        proxy.round_trips() - before,
        TIMES,
        "the round trips of {TIMES} warm GETs"
    );
    assert_eq!(proxy.connections(), 1, "the connections that get-task opened");
}

#[tokio::test]
async fn writes_share_one_connection_per_function() {
    let environment = TestEnvironment::new().await;
    let (mut create, through_create) = behind_proxy(&environment, "create-task").await;
    let (mut update, through_update) = behind_proxy(&environment, "update-task").await;
    let (mut delete, through_delete) = behind_proxy(&environment, "delete-task").await;
    for number in 0..TIMES {
        let mut new = new_task("t");
        if number % 2 == 1 {
            new = events::with_header(new, "Idempotency-Key", &format!("key-{number}"));
        }
        let created = create.call(&new).await;
        assert_success(&created, "POST /tasks");
        let id = created.json()["id"].as_i64().expect("a task has an id");
        let change = events::with_body(events::task("PATCH", id, ""), &json!({"title": "u"}));
        // A conditional update.
        let change = events::with_header(change, "If-Match", "\"1\"");
        assert_success(&update.call(&change).await, "PATCH");
        assert_success(&delete.call(&events::task("DELETE", id, "")).await, "DELETE");
    }
    let opened = [&through_create, &through_update, &through_delete].map(Proxy::connections);
    assert_eq!(
        opened, [1; 3],
        "the connections that create-, update- and delete-task opened for {TIMES} requests each"
    );

    let (mut reconciler, proxy) = behind_proxy(&environment, "task-reconciler").await;
    for _ in 0..3 {
        let swept = reconciler.invoke(&json!({})).await;
        swept.unwrap_or_else(|error| panic!("the sweep fails: {error}"));
    }
    assert_eq!(
        proxy.connections(),
        1,
        "the connections that task-reconciler opened for 3 sweeps"
    );
}

#[tokio::test]
async fn batch_of_ten_needs_one_connection() {
    let environment = TestEnvironment::new().await;
    let (mut processor, proxy) = behind_proxy(&environment, "task-processor").await;
    for _ in 0..3 {
        let ids = enqueued(&environment, 10, "").await;
        let delivered = environment.deliver(&mut processor, 10).await;
        assert!(
            delivered.redelivered.is_empty(),
            "these were redelivered: {:?}",
            delivered.redelivered
        );
        assert_eq!(
            statuses(&environment, &ids).await,
            ["completed"; 10],
            "the tasks of a batch"
        );
    }
    assert_eq!(
        proxy.connections(),
        1,
        "the connections that the processor opened for 3 batches"
    );
}

#[tokio::test]
async fn batch_of_any_size_needs_two_round_trips() {
    let environment = TestEnvironment::new().await;
    let (mut processor, proxy) = behind_proxy(&environment, "task-processor").await;
    let mut used = Vec::new();
    // The first batch prepares the statements.
    for size in [1, 1, 10] {
        enqueued(&environment, size, "").await;
        let before = proxy.round_trips();
        environment.deliver(&mut processor, size).await;
        used.push(proxy.round_trips() - before);
    }
    assert_eq!(
        used[1..],
        [2, 2],
        "the round trips of a warm batch of 1 and of one of 10"
    );
}

#[tokio::test]
async fn records_of_a_batch_fail_independently() {
    let environment = TestEnvironment::new().await;
    let mut processor = environment.function("task-processor").start().await;
    let mut ids = Vec::new();
    for description in ["", "fail: never", "retry: not now", ""] {
        ids.extend(enqueued(&environment, 1, description).await);
    }
    environment.send(TASK_QUEUE, "not a task").await;
    let delivered = environment.deliver(&mut processor, 5).await;
    let retried = json!({"task_id": ids[2]}).to_string();
    let mut redelivered = delivered.redelivered;
    redelivered.sort();
    assert_eq!(redelivered, ["not a task", &retried], "the redelivered messages");
    let statuses = statuses(&environment, &ids).await;
    assert_eq!(statuses, ["completed", "failed", "pending", "completed"], "the tasks");
}

#[tokio::test]
async fn terminated_connection_is_replaced_once_and_no_request_fails() {
    let environment = TestEnvironment::new().await;
    let (mut create, through_create) = behind_proxy(&environment, "create-task").await;
    let (mut get, through_get) = behind_proxy(&environment, "get-task").await;
    let created = create.call(&new_task("before")).await;
    let id = created.json()["id"].as_i64().expect("a task has an id");
    assert_success(&get.call(&events::task("GET", id, "")).await, "GET before");
    let before = (through_create.connections(), through_get.connections());
    // As a failover does.
    environment
        .execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity
             where datname = current_database() and pid <> pg_backend_pid()",
        )
        .await;
    for _ in 0..TIMES {
        assert_success(
            &create.call(&new_task("after")).await,
            "POST after the connection was terminated",
        );
        assert_success(
            &get.call(&events::task("GET", id, "")).await,
            "GET after the connection was terminated",
        );
    }
    let after = (through_create.connections(), through_get.connections());
    let opened = (after.0 - before.0, after.1 - before.1);
    assert_eq!(
        opened,
        (1, 1),
        "the connections that create-task and get-task opened since then"
    );
    let created = environment
        .rows("select count(*) from tasks where title = 'after'")
        .await;
    assert_eq!(created[0]["count"], json!(TIMES), "the tasks created since then");
}

#[tokio::test]
async fn database_outage_is_503_and_recovery_needs_no_restart() {
    let environment = TestEnvironment::new().await;
    let id = environment.task("t", "").await;
    let (mut get, proxy) = behind_proxy(&environment, "get-task").await;
    let (mut processor, through_processor) = behind_proxy(&environment, "task-processor").await;
    assert_success(&get.call(&events::task("GET", id, "")).await, "GET before");
    proxy.take_down().await;
    through_processor.take_down().await;
    let response = get.call(&events::task("GET", id, "")).await;
    assert_eq!(response.status, 503, "the status while the database is unavailable");
    assert!(!response.header("retry-after").is_empty(), "a 503 has no Retry-After");
    let failed = processor.invoke(&events::sqs(&[id])).await;
    assert!(
        failed.is_err(),
        "a batch is acknowledged while the database is unavailable"
    );

    proxy.open();
    through_processor.open();
    let connections = proxy.connections();
    for _ in 0..TIMES {
        assert_success(&get.call(&events::task("GET", id, "")).await, "GET afterwards");
    }
    assert_eq!(
        proxy.connections() - connections,
        1,
        "the connections that get-task opened since then"
    );
    let done = processor.invoke(&events::sqs(&[id])).await;
    assert!(done.is_ok(), "the batch fails afterwards: {done:?}");
    assert_eq!(statuses(&environment, &[id]).await, ["completed"], "the task");
}
