//! `POST /tasks`

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shared::{domain::Task, store::tasks::MarkEnqueued};
use sqlx::PgPool;

use crate::support::{
    App, Gateway, Proxy, Request, Response, client_config, count, database, execute, hanging_sqs, in_seconds,
    refusing_sqs, row, scripted_sqs,
};

/// Sends the request and asserts that no task was stored and no message was sent.
async fn refused(app: &App, pool: &PgPool, request: Request) -> Response {
    let response = request.await;
    assert_eq!(count(pool).await, 0, "a refused task was stored: {response:?}");
    assert_eq!(app.messages().await, [""; 0], "a message was sent for a refused task");
    response
}

fn post(app: &App, body: &str) -> Request {
    let request = app.request("POST", "/tasks");
    request.header("content-type", "application/json").body(body)
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn task_is_stored_and_enqueued(pool: PgPool) {
    for gateway in [Gateway::Rest, Gateway::Http] {
        let app = App::new(&pool);
        let response = app
            .post("/tasks", json!({"title": " Ship it 🚀", "description": "a\nb"}))
            .via(gateway)
            .await;

        let task = response.json();
        let id = task["id"].as_i64().expect("an id");
        let stored = row(&pool, id).await;
        assert_eq!(response.status(), 201);
        assert_eq!(response.header("content-type"), "application/json");
        assert_eq!(response.header("location"), format!("tasks/{id}"));
        assert_eq!(response.header("etag"), "\"1\"");
        assert_eq!(
            (&task["title"], &task["description"], &task["status"]),
            (&json!(" Ship it 🚀"), &json!("a\nb"), &json!("pending"))
        );
        assert_eq!(
            (&task["result"], &task["attempts"], &task["updated_at"]),
            (&Value::Null, &json!(0), &task["created_at"])
        );
        // Whose test lists all members.
        assert_eq!(task, app.get(format!("/tasks/{id}")).await.json());
        assert_eq!(stored["title"], " Ship it 🚀");
        assert!(stored["enqueued_at"].is_string(), "{stored}");
        assert_eq!(app.messages().await, [json!({"task_id": id}).to_string()]);
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn description_is_optional(pool: PgPool) {
    let app = App::new(&pool);
    for body in [json!({"title": "t"}), json!({"title": "t", "description": null})] {
        let response = app.request("POST", "/tasks").json(&body).await;
        assert_eq!(
            (response.status(), &response.json()["description"]),
            (201, &Value::Null),
            "{body}"
        );
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn every_json_media_type_is_accepted(pool: PgPool) {
    let app = App::new(&pool);
    let call = app.request("POST", "/tasks").body(r#"{"title":"t"}"#);
    let typed = [
        "application/json; charset=utf-8",
        "APPLICATION/JSON",
        "application/vnd.task+json",
        "application/json;charset=UTF8",
        "application/json ; profile=x; Charset = \"Utf-8\"",
    ];
    // The type that `curl -d` sends by default.
    let typed = typed.into_iter().chain(["application/x-www-form-urlencoded"]);
    for call in typed
        .map(|name| call.clone().header("Content-Type", name))
        .chain([call.clone()])
    {
        let response = call.await;
        assert_eq!(response.status(), 201, "{response:?}");
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn base64_body_is_decoded(pool: PgPool) {
    let app = App::new(&pool);
    for gateway in [Gateway::Rest, Gateway::Http] {
        // {"title":"t"}
        let response = post(&app, "eyJ0aXRsZSI6InQifQ==").base64().via(gateway).await;
        assert_eq!((response.status(), &response.json()["title"]), (201, &json!("t")));
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn malformed_json_is_400(pool: PgPool) {
    let app = App::new(&pool);
    let bodies = [
        "",
        " ",
        "title",
        "{",
        r#"{"title":NaN}"#,
        r#"{"title":"\ud800"}"#,
        r#"{"title":"a"} x"#,
        "{'title':'a'}",
    ];
    for body in bodies {
        refused(&app, &pool, post(&app, body))
            .await
            .assert_problem(400, "Bad Request");
    }
    refused(&app, &pool, app.request("POST", "/tasks"))
        .await
        .assert_problem(400, "Bad Request");
    refused(&app, &pool, post(&app, &"[".repeat(100_000)))
        .await
        .assert_problem(400, "Bad Request");
    // Not UTF-8: 0xff
    refused(&app, &pool, post(&app, "/w==").base64())
        .await
        .assert_problem(400, "Bad Request");
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn malformed_base64_is_400(pool: PgPool) {
    let app = App::new(&pool);
    for body in ["not base64!", r#"{"title":"t"}"#, "eyJ0aXRsZSI6InQifQ"] {
        refused(&app, &pool, post(&app, body).base64())
            .await
            .assert_problem(400, "Bad Request");
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn invalid_task_is_422_with_every_error(pool: PgPool) {
    let app = App::new(&pool);
    let cases: [(Value, &[&str]); 20] = [
        (json!(null), &["#"]),
        (json!([]), &["#"]),
        (json!(7), &["#"]),
        (json!({}), &["#/title"]),
        (json!({"title": null}), &["#/title"]),
        (json!({"title": 7}), &["#/title"]),
        (json!({"title": {"a": 1}}), &["#/title"]),
        (json!({"title": ""}), &["#/title"]),
        (json!({"title": " \t\n"}), &["#/title"]),
        (json!({"title": "\u{200b}\u{2800}\u{3164}\u{e0020}"}), &["#/title"]),
        (json!({"title": "t", "ö %": 1}), &["#/%C3%B6%20%25"]),
        (json!({"title": "a\0b"}), &["#/title"]),
        (json!({"title": "é".repeat(256)}), &["#/title"]),
        (json!({"title": "t", "description": 7}), &["#/description"]),
        (json!({"title": "t", "description": "\0"}), &["#/description"]),
        (
            json!({"title": "t", "description": "x".repeat(10_001)}),
            &["#/description"],
        ),
        (json!({"title": "t", "status": "pending"}), &["#/status"]),
        (json!({"title": "t", "run_at": "tomorrow"}), &["#/run_at"]),
        (json!({"title": "t", "run_at": in_seconds(367 * 86_400)}), &["#/run_at"]),
        (
            json!({"title": "", "description": 1, "a/b~c": 1, "z": 2}),
            &["#/title", "#/description", "#/a~1b~0c", "#/z"],
        ),
    ];
    for (body, pointers) in cases {
        let response = refused(&app, &pool, post(&app, &body.to_string())).await;
        response.assert_problem(422, "Unprocessable Entity");
        let mut found = response.pointers();
        found.sort();
        let mut expected = pointers.to_vec();
        expected.sort();
        assert_eq!(found, expected, "{body}: {}", response.json());
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn oversized_body_is_413(pool: PgPool) {
    let app = App::new(&pool);
    let call = post(&app, &json!({"title": "x".repeat(1024 * 1024)}).to_string());
    refused(&app, &pool, call)
        .await
        .assert_problem(413, "Payload Too Large");
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn largest_valid_task_is_accepted(pool: PgPool) {
    let app = App::new(&pool);
    let escaped = |characters: usize| "\\ud83d\\ude80".repeat(characters);
    let response = post(
        &app,
        &format!(r#"{{"title":"{}","description":"{}"}}"#, escaped(255), escaped(10_000)),
    )
    .await;
    assert_eq!(response.status(), 201, "{response:?}");
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn unsupported_media_type_is_415(pool: PgPool) {
    let app = App::new(&pool);
    for media_type in [
        "text/plain",
        "application/xml",
        "multipart/form-data",
        "text/json+x",
        "",
        "application/json; charset=iso-8859-1",
        "application/json;charset=\"UTF-16\"",
        "application/json; charset=utf-8; charset=latin1",
        "application/json; charset=",
    ] {
        let call = app
            .request("POST", "/tasks")
            .header("content-type", media_type)
            .body(r#"{"title":"t"}"#);
        refused(&app, &pool, call)
            .await
            .assert_problem(415, "Unsupported Media Type");
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn every_content_type_line_must_be_json(pool: PgPool) {
    let app = App::new(&pool);
    for lines in [["application/json", "text/plain"], ["text/plain", "application/json"]] {
        let call = post(&app, r#"{"title":"t"}"#).header_lines("content-type", &lines);
        refused(&app, &pool, call)
            .await
            .assert_problem(415, "Unsupported Media Type");
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn repeated_member_is_422_and_reported_once(pool: PgPool) {
    let app = App::new(&pool);
    for (body, pointers) in [
        (r#"{"title":"a","title":"b"}"#, &["#/title"][..]),
        (r#"{"title":"a","title":"a","title":"a"}"#, &["#/title"]),
        (r#"{"title":"a","t\u0069tle":"b"}"#, &["#/title"]),
        (r#"{"title":"","title":""}"#, &["#/title"]),
        (r#"{"title":"a","x/y":1,"x/y":2}"#, &["#/x~1y"]),
        (
            r#"{"description":1,"title":"a","z":1,"title":"b"}"#,
            &["#/title", "#/description", "#/z"],
        ),
    ] {
        let response = refused(&app, &pool, post(&app, body)).await;
        response.assert_problem(422, "Unprocessable Entity");
        assert_eq!(response.pointers(), pointers, "{body}");
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn byte_order_mark_is_ignored(pool: PgPool) {
    let app = App::new(&pool);
    let response = post(&app, "\u{feff}{\"title\":\"\u{feff}t\"}").await;
    assert_eq!(
        (response.status(), &response.json()["title"]),
        (201, &json!("\u{feff}t"))
    );
    let twice = post(&app, "\u{feff}\u{feff}{}").await;
    twice.assert_problem(400, "Bad Request");
}

/// API Gateway decompresses bodies, and may keep the header.
#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn compressed_body_is_415(pool: PgPool) {
    let app = App::new(&pool);
    // The first bytes of a gzip file.
    let compressed = post(&app, "H4sIAAAAAAAA").base64();
    for coding in ["gzip", "deflate", "identity, gzip", "br"] {
        let call = compressed.clone().header("content-encoding", coding);
        refused(&app, &pool, call)
            .await
            .assert_problem(415, "Unsupported Media Type");
    }
    refused(&app, &pool, compressed.header("content-encoding", "identity"))
        .await
        .assert_problem(400, "Bad Request");
    let decompressed = post(&app, r#"{"title":"t"}"#).header("content-encoding", "gzip");
    assert_eq!(decompressed.await.status(), 201);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn unreachable_sqs_leaves_task_unsent(pool: PgPool) {
    for sqs in [refusing_sqs().await, hanging_sqs().await] {
        let app = App::new(&pool).with_sqs(sqs);
        app.queue().await;
        let started = Instant::now();
        let response = app.post("/tasks", json!({"title": "t"})).await;
        assert_eq!(response.status(), 201);
        assert!(
            started.elapsed() < Duration::from_secs(2),
            "the client waited {:?}",
            started.elapsed()
        );
        let stored = row(&pool, response.id()).await;
        assert_eq!(
            (&stored["status"], &stored["enqueued_at"]),
            (&json!("pending"), &Value::Null)
        );
    }
}

#[tokio::test]
async fn unreachable_database_is_503_without_message() {
    let app = App::without_database();
    let response = app.post("/tasks", json!({"title": "t"})).await;
    response.assert_problem(503, "Service Unavailable");
    assert_eq!(response.header("retry-after"), "2");
    assert_eq!(app.messages().await, [""; 0]);
}

/// Creates a task under an idempotency key.
async fn create_once(app: &App, key: &str, body: &Value) -> Response {
    app.post("/tasks", body.clone()).header("idempotency-key", key).await
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn repeated_request_replays_stored_response(pool: PgPool) {
    let app = App::new(&pool);
    let body = json!({"title": "t", "description": "d"});
    let first = create_once(&app, "key-1", &body).await;
    assert_eq!((first.status(), first.header("idempotent-replayed")), (201, ""));
    let id = first.id();
    assert_eq!(first.json(), app.get(format!("/tasks/{id}")).await.json());
    assert_eq!(app.messages().await, [json!({"task_id": id}).to_string()]);

    // The first response is replayed, even after the task has changed or was deleted.
    for change in [
        "select",
        "update tasks set title = 'changed', version = 9",
        "delete from tasks",
    ] {
        execute(&pool, change).await;
        for key in ["key-1", "\"key-1\""] {
            let again = create_once(&app, key, &body).await;
            assert_eq!((again.status(), again.header("idempotent-replayed")), (201, "true"));
            assert_eq!((again.text(), again.header("etag")), (first.text(), "\"1\""));
            assert_eq!(again.header("location"), first.header("location"));
        }
    }
    assert_eq!((count(&pool).await, app.messages().await.len()), (0, 0));

    let other = create_once(&app, "key-2", &body).await;
    assert_ne!(other.json()["id"], id, "another key replayed the first response");
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn key_with_another_body_is_422(pool: PgPool) {
    let app = App::new(&pool);
    let body = json!({"title": "t"});
    create_once(&app, "key", &body).await;
    for other in [json!({"title": "u"}), json!({"title": "t", "description": ""})] {
        let response = create_once(&app, "key", &other).await;
        response.assert_problem(422, "Unprocessable Entity");
        assert_eq!(response.pointers(), ["#/header/idempotency-key"]);
    }
    // Null and a missing member are the same request.
    let same = json!({"title": "t", "description": null});
    let response = create_once(&app, "key", &same).await;
    assert_eq!(response.header("idempotent-replayed"), "true");
    assert_eq!((count(&pool).await, app.messages().await.len()), (1, 1));
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn malformed_key_is_422(pool: PgPool) {
    let app = App::new(&pool);
    for key in ["", "\"\"", "a b", "k\u{e9}", "k".repeat(256).as_str()] {
        let response = refused(
            &app,
            &pool,
            post(&app, r#"{"title":"t"}"#).header("idempotency-key", key),
        )
        .await;
        response.assert_problem(422, "Unprocessable Entity");
        assert_eq!(response.pointers(), ["#/header/idempotency-key"], "{key:?}");
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn repeated_key_lines_must_agree(pool: PgPool) {
    let app = App::new(&pool);
    let body = r#"{"title":"t"}"#;
    for lines in [
        &["a", "b"][..],
        &["a", "a", "b"],
        &["a", "\"b\""],
        &["a", ""],
        &["", "a"],
    ] {
        let call = post(&app, body).header_lines("Idempotency-Key", lines);
        let response = refused(&app, &pool, call).await;
        response.assert_problem(422, "Unprocessable Entity");
        assert_eq!(response.pointers(), ["#/header/idempotency-key"], "{lines:?}");
    }
    let same = post(&app, body).header_lines("Idempotency-Key", &["a", "\"a\""]).await;
    assert_eq!((same.status(), same.header("idempotent-replayed")), (201, ""));
    let again = post(&app, body).header("Idempotency-Key", "a").await;
    assert_eq!((again.id(), again.header("idempotent-replayed")), (same.id(), "true"));
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn refused_request_leaves_key_unused(pool: PgPool) {
    let app = App::new(&pool);
    let refused = create_once(&app, "key", &json!({"title": ""})).await;
    assert_eq!(refused.status(), 422);
    let response = create_once(&app, "key", &json!({"title": "t"})).await;
    assert_eq!((response.status(), response.header("idempotent-replayed")), (201, ""));
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn expired_key_is_reusable_before_deletion(pool: PgPool) {
    let app = App::new(&pool);
    let body = json!({"title": "t"});
    let first = create_once(&app, "key", &body).await;
    let expires = "select extract(epoch from expires_at - created_at)::bigint from idempotency_keys";
    let seconds: i64 = sqlx::query_scalar(expires).fetch_one(&pool).await.expect("a key");
    assert_eq!(seconds, 60, "the lifetime differs from the setting");
    execute(&pool, "update idempotency_keys set expires_at = now()").await;
    let second = create_once(&app, "key", &json!({"title": "another"})).await;
    assert_eq!((second.status(), second.header("idempotent-replayed")), (201, ""));
    assert_ne!(second.json()["id"], first.json()["id"]);
    let third = create_once(&app, "key", &json!({"title": "another"})).await;
    assert_eq!(third.text(), second.text());
    assert_eq!(count(&pool).await, 2);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn concurrent_requests_with_one_key_create_one_task(pool: PgPool) {
    let app = App::new(&pool);
    let body = json!({"title": "t"});
    for key in ["a", "b", "c"] {
        let requests = (0..8).map(async |_| create_once(&app.another_environment(&pool), key, &body).await);
        let responses = futures::future::join_all(requests).await;
        let created = responses
            .iter()
            .filter(|response| response.header("idempotent-replayed").is_empty());
        assert_eq!(created.count(), 1, "{responses:?}");
        assert!(
            responses
                .iter()
                .all(|response| response.status() == 201 && response.text() == responses[0].text())
        );
    }
    assert_eq!((count(&pool).await, app.messages().await.len()), (3, 3));
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn key_in_progress_is_409_with_retry_after(pool: PgPool) {
    let app = App::new(&pool);
    let mut first = pool.begin().await.expect("a transaction");
    let insert = r#"insert into idempotency_keys (key, fingerprint, task_id, expires_at)
                    values ('key"tester', '', 1, now() + interval '1 min')"#;
    sqlx::query(insert).execute(&mut *first).await.expect("inserted");

    let started = Instant::now();
    let response = create_once(&app, "key", &json!({"title": "t"})).await;
    response.assert_problem(409, "Conflict");
    assert_eq!(response.header("retry-after"), "2");
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert_eq!(count(&pool).await, 0);

    first.rollback().await.expect("the first request failed");
    let response = create_once(&app, "key", &json!({"title": "t"})).await;
    assert_eq!((response.status(), response.header("idempotent-replayed")), (201, ""));
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn idempotency_key_takes_no_round_trip(pool: PgPool) {
    let proxy = Proxy::start(&pool).await;
    let app = App::with_database(proxy.database(&pool));
    let mut used = Vec::new();
    // The first request also connects and prepares its statements.
    for key in ["a", "b", "b"] {
        let before = proxy.round_trips();
        create_once(&app, key, &json!({"title": "t"})).await;
        used.push(proxy.round_trips() - before);
    }
    // One to store the task and one to mark it as enqueued; a replay only reads.
    assert_eq!(used[1..], [2, 1]);
}

/// How many messages SQS has accepted and delays.
async fn delayed(app: &App) -> u64 {
    let depth = app.queue().await.sender().depth().await;
    depth.expect("SQS responds").delayed
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn task_to_run_later_is_scheduled(pool: PgPool) {
    for gateway in [Gateway::Rest, Gateway::Http] {
        // At most 15 minutes ahead, and beyond.
        for (seconds, is_sent) in [(890, true), (910, false), (365 * 86_400, false)] {
            let app = App::new(&pool);
            let run_at = in_seconds(seconds);
            let post = app.post("/tasks", json!({"title": "t", "run_at": run_at})).via(gateway);
            // With a key, another statement stores the task.
            let key = format!("{gateway:?} {seconds}").replace(' ', "-");
            for (nth, post) in [post.clone(), post.header("idempotency-key", &key)]
                .into_iter()
                .enumerate()
            {
                let response = post.await;
                assert_eq!(response.status(), 201, "{}", response.text());
                let created = response.json();
                assert_eq!(
                    (&created["status"], &created["run_at"]),
                    (&json!("scheduled"), &json!(run_at))
                );
                assert_eq!(app.get(format!("/tasks/{}", response.id())).await.json(), created);
                assert_eq!(row(&pool, response.id()).await["enqueued_at"].is_string(), is_sent);
                let history = app.get(format!("/admin/tasks/{}", response.id())).await.json();
                let last = history["timeline"].as_array().and_then(|timeline| timeline.last());
                assert_eq!(last, Some(&json!({"at": run_at, "event": "scheduled"})));
                let sent = if is_sent { nth as u64 + 1 } else { 0 };
                assert_eq!((delayed(&app).await, app.messages().await.len()), (sent, 0));
            }
        }
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn time_that_has_passed_means_now(pool: PgPool) {
    let app = App::new(&pool);
    for run_at in [json!(in_seconds(-1)), json!("1969-07-20T20:17:40+23:59"), Value::Null] {
        let post = app.post("/tasks", json!({"title": "t", "run_at": run_at}));
        let key = format!("key-{}", run_at.as_str().map_or(0, str::len));
        for post in [post.clone(), post.header("idempotency-key", &key)] {
            let created = post.await;
            assert_eq!(
                (&created.json()["status"], &created.json()["run_at"]),
                (&json!("pending"), &Value::Null),
                "{run_at}"
            );
            assert_eq!(app.get(format!("/tasks/{}", created.id())).await.json(), created.json());
            assert_eq!(app.messages().await.len(), 1);
        }
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn message_is_delayed_until_time_has_come(pool: PgPool) {
    let (url, requests) = scripted_sqs(|_, _| json!({"MessageId": "m", "MD5OfMessageBody": ""})).await;
    let app = App::new(&pool).with_sqs(client_config().endpoint_url(url));
    for (run_at, expected) in [
        (Value::Null, None),
        (json!(in_seconds(-5)), None),
        (json!(in_seconds(100)), Some(90..=100)),
    ] {
        let created = app.post("/tasks", json!({"title": "t", "run_at": run_at})).await;
        assert_eq!(created.status(), 201);
        let (action, request) = requests.lock().expect("not poisoned").pop().expect("a request");
        assert_eq!(action, "SendMessage");
        match expected {
            None => assert_eq!(request["DelaySeconds"], Value::Null),
            Some(expected) => {
                let delay = request["DelaySeconds"].as_i64().expect("a delay");
                assert!(expected.contains(&delay), "{delay}");
                // Never early: rounded up, by Postgres's clock.
                let late = "select created_at + $1 * interval '1 s' - run_at < interval '1 s'
                            and created_at + $1 * interval '1 s' >= run_at from tasks where id = $2";
                let late = sqlx::query_scalar::<_, bool>(late)
                    .bind(delay as f64)
                    .bind(created.id());
                assert!(late.fetch_one(&pool).await.expect("times"), "{delay}");
            }
        }
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn schedule_takes_no_round_trip(pool: PgPool) {
    let proxy = Proxy::start(&pool).await;
    let app = App::with_database(proxy.database(&pool));
    let mut used = Vec::new();
    // The first one also connects and prepares the statements.
    for seconds in [60, 60, -60, 3600] {
        let before = proxy.round_trips();
        let created = app
            .post("/tasks", json!({"title": "t", "run_at": in_seconds(seconds)}))
            .await;
        assert_eq!(created.status(), 201);
        used.push(proxy.round_trips() - before);
    }
    assert_eq!(used[1..], [2, 2, 1], "what is not sent is not marked");
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn key_covers_time(pool: PgPool) {
    let app = App::new(&pool);
    let body = json!({"title": "t", "run_at": in_seconds(3600)});
    let first = create_once(&app, "key", &body).await;
    for other in [
        json!({"title": "t"}),
        json!({"title": "t", "run_at": null}),
        json!({"title": "t", "run_at": in_seconds(7200)}),
    ] {
        let response = create_once(&app, "key", &other).await;
        response.assert_problem(422, "Unprocessable Entity");
    }
    // Also when it has run.
    execute(&pool, "update tasks set status = 'pending', run_at = null").await;
    let again = create_once(&app, "key", &body).await;
    assert_eq!(
        (again.header("idempotent-replayed"), again.text()),
        ("true", first.text())
    );
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn key_of_request_without_time_is_as_before(pool: PgPool) {
    let app = App::new(&pool);
    create_once(&app, "without", &json!({"title": "t", "description": "d"})).await;
    let is_same = "select fingerprint = sha256(convert_to('[\"t\", \"d\"]', 'UTF8')) from idempotency_keys";
    let is_same: bool = sqlx::query_scalar(is_same).fetch_one(&pool).await.expect("a key");
    assert!(
        is_same,
        "a request that is retried across the deployment would be refused"
    );
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn task_that_was_rescheduled_is_not_marked(pool: PgPool) {
    let app = App::new(&pool);
    let created = app
        .post("/tasks", json!({"title": "t", "run_at": in_seconds(60)}))
        .await;
    let task: Task = serde_json::from_value(created.json()).expect("a task");
    let patch = json!({"run_at": in_seconds(7200)});
    assert_eq!(app.patch(format!("/tasks/{}", task.id), patch).await.status(), 200);
    // As create-task does when its message is accepted late.
    let (id, run_at) = (task.id, task.run_at);
    database(&pool).run(&MarkEnqueued { id, run_at }).await.expect("run");
    assert_eq!(row(&pool, created.id()).await["enqueued_at"], Value::Null);
}
