//! `POST /tasks`

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{
    Answer, Call, Gateway, TestQueue, count, database, database_that_is_down, queue_nobody_serves, row,
};

/// Creates with a queue that works, and asserts that nothing was stored or sent.
async fn refused(pool: &PgPool, call: Call) -> Answer {
    let (database, queue) = (database(pool), TestQueue::create().await);
    let sender = queue.sender().await;
    let answer = call
        .send(|request| create_task::handle(&database, &sender, request))
        .await;
    assert_eq!(count(pool).await, 0, "a refused task was stored: {answer:?}");
    assert_eq!(queue.bodies().await, [""; 0], "a message was sent for a refused task");
    answer
}

fn post(body: &str) -> Call {
    Call::new("POST", "/tasks")
        .header("content-type", "application/json")
        .body(body)
}

#[sqlx::test(migrator = "shared::store::MIGRATIONS")]
async fn a_task_is_stored_enqueued_and_answered(pool: PgPool) {
    for gateway in [Gateway::Rest, Gateway::Http] {
        let (database, queue) = (database(&pool), TestQueue::create().await);
        let sender = queue.sender().await;
        let call = Call::new("POST", "/tasks").json(&json!({"title": " Ship it 🚀", "description": "a\nb"}));
        let answer = call
            .send_via(gateway, |request| create_task::handle(&database, &sender, request))
            .await;

        let task = answer.json();
        let id = task["id"].as_i64().expect("an id");
        let stored = row(&pool, id).await;
        assert_eq!(answer.status, 201);
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.header("location"), format!("tasks/{id}"));
        assert_eq!(
            task,
            json!({
                "id": id,
                "title": " Ship it 🚀",
                "description": "a\nb",
                "status": "pending",
                "result": null,
                "created_at": task["created_at"],
                "updated_at": task["created_at"],
            })
        );
        assert!(
            task["created_at"].as_str().is_some_and(|time| time.ends_with('Z')),
            "{task}"
        );
        assert_eq!(stored["title"], " Ship it 🚀");
        assert!(stored["enqueued_at"].is_string(), "{stored}");
        assert_eq!(queue.bodies().await, [json!({"task_id": id}).to_string()]);
    }
}

#[sqlx::test(migrator = "shared::store::MIGRATIONS")]
async fn the_description_is_optional(pool: PgPool) {
    let (database, queue) = (database(&pool), TestQueue::create().await.sender().await);
    for body in [json!({"title": "t"}), json!({"title": "t", "description": null})] {
        let call = Call::new("POST", "/tasks").json(&body);
        let answer = call
            .send(|request| create_task::handle(&database, &queue, request))
            .await;
        assert_eq!(
            (answer.status, &answer.json()["description"]),
            (201, &Value::Null),
            "{body}"
        );
    }
}

#[sqlx::test(migrator = "shared::store::MIGRATIONS")]
async fn json_is_accepted_under_each_of_its_names(pool: PgPool) {
    let (database, queue) = (database(&pool), TestQueue::create().await.sender().await);
    let call = Call::new("POST", "/tasks").body(r#"{"title":"t"}"#);
    let typed = [
        "application/json; charset=utf-8",
        "APPLICATION/JSON",
        "application/vnd.task+json",
    ];
    // What `curl -d` says of every body.
    let typed = typed.into_iter().chain(["application/x-www-form-urlencoded"]);
    for call in typed
        .map(|name| call.clone().header("Content-Type", name))
        .chain([call.clone()])
    {
        let answer = call
            .send(|request| create_task::handle(&database, &queue, request))
            .await;
        assert_eq!(answer.status, 201, "{answer:?}");
    }
}

#[sqlx::test(migrator = "shared::store::MIGRATIONS")]
async fn a_base64_body_is_decoded(pool: PgPool) {
    let (database, queue) = (database(&pool), TestQueue::create().await.sender().await);
    for gateway in [Gateway::Rest, Gateway::Http] {
        // {"title":"t"}
        let call = post("eyJ0aXRsZSI6InQifQ==").base64();
        let answer = call
            .send_via(gateway, |request| create_task::handle(&database, &queue, request))
            .await;
        assert_eq!((answer.status, &answer.json()["title"]), (201, &json!("t")));
    }
}

#[sqlx::test(migrator = "shared::store::MIGRATIONS")]
async fn what_is_not_json_is_400(pool: PgPool) {
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
        refused(&pool, post(body)).await.assert_problem(400, "Bad Request");
    }
    refused(&pool, Call::new("POST", "/tasks"))
        .await
        .assert_problem(400, "Bad Request");
    refused(&pool, post(&"[".repeat(100_000)))
        .await
        .assert_problem(400, "Bad Request");
    // Not UTF-8: 0xff
    refused(&pool, post("/w==").base64())
        .await
        .assert_problem(400, "Bad Request");
}

