//! The deployed stack, over HTTP: API Gateway, Lambda, SQS and its event source mapping, Postgres.

use aws_sdk_sqs::types::QueueAttributeName;
use queue::DeadLetterQueue;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{client_config, env, eventually, sqs};

async fn call(method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
    let mut request = reqwest::Client::new().request(method, format!("{}{path}", env("API_URL")));
    if let Some(body) = body {
        request = request.json(&body);
    }
    let response = request.send().await.expect("the stack responds");
    let status = response.status();
    (status, response.json().await.expect("a JSON body"))
}

async fn get(path: &str) -> (StatusCode, Value) {
    call(Method::GET, path, None).await
}

async fn create(title: &str) -> i64 {
    let (status, task) = call(Method::POST, "/tasks", Some(json!({"title": title}))).await;
    assert_eq!(status, 201, "{task}");
    task["id"].as_i64().expect("an id")
}

async fn completed(id: i64) -> Value {
    eventually(30, "the task is completed", async || {
        let (status, task) = get(&format!("/tasks/{id}")).await;
        assert_eq!(status, 200, "{task}");
        (task["status"] == "completed").then_some(task)
    })
    .await
}

#[tokio::test]
async fn task_passes_through_its_lifecycle() {
    let body = json!({"title": "Process user data", "description": "Count the words"});
    let response = reqwest::Client::new()
        .post(format!("{}/tasks", env("API_URL")))
        .json(&body)
        .send()
        .await;
    let response = response.expect("the stack responds");
    assert_eq!(response.status(), 201);
    let location = response.headers()["location"].to_str().expect("text").to_owned();
    let url = response.url().join(&location).expect("a relative URL");
    let created: Value = response.json().await.expect("a task");
    assert_eq!(
        (&created["status"], &created["result"]),
        (&json!("pending"), &Value::Null)
    );

    let id = created["id"].as_i64().expect("an id");
    let path = format!("/tasks/{id}");
    let done = completed(id).await;
    let (status, history) = get(&format!("/admin/tasks/{id}")).await;
    let events: Vec<&Value> = history["timeline"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|entry| &entry["event"])
        .collect();
    assert_eq!(
        (status, events.first(), events.len()),
        (StatusCode::OK, Some(&&json!("created")), 4),
        "{history}"
    );
    assert_eq!(
        done["result"],
        "Processed \"Process user data\": 3 words, 15 characters"
    );
    assert_eq!(done["created_at"], created["created_at"]);
    let at_location: Value = reqwest::get(url)
        .await
        .expect("a response")
        .json()
        .await
        .expect("a task");
    assert_eq!(at_location, done);

    let (status, changed) = call(Method::PATCH, &path, Some(json!({"description": null}))).await;
    assert_eq!((status, &changed["description"]), (StatusCode::OK, &Value::Null));
    let (status, accepted) = call(Method::POST, &format!("{path}/process"), None).await;
    assert_eq!(status, 202);
    assert_eq!(
        accepted,
        json!({"message": format!("Task {id} queued for processing"), "task_id": id})
    );
    assert_eq!(
        completed(id).await["result"],
        "Processed \"Process user data\": 0 words, 0 characters"
    );

    let (status, deleted) = call(Method::DELETE, &path, None).await;
    assert_eq!(status, 200);
    assert_eq!(
        deleted,
        json!({"message": format!("Task {id} deleted successfully"), "task_id": id})
    );
    assert_eq!(get(&path).await.0, 404);
}

/// By API Gateway.
#[tokio::test]
async fn compressed_body_is_decompressed() {
    let deflated = b"\xabV*\xc9,\xc9IU\xb2Rr\xce\xcf-(J-.NMQ\xaa\x05\x00";
    let gzip = [
        &b"\x1f\x8b\x08\0\0\0\0\0\x02\x03"[..],
        deflated,
        b"\x86\xe5\t\xf7\x16\0\0\0",
    ];
    let deflate = [&b"x\x9c"[..], deflated, b"Y\xb5\x07\xf2"];
    for (coding, body, status) in [
        ("gzip", gzip.concat(), 201),
        ("deflate", deflate.concat(), 201),
        ("br", gzip.concat(), 415),
        ("gzip", b"not compressed".to_vec(), 415),
    ] {
        let request = reqwest::Client::new().post(format!("{}/tasks", env("API_URL")));
        let request = request.header("content-type", "application/json");
        let response = request.header("content-encoding", coding).body(body).send().await;
        let response = response.expect("the stack responds");
        assert_eq!(response.status(), status, "{coding}");
        let document: Value = response.json().await.expect("a JSON body");
        if status == 201 {
            assert_eq!(document["title"], "Compressed", "{coding}");
        }
    }
}

