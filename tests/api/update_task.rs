//! `PUT` and `PATCH /tasks/{id}`

use serde_json::{Value, json};
use shared::{
    domain::{Status, TaskId},
    store::processing::{Outcome, Settle},
};
use sqlx::PgPool;

use crate::support::{Answer, Call, Gateway, database, execute, row, task};

async fn update(pool: &PgPool, id: i64, body: &Value) -> Answer {
    let database = database(pool);
    Call::task("PATCH", id, "")
        .json(body)
        .send(|request| update_task::handle(&database, request))
        .await
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
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

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn nothing_sent_nothing_changed(pool: PgPool) {
    let id = task(&pool, "t").await;
    let before = row(&pool, id).await;
    let answer = update(&pool, id, &json!({})).await;
    assert_eq!((answer.status, &answer.json()["title"]), (200, &json!("t")));
    assert_eq!(row(&pool, id).await, before);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn every_status_can_be_set_and_a_lease_exists_only_while_processing(pool: PgPool) {
    let id = task(&pool, "t").await;
    for status in ["processing", "completed", "processing", "failed", "pending"] {
        let answer = update(&pool, id, &json!({"status": status})).await;
        assert_eq!((answer.status, &answer.json()["status"]), (200, &json!(status)));
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
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

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
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

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
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

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn with_if_match_only_the_version_that_was_seen_changes(pool: PgPool) {
    let id = task(&pool, "t").await;
    let database = database(&pool);
    let put = async |tags: &str, body: Value| {
        let call = Call::task("PUT", id, "").header("if-match", tags).json(&body);
        call.send(|request| update_task::handle(&database, request)).await
    };
    let before = row(&pool, id).await;
    for stale in ["\"0\"", "\"2\"", "W/\"1\"", "nonsense"] {
        for body in [json!({"title": "new"}), json!({})] {
            put(stale, body).await.assert_problem(412, "Precondition Failed");
        }
    }
    assert_eq!(row(&pool, id).await, before);

    let answer = put("\"1\"", json!({})).await;
    assert_eq!((answer.status, answer.header("etag")), (200, "\"1\""));
    let answer = put("\"1\"", json!({"title": "new"})).await;
    assert_eq!((answer.status, answer.header("etag")), (200, "\"2\""));
    put("\"1\"", json!({"title": "newer"}))
        .await
        .assert_problem(412, "Precondition Failed");
    let answer = put("*", json!({"title": "newest"})).await;
    assert_eq!((answer.status, answer.header("etag")), (200, "\"3\""));
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn of_many_changes_for_one_version_exactly_one_is_made(pool: PgPool) {
    let id = task(&pool, "t").await;
    let databases: Vec<_> = (0..8).map(|_| database(&pool)).collect();
    let changes = databases.iter().enumerate().map(async |(number, database)| {
        let body = json!({"title": format!("by {number}")});
        let call = Call::task("PATCH", id, "").header("if-match", "\"1\"").json(&body);
        let answer = call.send(|request| update_task::handle(database, request)).await;
        (answer.status, body)
    });
    let answers = futures::future::join_all(changes).await;
    let made: Vec<_> = answers.iter().filter(|(status, _)| *status == 200).collect();
    assert_eq!(made.len(), 1, "{answers:?}");
    assert!(
        answers.iter().all(|(status, _)| [200, 412].contains(status)),
        "{answers:?}"
    );
    assert_eq!(row(&pool, id).await["title"], made[0].1["title"]);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn while_a_worker_holds_the_task_other_members_change_and_its_outcome_still_counts(pool: PgPool) {
    let id = task(&pool, "t").await;
    let hold = "update tasks set status = 'processing', fencing_token = 7, lease_expires_at = now() + interval '1 min'";
    execute(&pool, hold).await;
    let held = row(&pool, id).await;
    assert_eq!(update(&pool, id, &json!({"title": "new"})).await.status, 200);
    let renamed = row(&pool, id).await;
    for untouched in ["status", "fencing_token", "lease_expires_at"] {
        assert_eq!(renamed[untouched], held[untouched], "{untouched}");
    }

    assert_eq!(update(&pool, id, &json!({"status": "failed"})).await.status, 200);
    let outcome = Outcome {
        id: TaskId::try_from(id).expect("an id"),
        fencing_token: 7,
        status: Status::Completed,
        result: Some("too late".to_owned()),
    };
    let settled = database(&pool).run(&Settle(&[outcome])).await.expect("run");
    assert_eq!(settled, [], "the client took the task away from its worker");
    let row = row(&pool, id).await;
    assert_eq!((&row["status"], &row["result"]), (&json!("failed"), &Value::Null));
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn a_task_that_is_made_pending_by_hand_is_asked_for_from_then_on(pool: PgPool) {
    let id = task(&pool, "t").await;
    let settle = "update tasks set status = 'completed', settled_at = now(), requested_at = now() - interval '1 day'";
    execute(&pool, settle).await;
    let before = row(&pool, id).await;
    assert_eq!(update(&pool, id, &json!({"title": "new"})).await.status, 200);
    assert_eq!(row(&pool, id).await["requested_at"], before["requested_at"]);

    assert_eq!(update(&pool, id, &json!({"status": "pending"})).await.status, 200);
    let row = row(&pool, id).await;
    assert_eq!(
        (&row["requested_at"], &row["settled_at"]),
        (&row["updated_at"], &Value::Null)
    );
}
