//! `GET /tasks/{id}`

use serde_json::json;
use sqlx::PgPool;

use crate::support::{App, Gateway, Proxy, execute, in_seconds, task};

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn response_shows_all_members(pool: PgPool) {
    let app = App::new(&pool);
    let id = task(&pool, "t").await;
    execute(
        &pool,
        "update tasks set description = 'd', status = 'failed', result = 'r', attempts = 3, settled_at = now(),
         run_at = '2026-01-02 03:05:00+00', created_at = '2026-01-02 03:04:05.678901+00', updated_at = '2026-01-02 05:04:06+01'",
    )
    .await;
    for gateway in [Gateway::Rest, Gateway::Http] {
        let response = app.get(format!("/tasks/{id}")).via(gateway).await;
        assert_eq!(
            (response.status(), response.header("content-type")),
            (200, "application/json")
        );
        assert_eq!(
            response.json(),
            json!({
                "id": id,
                "title": "t",
                "description": "d",
                "status": "failed",
                "result": "r",
                "attempts": 3,
                "run_at": "2026-01-02T03:05:00Z",
                "created_at": "2026-01-02T03:04:05.678901Z",
                "updated_at": "2026-01-02T04:04:06Z",
            })
        );
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn members_are_returned_as_clients_set_them(pool: PgPool) {
    let app = App::new(&pool);
    // Each member of `POST` and `PATCH`, with a value for each.
    for (member, first, second) in [
        ("title", json!("a"), json!("b")),
        ("description", json!("a"), json!("b")),
        ("run_at", json!(in_seconds(60)), json!(in_seconds(86_400))),
    ] {
        let mut body = json!({"title": "t"});
        body[member] = first.clone();
        let post = app.post("/tasks", body);
        // With a key, another statement stores the task.
        for post in [post.clone(), post.header("idempotency-key", member)] {
            let created = post.await;
            let path = format!("/tasks/{}", created.id());
            assert_eq!(created.json()[member], first);
            assert_eq!(app.get(&path).await.json(), created.json());
            let changed = app.patch(&path, json!({member: second})).await;
            assert_eq!(changed.json()[member], second);
            assert_eq!(app.get(&path).await.json(), changed.json());
        }
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn id_may_be_percent_encoded_once(pool: PgPool) {
    let app = App::new(&pool);
    let id = task(&pool, "t").await;
    let encode = |text: &str| -> String { text.bytes().map(|byte| format!("%{byte:x}")).collect() };
    let once = encode(&id.to_string());
    for gateway in [Gateway::Rest, Gateway::Http] {
        for (id, status) in [(&once, 200), (&encode(&once), 422)] {
            let response = app.get(format!("/tasks/{id}")).via(gateway).await;
            assert_eq!(response.status(), status, "{gateway:?} {id}");
        }
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn unknown_task_is_404(pool: PgPool) {
    let app = App::new(&pool);
    for id in [1, i64::MAX] {
        let response = app.get(format!("/tasks/{id}")).await;
        response.assert_problem(404, "Not Found");
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn malformed_id_is_422(pool: PgPool) {
    let app = App::new(&pool);
    for id in [
        "0",
        "-1",
        "9223372036854775808",
        "abc",
        "1.0",
        "%00",
        "%ff",
        "1%2F2",
        "%20",
    ] {
        let path = format!("/tasks/{id}");
        let response = app.get(path).routed_to("get-task", "id", id).await;
        response.assert_problem(422, "Unprocessable Entity");
        assert_eq!(response.pointers(), ["#/path/id"], "{id}");
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn warm_request_takes_one_round_trip(pool: PgPool) {
    let proxy = Proxy::start(&pool).await;
    let app = App::with_database(proxy.database(&pool));
    let id = task(&pool, "t").await;
    let get = || app.get(format!("/tasks/{id}"));
    assert_eq!(get().await.status(), 200);
    let cold = proxy.round_trips();
    assert!(cold > 1, "the proxy sees no round trips");
    for warm in 1..=5 {
        assert_eq!(get().await.status(), 200);
        assert_eq!(proxy.round_trips() - cold, warm);
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn etag_may_be_in_any_if_none_match_line(pool: PgPool) {
    let app = App::new(&pool);
    let path = format!("/tasks/{}", task(&pool, "t").await);
    for gateway in [Gateway::Rest, Gateway::Http] {
        for (lines, status) in [
            (["\"1\"", "\"2\""], 304),
            (["\"2\"", "W/\"1\""], 304),
            (["\"2\"", "\"3\""], 200),
        ] {
            let request = app.get(&path).header_lines("If-None-Match", &lines).via(gateway);
            assert_eq!(request.await.status(), status, "{gateway:?} {lines:?}");
        }
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn matching_etag_is_304_until_task_changes(pool: PgPool) {
    let app = App::new(&pool);
    let id = task(&pool, "t").await;
    let get = async |if_none_match: Option<&str>| {
        let call = app.get(format!("/tasks/{id}"));
        let call = if_none_match
            .iter()
            .fold(call, |call, tags| call.header("if-none-match", tags));
        call.await
    };
    let first = get(None).await;
    let etag = first.header("etag").to_owned();
    assert_eq!((first.status(), etag.as_str()), (200, "\"1\""));

    for known in [
        etag.clone(),
        format!("\"x\", {etag}"),
        format!("W/{etag}"),
        "*".to_owned(),
    ] {
        let response = get(Some(&known)).await;
        assert_eq!(
            (response.status(), response.header("etag")),
            (304, etag.as_str()),
            "{known}"
        );
        assert_eq!((response.text(), response.header("content-type")), ("", ""), "{known}");
    }
    assert_eq!(get(Some("\"2\"")).await, first);

    let body = json!({"title": "new"});
    let changed = app.put(format!("/tasks/{id}"), body).await;
    assert_eq!(changed.header("etag"), "\"2\"");
    let response = get(Some(&etag)).await;
    assert_eq!((response.status(), response.header("etag")), (200, "\"2\""));
    assert_eq!(response.json(), changed.json());
}
