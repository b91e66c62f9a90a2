//! `POST /tasks`

use std::time::{Duration, Instant};

use create_task::Settings;
use queue::TaskQueue;
use serde_json::{Value, json};
use shared::store::Database;
use sqlx::PgPool;

use crate::support::{
    Answer, Call, Gateway, NO_METRICS, Proxy, TestQueue, count, database, database_that_is_down, execute,
    queue_nobody_serves, row,
};

const SETTINGS: Settings = Settings {
    idempotency_key_seconds: 60,
};

/// Creates with a queue that works, and asserts that nothing was stored or sent.
async fn refused(pool: &PgPool, call: Call) -> Answer {
    let (database, queue) = (database(pool), TestQueue::create().await);
    let sender = queue.sender();
    let answer = call
        .send(|request| create_task::handle(&database, &sender, &NO_METRICS, &SETTINGS, request))
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

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn a_task_is_stored_enqueued_and_answered(pool: PgPool) {
    for gateway in [Gateway::Rest, Gateway::Http] {
        let (database, queue) = (database(&pool), TestQueue::create().await);
        let sender = queue.sender();
        let call = Call::new("POST", "/tasks").json(&json!({"title": " Ship it 🚀", "description": "a\nb"}));
        let answer = call
            .send_via(gateway, |request| {
                create_task::handle(&database, &sender, &NO_METRICS, &SETTINGS, request)
            })
            .await;

        let task = answer.json();
        let id = task["id"].as_i64().expect("an id");
        let stored = row(&pool, id).await;
        assert_eq!(answer.status, 201);
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.header("location"), format!("tasks/{id}"));
        assert_eq!(answer.header("etag"), "\"1\"");
        assert_eq!(
            task,
            json!({
                "id": id,
                "title": " Ship it 🚀",
                "description": "a\nb",
                "status": "pending",
                "result": null,
                "attempts": 0,
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

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn the_description_is_optional(pool: PgPool) {
    let (database, queue) = (database(&pool), TestQueue::create().await.sender());
    for body in [json!({"title": "t"}), json!({"title": "t", "description": null})] {
        let call = Call::new("POST", "/tasks").json(&body);
        let answer = call
            .send(|request| create_task::handle(&database, &queue, &NO_METRICS, &SETTINGS, request))
            .await;
        assert_eq!(
            (answer.status, &answer.json()["description"]),
            (201, &Value::Null),
            "{body}"
        );
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn json_is_accepted_under_each_of_its_names(pool: PgPool) {
    let (database, queue) = (database(&pool), TestQueue::create().await.sender());
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
            .send(|request| create_task::handle(&database, &queue, &NO_METRICS, &SETTINGS, request))
            .await;
        assert_eq!(answer.status, 201, "{answer:?}");
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn a_base64_body_is_decoded(pool: PgPool) {
    let (database, queue) = (database(&pool), TestQueue::create().await.sender());
    for gateway in [Gateway::Rest, Gateway::Http] {
        // {"title":"t"}
        let call = post("eyJ0aXRsZSI6InQifQ==").base64();
        let answer = call
            .send_via(gateway, |request| {
                create_task::handle(&database, &queue, &NO_METRICS, &SETTINGS, request)
            })
            .await;
        assert_eq!((answer.status, &answer.json()["title"]), (201, &json!("t")));
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
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

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn a_body_that_claims_to_be_base64_and_is_not_is_400(pool: PgPool) {
    for body in ["not base64!", r#"{"title":"t"}"#, "eyJ0aXRsZSI6InQifQ"] {
        refused(&pool, post(body).base64())
            .await
            .assert_problem(400, "Bad Request");
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
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

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn a_body_larger_than_anything_valid_is_413(pool: PgPool) {
    let call = post(&json!({"title": "x".repeat(1024 * 1024)}).to_string());
    refused(&pool, call).await.assert_problem(413, "Payload Too Large");
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn the_largest_valid_task_is_accepted(pool: PgPool) {
    let (database, queue) = (database(&pool), TestQueue::create().await.sender());
    let escaped = |characters: usize| "\\ud83d\\ude80".repeat(characters);
    let call = post(&format!(
        r#"{{"title":"{}","description":"{}"}}"#,
        escaped(255),
        escaped(10_000)
    ));
    let answer = call
        .send(|request| create_task::handle(&database, &queue, &NO_METRICS, &SETTINGS, request))
        .await;
    assert_eq!(answer.status, 201, "{answer:?}");
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
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

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn without_sqs_the_task_is_stored_and_marked_as_not_enqueued(pool: PgPool) {
    for accepts in [false, true] {
        let (database, queue) = (database(&pool), queue_nobody_serves(accepts).await);
        let started = Instant::now();
        let call = Call::new("POST", "/tasks").json(&json!({"title": "t"}));
        let answer = call
            .send(|request| create_task::handle(&database, &queue, &NO_METRICS, &SETTINGS, request))
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
    let (database, sender) = (database_that_is_down(), queue.sender());
    let call = Call::new("POST", "/tasks").json(&json!({"title": "t"}));
    let answer = call
        .send(|request| create_task::handle(&database, &sender, &NO_METRICS, &SETTINGS, request))
        .await;
    answer.assert_problem(503, "Service Unavailable");
    assert_eq!(answer.header("retry-after"), "2");
    assert_eq!(queue.bodies().await, [""; 0]);
}

/// Creates under a key.
async fn create_once(database: &Database, queue: &TaskQueue, key: &str, body: &Value) -> Answer {
    let call = Call::new("POST", "/tasks").header("idempotency-key", key).json(body);
    call.send(|request| create_task::handle(database, queue, &NO_METRICS, &SETTINGS, request))
        .await
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn a_repeated_request_gets_the_stored_response_and_creates_nothing(pool: PgPool) {
    let (database, queue) = (database(&pool), TestQueue::create().await);
    let sender = queue.sender();
    let body = json!({"title": "t", "description": "d"});
    let first = create_once(&database, &sender, "key-1", &body).await;
    assert_eq!((first.status, first.header("idempotent-replayed")), (201, ""));
    let id = first.json()["id"].as_i64().expect("an id");
    assert_eq!(queue.bodies().await, [json!({"task_id": id}).to_string()]);

    // Whatever has become of the task: the response is that of the first time.
    for change in [
        "select",
        "update tasks set title = 'changed', version = 9",
        "delete from tasks",
    ] {
        execute(&pool, change).await;
        for key in ["key-1", "\"key-1\""] {
            let again = create_once(&database, &sender, key, &body).await;
            assert_eq!((again.status, again.header("idempotent-replayed")), (201, "true"));
            assert_eq!((again.text(), again.header("etag")), (first.text(), "\"1\""));
            assert_eq!(again.header("location"), first.header("location"));
        }
    }
    assert_eq!((count(&pool).await, queue.bodies().await.len()), (0, 0));

    let other = create_once(&database, &sender, "key-2", &body).await;
    assert_ne!(other.json()["id"], id, "another key is another request");
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn a_key_with_another_body_is_422_and_creates_nothing(pool: PgPool) {
    let (database, queue) = (database(&pool), TestQueue::create().await);
    let sender = queue.sender();
    let body = json!({"title": "t"});
    create_once(&database, &sender, "key", &body).await;
    for other in [json!({"title": "u"}), json!({"title": "t", "description": ""})] {
        let answer = create_once(&database, &sender, "key", &other).await;
        answer.assert_problem(422, "Unprocessable Entity");
        assert_eq!(answer.pointers(), ["#/header/idempotency-key"]);
    }
    // Null says the same as nothing.
    let same = json!({"title": "t", "description": null});
    let answer = create_once(&database, &sender, "key", &same).await;
    assert_eq!(answer.header("idempotent-replayed"), "true");
    assert_eq!((count(&pool).await, queue.bodies().await.len()), (1, 1));
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn a_key_that_is_none_is_422(pool: PgPool) {
    for key in ["", "\"\"", "a b", "k\u{e9}", "k".repeat(256).as_str()] {
        let answer = refused(&pool, post(r#"{"title":"t"}"#).header("idempotency-key", key)).await;
        answer.assert_problem(422, "Unprocessable Entity");
        assert_eq!(answer.pointers(), ["#/header/idempotency-key"], "{key:?}");
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn a_refused_request_does_not_use_its_key_up(pool: PgPool) {
    let (database, queue) = (database(&pool), TestQueue::create().await.sender());
    let refused = create_once(&database, &queue, "key", &json!({"title": ""})).await;
    assert_eq!(refused.status, 422);
    let answer = create_once(&database, &queue, "key", &json!({"title": "t"})).await;
    assert_eq!((answer.status, answer.header("idempotent-replayed")), (201, ""));
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn an_expired_key_is_new_again_even_before_it_is_deleted(pool: PgPool) {
    let (database, queue) = (database(&pool), TestQueue::create().await.sender());
    let body = json!({"title": "t"});
    let first = create_once(&database, &queue, "key", &body).await;
    let expires = "select extract(epoch from expires_at - created_at)::bigint from idempotency_keys";
    let seconds: i64 = sqlx::query_scalar(expires).fetch_one(&pool).await.expect("a key");
    assert_eq!(seconds, 60, "as the settings say");
    execute(&pool, "update idempotency_keys set expires_at = now()").await;
    let second = create_once(&database, &queue, "key", &json!({"title": "another"})).await;
    assert_eq!((second.status, second.header("idempotent-replayed")), (201, ""));
    assert_ne!(second.json()["id"], first.json()["id"]);
    let third = create_once(&database, &queue, "key", &json!({"title": "another"})).await;
    assert_eq!(third.text(), second.text());
    assert_eq!(count(&pool).await, 2);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn of_many_requests_at_once_with_one_key_one_creates_and_all_answer_the_same(pool: PgPool) {
    let queue = TestQueue::create().await;
    let sender = queue.sender();
    let body = json!({"title": "t"});
    for key in ["a", "b", "c"] {
        let databases: Vec<_> = (0..8).map(|_| database(&pool)).collect();
        let requests = databases
            .iter()
            .map(|database| create_once(database, &sender, key, &body));
        let answers = futures::future::join_all(requests).await;
        let created = answers
            .iter()
            .filter(|answer| answer.header("idempotent-replayed").is_empty());
        assert_eq!(created.count(), 1, "{answers:?}");
        assert!(
            answers
                .iter()
                .all(|answer| answer.status == 201 && answer.text() == answers[0].text())
        );
    }
    assert_eq!((count(&pool).await, queue.bodies().await.len()), (3, 3));
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn while_the_first_request_is_in_progress_the_second_is_409_with_retry_after(pool: PgPool) {
    let (database, queue) = (database(&pool), TestQueue::create().await.sender());
    let mut first = pool.begin().await.expect("a transaction");
    let insert = r#"insert into idempotency_keys (key, fingerprint, task_id, expires_at)
                    values ('key"tester', '', 1, now() + interval '1 min')"#;
    sqlx::query(insert).execute(&mut *first).await.expect("inserted");

    let started = Instant::now();
    let answer = create_once(&database, &queue, "key", &json!({"title": "t"})).await;
    answer.assert_problem(409, "Conflict");
    assert_eq!(answer.header("retry-after"), "2");
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert_eq!(count(&pool).await, 0);

    first.rollback().await.expect("the first request failed");
    let answer = create_once(&database, &queue, "key", &json!({"title": "t"})).await;
    assert_eq!((answer.status, answer.header("idempotent-replayed")), (201, ""));
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn a_key_costs_no_round_trip(pool: PgPool) {
    let (proxy, queue) = (Proxy::start(&pool).await, TestQueue::create().await.sender());
    let database = proxy.database(&pool);
    let mut used = Vec::new();
    // The first one also connects and prepares the statements.
    for key in ["a", "b", "b"] {
        let before = proxy.round_trips();
        create_once(&database, &queue, key, &json!({"title": "t"})).await;
        used.push(proxy.round_trips() - before);
    }
    // Stored and then marked as enqueued; a replay only looks.
    assert_eq!(used[1..], [2, 1]);
}