#[tokio::test]
async fn every_route_is_deployed_and_follows_contract() {
    let (status, root) = get("/").await;
    assert_eq!((status, &root["version"]), (StatusCode::OK, &json!("1.0.0")));
    let (status, health) = get("/health").await;
    assert_eq!((status, &health["status"]), (StatusCode::OK, &json!("healthy")));
    assert_eq!(get("/ready").await, (StatusCode::OK, json!({"status": "ready"})));
    let (status, page) = get("/tasks?skip=0&limit=1").await;
    assert_eq!((status, page.is_array()), (StatusCode::OK, true));
    assert_eq!(get("/tasks?skip=10000").await, (StatusCode::OK, json!([])));

    let (status, system) = get("/admin/status").await;
    assert_eq!((status, &system["problems"]), (StatusCode::OK, &json!([])));
    let dashboard = reqwest::get(format!("{}/admin/dashboard", env("API_URL")))
        .await
        .expect("a response");
    assert_eq!(dashboard.status(), 200);
    assert_eq!(dashboard.headers()["content-type"], "text/html; charset=utf-8");

    let title = |length: usize| Some(json!({"title": "x".repeat(length)}));
    for (method, path, body, status) in [
        (Method::GET, "/tasks/0", None, 422),
        (Method::GET, "/tasks/-1", None, 422),
        (Method::GET, "/tasks/9223372036854775808", None, 422),
        (Method::GET, "/tasks/abc", None, 422),
        (Method::GET, "/tasks/%00", None, 422),
        (Method::GET, "/tasks/9223372036854775807", None, 404),
        (Method::GET, "/tasks?limit=101", None, 422),
        (Method::GET, "/tasks?skip=-1", None, 422),
        (Method::GET, "/tasks?skip=%00", None, 422),
        (Method::GET, "/tasks?skip=1500000", None, 422),
        (Method::POST, "/tasks", None, 400),
        (Method::POST, "/tasks", Some(json!([])), 422),
        (Method::POST, "/tasks", Some(json!({"title": " "})), 422),
        (Method::POST, "/tasks", Some(json!({"title": "a\0b"})), 422),
        (Method::POST, "/tasks", title(256), 422),
        (Method::POST, "/tasks", title(1 << 20), 413),
        (
            Method::PUT,
            "/tasks/9223372036854775807",
            Some(json!({"title": "t"})),
            404,
        ),
        (Method::PUT, "/tasks/1", Some(json!({"status": "paused"})), 422),
        (Method::DELETE, "/tasks/9223372036854775807", None, 404),
        (Method::POST, "/tasks/9223372036854775807/process", None, 404),
        (Method::GET, "/admin/tasks/9223372036854775807", None, 404),
        (Method::GET, "/tasks?after=tampered", None, 422),
        (Method::GET, "/tasks?status=done&sort=title", None, 422),
        (Method::GET, "/admin/redrive", None, 405),
        (Method::DELETE, "/tasks", None, 405),
        (Method::POST, "/", None, 405),
        (Method::GET, "/tasks/1/process", None, 405),
        (Method::GET, "/nope", None, 404),
        (Method::PATCH, "/nope/nope", None, 404),
    ] {
        let (actual, problem) = call(method.clone(), path, body).await;
        assert_eq!(actual, status, "{method} {path}: {problem}");
        assert_eq!(
            (&problem["status"], &problem["type"]),
            (&json!(status), &json!("about:blank"))
        );
    }
}

