//! `PUT` and `PATCH /tasks/{id}`

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{Answer, Call, Gateway, database, execute, row, task};

async fn update(pool: &PgPool, id: i64, body: &Value) -> Answer {
    let database = database(pool);
    Call::task("PATCH", id, "")
        .json(body)
        .send(|request| update_task::handle(&database, request))
        .await
}

#[sqlx::test(migrator = "shared::store::MIGRATIONS")]
async fn only_the_members_that_were_sent_change(pool: PgPool) {
    let id = task(&pool, "old").await;
    execute(
        &pool,
        "update tasks set description = 'd', result = 'r', updated_at = '2020-01-01'",
    )
    .await;
    let steps = [
        (
            json!({"title": "new"}),
            json!({"title": "new", "description": "d", "status": "pending"}),
        ),
        (
            json!({"status": "completed"}),
            json!({"title": "new", "description": "d", "status": "completed"}),
        ),
        (
            json!({"description": null}),
            json!({"title": "new", "description": null, "status": "completed"}),
        ),
        (
            json!({"description": ""}),
            json!({"title": "new", "description": "", "status": "completed"}),
        ),
    ];
    for (body, expected) in steps {
        for (method, gateway) in [("PUT", Gateway::Rest), ("PATCH", Gateway::Http)] {
            let database = database(&pool);
            let before = row(&pool, id).await;
            let call = Call::task(method, id, "").json(&body);
            let answer = call
                .send_via(gateway, |request| update_task::handle(&database, request))
                .await;
            let task = answer.json();
            assert_eq!(answer.status, 200, "{body}");
            assert_eq!(
                json!({"title": task["title"], "description": task["description"], "status": task["status"]}),
                expected
            );
            let after = row(&pool, id).await;
            assert_ne!(after["updated_at"], before["updated_at"]);
            for untouched in ["id", "result", "created_at", "enqueued_at", "fencing_token"] {
                assert_eq!(after[untouched], before[untouched], "{untouched}");
            }
        }
    }
}

#[sqlx::test(migrator = "shared::store::MIGRATIONS")]
async fn nothing_sent_nothing_changed(pool: PgPool) {
    let id = task(&pool, "t").await;
    let before = row(&pool, id).await;
    let answer = update(&pool, id, &json!({})).await;
    assert_eq!((answer.status, &answer.json()["title"]), (200, &json!("t")));
    assert_eq!(row(&pool, id).await, before);
}

#[sqlx::test(migrator = "shared::store::MIGRATIONS")]
async fn every_status_can_be_set_and_a_lease_exists_only_while_processing(pool: PgPool) {
    let id = task(&pool, "t").await;
    for status in ["processing", "completed", "processing", "failed", "pending"] {
        let answer = update(&pool, id, &json!({"status": status})).await;
        assert_eq!((answer.status, &answer.json()["status"]), (200, &json!(status)));
    }
}

#[sqlx::test(migrator = "shared::store::MIGRATIONS")]
async fn invalid_changes_are_422_and_change_nothing(pool: PgPool) {
    let id = task(&pool, "t").await;
    let before = row(&pool, id).await;
    for (body, pointer) in [
        (json!({"title": null}), "#/title"),
        (json!({"title": "  "}), "#/title"),
        (json!({"title": "a\0"}), "#/title"),
        (json!({"status": null}), "#/status"),
        (json!({"status": "paused"}), "#/status"),
        (json!({"status": 1}), "#/status"),
        (json!({"description": ["d"]}), "#/description"),
        (json!({"id": 9}), "#/id"),
        (json!({"result": "r"}), "#/result"),
        (json!([{"title": "x"}]), "#"),
    ] {
        let answer = update(&pool, id, &body).await;
        answer.assert_problem(422, "Unprocessable Entity");
        assert_eq!(answer.pointers(), [pointer], "{body}");
    }
    assert_eq!(row(&pool, id).await, before);
}

#[sqlx::test(migrator = "shared::store::MIGRATIONS")]
async fn bodies_and_ids_are_checked_as_everywhere(pool: PgPool) {
    let database = database(&pool);
    let id = task(&pool, "t").await;
    let send = |call: Call| call.send(|request| update_task::handle(&database, request));
    send(Call::task("PUT", id, "").body("{"))
        .await
        .assert_problem(400, "Bad Request");
    send(Call::task("PUT", id + 1, "").json(&json!({"title": "x"})))
        .await
        .assert_problem(404, "Not Found");
    send(Call::task("PUT", id + 1, "").json(&json!({})))
        .await
        .assert_problem(404, "Not Found");
    send(Call::task("PUT", "x", "").json(&json!({})))
        .await
        .assert_problem(422, "Unprocessable Entity");
    let plain = Call::task("PUT", id, "")
        .header("content-type", "text/plain")
        .body("{}");
    send(plain).await.assert_problem(415, "Unsupported Media Type");
    let large = Call::task("PUT", id, "").json(&json!({"title": "x".repeat(1 << 20)}));
    send(large).await.assert_problem(413, "Payload Too Large");
}

#[sqlx::test(migrator = "shared::store::MIGRATIONS")]
async fn racing_with_a_delete_is_200_or_404(pool: PgPool) {
    for _ in 0..20 {
        let id = task(&pool, "t").await;
        let (updating, deleting) = (database(&pool), database(&pool));
        let body = json!({"title": "x"});
        let (updated, deleted) = tokio::join!(
            Call::task("PUT", id, "")
                .json(&body)
                .send(|request| update_task::handle(&updating, request)),
            Call::task("DELETE", id, "").send(|request| delete_task::handle(&deleting, request)),
        );
        assert!([200, 404].contains(&updated.status), "{updated:?}");
        assert_eq!(deleted.status, 200);
        assert_eq!(row(&pool, id).await, Value::Null);
    }
}
