//! `GET /tasks/{id}`

use serde_json::json;
use sqlx::PgPool;

use crate::support::{Call, Gateway, Proxy, database, execute, task};

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn a_task_is_answered_as_it_is(pool: PgPool) {
    let database = database(&pool);
    let id = task(&pool, "t").await;
    execute(
        &pool,
        "update tasks set description = 'd', status = 'failed', result = 'r', attempts = 3, settled_at = now(),
         created_at = '2026-01-02 03:04:05.678901+00', updated_at = '2026-01-02 05:04:06+01'",
    )
    .await;
    for gateway in [Gateway::Rest, Gateway::Http] {
        let call = Call::task("GET", id, "");
        let answer = call
            .send_via(gateway, |request| get_task::handle(&database, request))
            .await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, "application/json")
        );
        assert_eq!(
            answer.json(),
            json!({
                "id": id,
                "title": "t",
                "description": "d",
                "status": "failed",
                "result": "r",
                "attempts": 3,
                "created_at": "2026-01-02T03:04:05.678901Z",
                "updated_at": "2026-01-02T04:04:06Z",
            })
        );
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn an_id_may_be_percent_encoded_once(pool: PgPool) {
    let database = database(&pool);
    let id = task(&pool, "t").await;
    let encoded: String = id.to_string().bytes().map(|byte| format!("%{byte:x}")).collect();
    // API Gateway has decoded it already; what is still encoded was so twice.
    for (gateway, status) in [(Gateway::Http, 200), (Gateway::Rest, 422)] {
        let call = Call::task("GET", &encoded, "");
        let answer = call
            .send_via(gateway, |request| get_task::handle(&database, request))
            .await;
        assert_eq!(answer.status, status, "{gateway:?}");
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn an_unknown_task_is_404(pool: PgPool) {
    let database = database(&pool);
    for id in [1, i64::MAX] {
        let answer = Call::task("GET", id, "")
            .send(|request| get_task::handle(&database, request))
            .await;
        answer.assert_problem(404, "Not Found");
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn what_is_not_an_id_is_422(pool: PgPool) {
    let database = database(&pool);
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
        "",
    ] {
        let answer = Call::task("GET", id, "")
            .send(|request| get_task::handle(&database, request))
            .await;
        answer.assert_problem(422, "Unprocessable Entity");
        assert_eq!(answer.pointers(), ["#/path/id"], "{id}");
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn a_warm_request_is_one_round_trip_to_postgres(pool: PgPool) {
    let proxy = Proxy::start(&pool).await;
    let database = proxy.database(&pool);
    let id = task(&pool, "t").await;
    let get = || Call::task("GET", id, "").send(|request| get_task::handle(&database, request));
    assert_eq!(get().await.status, 200);
    let cold = proxy.round_trips();
    assert!(cold > 1, "the proxy sees no round trips");
    for warm in 1..=5 {
        assert_eq!(get().await.status, 200);
        assert_eq!(proxy.round_trips() - cold, warm);
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn what_the_client_has_already_is_304_until_it_changes(pool: PgPool) {
    let database = database(&pool);
    let id = task(&pool, "t").await;
    let get = async |if_none_match: Option<&str>| {
        let call = Call::task("GET", id, "");
        let call = if_none_match
            .iter()
            .fold(call, |call, tags| call.header("if-none-match", tags));
        call.send(|request| get_task::handle(&database, request)).await
    };
    let first = get(None).await;
    let etag = first.header("etag").to_owned();
    assert_eq!((first.status, etag.as_str()), (200, "\"1\""));

    for known in [
        etag.clone(),
        format!("\"x\", {etag}"),
        format!("W/{etag}"),
        "*".to_owned(),
    ] {
        let answer = get(Some(&known)).await;
        assert_eq!((answer.status, answer.header("etag")), (304, etag.as_str()), "{known}");
        assert_eq!((answer.text(), answer.header("content-type")), ("", ""), "{known}");
    }
    assert_eq!(get(Some("\"2\"")).await, first);

    let body = json!({"title": "new"});
    let changed = Call::task("PUT", id, "").json(&body);
    let changed = changed.send(|request| update_task::handle(&database, request)).await;
    assert_eq!(changed.header("etag"), "\"2\"");
    let answer = get(Some(&etag)).await;
    assert_eq!((answer.status, answer.header("etag")), (200, "\"2\""));
    assert_eq!(answer.json(), changed.json());
}