#[tokio::test]
async fn poison_message_is_dead_lettered_without_its_batch() {
    let sqs = sqs();
    let poison = format!("poison {}", std::process::id());
    let sent = sqs
        .send_message()
        .queue_url(env("QUEUE_URL"))
        .message_body(&poison)
        .send()
        .await;
    sent.expect("sent");
    let ids = [create("neighbor").await, create("neighbor").await];
    for id in ids {
        completed(id).await;
    }
    let body = eventually(150, "the poison message is in the dead-letter queue", async || {
        let request = sqs
            .receive_message()
            .queue_url(env("DEAD_LETTER_QUEUE_URL"))
            .max_number_of_messages(10);
        let received = request.send().await.expect("the dead-letter queue can be read");
        let mut bodies = received.messages().iter().filter_map(|message| message.body());
        bodies.find(|body| *body == poison).map(str::to_owned)
    })
    .await;
    assert_eq!(body, poison, "the body is unchanged");

    let pool = PgPool::connect(&env("DATABASE_URL"))
        .await
        .expect("the stack's database");
    for id in ids {
        // One claim each: each claim increments the fencing token.
        assert_eq!(crate::support::row(&pool, id).await["fencing_token"], 1);
    }
    eventually(60, "no message is in flight", async || {
        let request = sqs.get_queue_attributes().queue_url(env("QUEUE_URL"));
        let in_flight = QueueAttributeName::ApproximateNumberOfMessagesNotVisible;
        let response = request.attribute_names(in_flight.clone()).send().await;
        let attributes = response.expect("attributes").attributes.unwrap_or_default();
        (attributes[&in_flight] == "0").then_some(())
    })
    .await;
}

#[tokio::test]
async fn reconciler_enqueues_unsent_task() {
    let pool = PgPool::connect(&env("DATABASE_URL"))
        .await
        .expect("the stack's database");
    let insert = "insert into tasks (title, updated_at) values ('never sent', now() - interval '1 hour') returning id";
    let id: i64 = sqlx::query_scalar(insert).fetch_one(&pool).await.expect("inserted");
    // The reconciler runs once a minute.
    eventually(150, "the task is completed", async || {
        let (_, task) = get(&format!("/tasks/{id}")).await;
        (task["status"] == "completed").then_some(())
    })
    .await;
}

#[tokio::test]
async fn redriven_message_reruns_failed_task() {
    let pool = PgPool::connect(&env("DATABASE_URL"))
        .await
        .expect("the stack's database");
    let insert = "insert into tasks (title, status, result, attempts, enqueued_at, settled_at)
                  values ('failed', 'failed', 'it broke', 5, now(), now()) returning id";
    let id: i64 = sqlx::query_scalar(insert).fetch_one(&pool).await.expect("inserted");
    let sent = sqs()
        .send_message()
        .queue_url(env("DEAD_LETTER_QUEUE_URL"))
        .message_body(json!({"task_id": id}).to_string())
        .send()
        .await;
    sent.expect("sent");
    let letters = DeadLetterQueue::new(client_config(), env("DEAD_LETTER_QUEUE_URL"), env("QUEUE_URL"));
    // Repeatedly: another test that receives from the queue hides its messages for a while.
    let task = eventually(180, "the message is redriven and its task completed", async || {
        letters.redrive(|_| ()).await.expect("redriven");
        let (status, task) = get(&format!("/tasks/{id}")).await;
        assert_eq!(status, 200, "{task}");
        (task["status"] == "completed").then_some(task)
    })
    .await;
    assert_eq!((&task["attempts"], &task["title"]), (&json!(1), &json!("failed")));
}

#[tokio::test]
async fn page_on_localhost_may_call_api() {
    let origin = "http://localhost:5173";
    for (method, path) in [
        (Method::OPTIONS, "/tasks"),
        (Method::OPTIONS, "/tasks/1"),
        (Method::GET, "/tasks?limit=1"),
    ] {
        let request = reqwest::Client::new().request(method.clone(), format!("{}{path}", env("API_URL")));
        let request = request
            .header("origin", origin)
            .header("access-control-request-method", "PUT");
        let response = request.send().await.expect("a response");
        assert_eq!(response.status(), 200, "{method} {path}");
        assert_eq!(
            response.headers()["access-control-allow-origin"],
            origin,
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn burst_of_requests_leaves_postgres_with_connections() {
    let id = create("burst").await;
    let path = format!("/tasks/{id}/process");
    let responses = futures::future::join_all((0..500).map(|_| call(Method::POST, &path, None))).await;
    for (status, body) in responses {
        // Queued, being processed, or throttled, as by AWS beyond its limits.
        assert!([202, 409, 429].contains(&status.as_u16()), "{status} {body}");
    }
    let pool = PgPool::connect(&env("DATABASE_URL"))
        .await
        .expect("a connection is free");
    let used: i64 = sqlx::query_scalar("select count(*) from pg_stat_activity where backend_type = 'client backend'")
        .fetch_one(&pool)
        .await
        .expect("Postgres's sessions");
    assert!(used <= 150, "{used} of 200 connections are used");
    completed(id).await;
}