#[sqlx::test(migrator = "shared::store::MIGRATIONS")]
async fn a_body_that_claims_to_be_base64_and_is_not_is_400(pool: PgPool) {
    for body in ["not base64!", r#"{"title":"t"}"#, "eyJ0aXRsZSI6InQifQ"] {
        refused(&pool, post(body).base64())
            .await
            .assert_problem(400, "Bad Request");
    }
}

#[sqlx::test(migrator = "shared::store::MIGRATIONS")]
async fn what_is_json_but_not_a_task_is_422_with_every_mistake(pool: PgPool) {
    let cases: [(Value, &[&str]); 16] = [
        (json!(null), &["#"]),
        (json!([]), &["#"]),
        (json!(7), &["#"]),
        (json!({}), &["#/title"]),
        (json!({"title": null}), &["#/title"]),
        (json!({"title": 7}), &["#/title"]),
        (json!({"title": {"a": 1}}), &["#/title"]),
        (json!({"title": ""}), &["#/title"]),
        (json!({"title": " \t\n"}), &["#/title"]),
        (json!({"title": "a\0b"}), &["#/title"]),
        (json!({"title": "é".repeat(256)}), &["#/title"]),
        (json!({"title": "t", "description": 7}), &["#/description"]),
        (json!({"title": "t", "description": "\0"}), &["#/description"]),
        (
            json!({"title": "t", "description": "x".repeat(10_001)}),
            &["#/description"],
        ),
        (json!({"title": "t", "status": "pending"}), &["#/status"]),
        (
            json!({"title": "", "description": 1, "a/b~c": 1, "z": 2}),
            &["#/title", "#/description", "#/a~1b~0c", "#/z"],
        ),
    ];
    for (body, pointers) in cases {
        let answer = refused(&pool, post(&body.to_string())).await;
        answer.assert_problem(422, "Unprocessable Entity");
        let mut found = answer.pointers();
        found.sort();
        let mut expected = pointers.to_vec();
        expected.sort();
        assert_eq!(found, expected, "{body}: {}", answer.json());
    }
}

#[sqlx::test(migrator = "shared::store::MIGRATIONS")]
async fn a_body_larger_than_anything_valid_is_413(pool: PgPool) {
    let call = post(&json!({"title": "x".repeat(1024 * 1024)}).to_string());
    refused(&pool, call).await.assert_problem(413, "Payload Too Large");
}

#[sqlx::test(migrator = "shared::store::MIGRATIONS")]
async fn the_largest_valid_task_is_accepted(pool: PgPool) {
    let (database, queue) = (database(&pool), TestQueue::create().await.sender().await);
    let escaped = |characters: usize| "\\ud83d\\ude80".repeat(characters);
    let call = post(&format!(
        r#"{{"title":"{}","description":"{}"}}"#,
        escaped(255),
        escaped(10_000)
    ));
    let answer = call
        .send(|request| create_task::handle(&database, &queue, request))
        .await;
    assert_eq!(answer.status, 201, "{answer:?}");
}

#[sqlx::test(migrator = "shared::store::MIGRATIONS")]
async fn another_media_type_is_415(pool: PgPool) {
    for media_type in [
        "text/plain",
        "application/xml",
        "multipart/form-data",
        "text/json+x",
        "",
    ] {
        let call = Call::new("POST", "/tasks")
            .header("content-type", media_type)
            .body(r#"{"title":"t"}"#);
        refused(&pool, call).await.assert_problem(415, "Unsupported Media Type");
    }
}

#[sqlx::test(migrator = "shared::store::MIGRATIONS")]
async fn without_sqs_the_task_is_stored_and_marked_as_not_enqueued(pool: PgPool) {
    for accepts in [false, true] {
        let (database, queue) = (database(&pool), queue_nobody_serves(accepts).await);
        let started = Instant::now();
        let call = Call::new("POST", "/tasks").json(&json!({"title": "t"}));
        let answer = call
            .send(|request| create_task::handle(&database, &queue, request))
            .await;
        assert_eq!(answer.status, 201);
        assert!(
            started.elapsed() < Duration::from_secs(2),
            "the client waited {:?}",
            started.elapsed()
        );
        let stored = row(&pool, answer.json()["id"].as_i64().expect("an id")).await;
        assert_eq!(
            (&stored["status"], &stored["enqueued_at"]),
            (&json!("pending"), &Value::Null)
        );
    }
}

#[tokio::test]
async fn without_the_database_nothing_is_sent_and_the_client_may_retry() {
    let queue = TestQueue::create().await;
    let (database, sender) = (database_that_is_down(), queue.sender().await);
    let call = Call::new("POST", "/tasks").json(&json!({"title": "t"}));
    let answer = call
        .send(|request| create_task::handle(&database, &sender, request))
        .await;
    answer.assert_problem(503, "Service Unavailable");
    assert_eq!(answer.header("retry-after"), "2");
    assert_eq!(queue.bodies().await, [""; 0]);
}
