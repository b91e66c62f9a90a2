//! `PUT` and `PATCH /tasks/{id}`

use serde_json::{Value, json};
use shared::{
    domain::{Status, TaskId},
    store::processing::{Outcome, Settle},
};
use sqlx::PgPool;

use crate::support::{App, Gateway, Proxy, Request, Response, database, execute, in_seconds, row, store_status, task};

async fn update(pool: &PgPool, id: i64, body: &Value) -> Response {
    App::new(pool).patch(format!("/tasks/{id}"), body.clone()).await
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn only_sent_members_change(pool: PgPool) {
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
            let app = App::new(&pool);
            let before = row(&pool, id).await;
            let response = app
                .request(method, format!("/tasks/{id}"))
                .json(&body)
                .via(gateway)
                .await;
            let task = response.json();
            assert_eq!(response.status(), 200, "{body}");
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
async fn empty_patch_changes_nothing(pool: PgPool) {
    let id = task(&pool, "t").await;
    let before = row(&pool, id).await;
    let response = update(&pool, id, &json!({})).await;
    assert_eq!((response.status(), &response.json()["title"]), (200, &json!("t")));
    assert_eq!(row(&pool, id).await, before);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn every_status_can_be_set(pool: PgPool) {
    let id = task(&pool, "t").await;
    for status in ["processing", "completed", "processing", "failed", "pending"] {
        let response = update(&pool, id, &json!({"status": status})).await;
        assert_eq!((response.status(), &response.json()["status"]), (200, &json!(status)));
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn invalid_change_is_422(pool: PgPool) {
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
        (json!({"status": "scheduled"}), "#/status"),
        (json!({"run_at": "tomorrow"}), "#/run_at"),
        (json!({"run_at": in_seconds(367 * 86_400)}), "#/run_at"),
        (json!({"status": "pending", "run_at": null}), "#/run_at"),
        (json!({"id": 9}), "#/id"),
        (json!({"result": "r"}), "#/result"),
        (json!([{"title": "x"}]), "#"),
    ] {
        let response = update(&pool, id, &body).await;
        response.assert_problem(422, "Unprocessable Entity");
        assert_eq!(response.pointers(), [pointer], "{body}");
    }
    assert_eq!(row(&pool, id).await, before);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn malformed_bodies_and_ids_are_refused(pool: PgPool) {
    let app = App::new(&pool);
    let id = task(&pool, "t").await;
    let send = async |request: Request| request.await;
    send(app.request("PUT", format!("/tasks/{id}")).body("{"))
        .await
        .assert_problem(400, "Bad Request");
    send(app.put(format!("/tasks/{}", id + 1), json!({"title": "x"})))
        .await
        .assert_problem(404, "Not Found");
    send(app.put(format!("/tasks/{}", id + 1), json!({})))
        .await
        .assert_problem(404, "Not Found");
    send(app.put("/tasks/x", json!({})))
        .await
        .assert_problem(422, "Unprocessable Entity");
    let plain = app
        .request("PUT", format!("/tasks/{id}"))
        .header("content-type", "text/plain")
        .body("{}");
    send(plain).await.assert_problem(415, "Unsupported Media Type");
    let large = app.put(format!("/tasks/{id}"), json!({"title": "x".repeat(1 << 20)}));
    send(large).await.assert_problem(413, "Payload Too Large");
    let latin = app.put(format!("/tasks/{id}"), json!({"title": "x"}));
    let latin = latin.header("content-type", "application/json; charset=iso-8859-1");
    send(latin).await.assert_problem(415, "Unsupported Media Type");
    let repeated = app.request("PUT", format!("/tasks/{id}"));
    let repeated = send(repeated.body(r#"{"status":"failed","title":"a","title":"b"}"#)).await;
    assert_eq!(
        (repeated.status(), repeated.pointers()),
        (422, vec!["#/title".to_owned()])
    );
    assert_eq!(row(&pool, id).await["title"], "t");
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn update_racing_delete_is_200_or_404(pool: PgPool) {
    for _ in 0..20 {
        let id = task(&pool, "t").await;
        let path = format!("/tasks/{id}");
        let put = App::new(&pool).put(&path, json!({"title": "x"}));
        let (updated, deleted) = tokio::join!(put, App::new(&pool).delete(&path));
        assert!([200, 404].contains(&updated.status()), "{updated:?}");
        assert_eq!(deleted.status(), 200);
        assert_eq!(row(&pool, id).await, Value::Null);
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn if_match_changes_only_that_version(pool: PgPool) {
    let id = task(&pool, "t").await;
    let app = App::new(&pool);
    let put = async |tags: &str, body: Value| {
        app.request("PUT", format!("/tasks/{id}"))
            .header("if-match", tags)
            .json(&body)
            .await
    };
    let before = row(&pool, id).await;
    for stale in ["\"0\"", "\"2\"", "W/\"1\"", "nonsense"] {
        for body in [json!({"title": "new"}), json!({})] {
            put(stale, body).await.assert_problem(412, "Precondition Failed");
        }
    }
    assert_eq!(row(&pool, id).await, before);

    let response = put("\"1\"", json!({})).await;
    assert_eq!((response.status(), response.header("etag")), (200, "\"1\""));
    let response = put("\"1\"", json!({"title": "new"})).await;
    assert_eq!((response.status(), response.header("etag")), (200, "\"2\""));
    put("\"1\"", json!({"title": "newer"}))
        .await
        .assert_problem(412, "Precondition Failed");
    let response = put("*", json!({"title": "newest"})).await;
    assert_eq!((response.status(), response.header("etag")), (200, "\"3\""));
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn etag_may_be_in_any_if_match_line(pool: PgPool) {
    let app = App::new(&pool);
    for gateway in [Gateway::Rest, Gateway::Http] {
        for (lines, status) in [
            (["\"1\"", "\"2\""], 200),
            (["\"2\"", "\"1\""], 200),
            (["\"2\", \"1\"", "\"3\""], 200),
            (["\"2\"", "W/\"1\""], 412),
            (["\"2\"", "\"3\""], 412),
        ] {
            let id = task(&pool, "t").await;
            let request = app.patch(format!("/tasks/{id}"), json!({"title": "new"}));
            let response = request.header_lines("If-Match", &lines).via(gateway).await;
            assert_eq!(response.status(), status, "{gateway:?} {lines:?}");
            let title = if status == 200 { "new" } else { "t" };
            assert_eq!(row(&pool, id).await["title"], title, "{gateway:?} {lines:?}");
        }
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn one_of_concurrent_conditional_updates_succeeds(pool: PgPool) {
    let id = task(&pool, "t").await;
    let changes = (0..8).map(async |number| {
        let app = App::new(&pool);
        let body = json!({"title": format!("by {number}")});
        let response = app
            .request("PATCH", format!("/tasks/{id}"))
            .header("if-match", "\"1\"")
            .json(&body)
            .await;
        (response.status(), body)
    });
    let responses = futures::future::join_all(changes).await;
    let made: Vec<_> = responses.iter().filter(|(status, _)| *status == 200).collect();
    assert_eq!(made.len(), 1, "{responses:?}");
    assert!(
        responses.iter().all(|(status, _)| [200, 412].contains(status)),
        "{responses:?}"
    );
    assert_eq!(row(&pool, id).await["title"], made[0].1["title"]);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn update_of_other_members_keeps_lease(pool: PgPool) {
    let id = task(&pool, "t").await;
    let sql = "update tasks set status = 'processing', fencing_token = 7, lease_expires_at = now() + interval '1 min'";
    execute(&pool, sql).await;
    let leased = row(&pool, id).await;
    assert_eq!(update(&pool, id, &json!({"title": "new"})).await.status(), 200);
    let renamed = row(&pool, id).await;
    for untouched in ["status", "fencing_token", "lease_expires_at"] {
        assert_eq!(renamed[untouched], leased[untouched], "{untouched}");
    }

    assert_eq!(update(&pool, id, &json!({"status": "failed"})).await.status(), 200);
    let outcome = Outcome {
        id: TaskId::try_from(id).expect("an id"),
        fencing_token: 7,
        status: Status::Completed,
        result: Some("too late".to_owned()),
    };
    let settled = database(&pool).run(&Settle(&[outcome])).await.expect("run");
    assert_eq!(
        settled,
        [],
        "the client's change ended the lease, but the outcome was stored"
    );
    let row = row(&pool, id).await;
    assert_eq!((&row["status"], &row["result"]), (&json!("failed"), &Value::Null));
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn manual_pending_restarts_request_time(pool: PgPool) {
    let id = task(&pool, "t").await;
    let settle = "update tasks set status = 'completed', settled_at = now(), requested_at = now() - interval '1 day'";
    execute(&pool, settle).await;
    execute(&pool, "update tasks set attempts = 10").await;
    let before = row(&pool, id).await;
    assert_eq!(update(&pool, id, &json!({"title": "new"})).await.status(), 200);
    assert_eq!(row(&pool, id).await["requested_at"], before["requested_at"]);

    assert_eq!(before["attempts"], row(&pool, id).await["attempts"]);

    assert_eq!(update(&pool, id, &json!({"status": "pending"})).await.status(), 200);
    let row = row(&pool, id).await;
    assert_eq!(
        (&row["requested_at"], &row["settled_at"], &row["attempts"]),
        (&row["updated_at"], &Value::Null, &json!(0))
    );
}

/// A task with this status, as if it had been processed before.
async fn processed(pool: &PgPool, status: Status) -> i64 {
    let id = task(pool, "t").await;
    store_status(pool, id, status).await;
    let before = format!(
        "update tasks set result = 'r', attempts = 3, started_at = '2026-01-02', enqueued_at = '2026-01-01',
                requested_at = '2026-01-01'
         where id = {id}"
    );
    execute(pool, &before).await;
    id
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn run_at_starts_task_anew_whatever_its_status(pool: PgPool) {
    let is_leased = |status: &Status| *status == Status::Processing;
    for status in Status::ALL.into_iter().filter(|status| !is_leased(status)) {
        for (method, seconds) in [("PATCH", 3600), ("PUT", -3600)] {
            let id = processed(&pool, status).await;
            let run_at = in_seconds(seconds);
            let request = App::new(&pool).request(method, format!("/tasks/{id}"));
            let response = request.json(&json!({"run_at": run_at})).await;
            assert_eq!((response.status(), response.header("etag")), (200, "\"2\""));
            let (shown, run_at) = match seconds {
                1.. => ("scheduled", json!(run_at)),
                // A time that has passed means now.
                _ => ("pending", Value::Null),
            };
            let task = response.json();
            assert_eq!(
                (&task["status"], &task["run_at"]),
                (&json!(shown), &run_at),
                "{status:?}"
            );
            assert_eq!((&task["attempts"], &task["result"]), (&json!(0), &Value::Null));
            let stored = row(&pool, id).await;
            for cleared in ["enqueued_at", "settled_at", "started_at", "lease_expires_at"] {
                assert_eq!(stored[cleared], Value::Null, "{cleared}");
            }
            assert_eq!(stored["requested_at"], stored["updated_at"]);
            assert_eq!(stored["earlier_attempts"].as_array().map(Vec::len), Some(1));
        }
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn leased_task_is_not_rescheduled(pool: PgPool) {
    let id = processed(&pool, Status::Processing).await;
    let before = row(&pool, id).await;
    for run_at in [json!(in_seconds(3600)), json!(in_seconds(-1)), Value::Null] {
        let response = update(&pool, id, &json!({"run_at": run_at, "title": "new"})).await;
        response.assert_problem(409, "Conflict");
        let app = App::new(&pool);
        let stale = app.patch(format!("/tasks/{id}"), json!({"run_at": run_at}));
        stale
            .header("if-match", "\"9\"")
            .await
            .assert_problem(412, "Precondition Failed");
        app.patch("/tasks/999", json!({"run_at": run_at}))
            .await
            .assert_problem(404, "Not Found");
    }
    assert_eq!(row(&pool, id).await, before);

    execute(&pool, "update tasks set lease_expires_at = now()").await;
    let response = update(&pool, id, &json!({"run_at": in_seconds(3600)})).await;
    assert_eq!(
        (response.status(), &response.json()["status"]),
        (200, &json!("scheduled"))
    );
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn null_ends_schedule_and_changes_nothing_else(pool: PgPool) {
    for status in Status::ALL.into_iter().filter(|status| *status != Status::Processing) {
        let id = processed(&pool, status).await;
        let schedule = "update tasks set run_at = coalesce(run_at, '2026-01-01') where id = ";
        execute(&pool, &format!("{schedule}{id}")).await;
        let before = row(&pool, id).await;
        let response = update(&pool, id, &json!({"run_at": null})).await;
        assert_eq!((response.status(), &response.json()["run_at"]), (200, &Value::Null));
        let mut expected = before;
        let stored = row(&pool, id).await;
        for changed in ["run_at", "version", "updated_at"] {
            expected[changed] = stored[changed].clone();
        }
        if status == Status::Scheduled {
            // The reconciler sends its message: another one may still be delayed.
            assert_eq!(
                (&stored["enqueued_at"], &stored["requested_at"]),
                (&Value::Null, &stored["updated_at"])
            );
            for changed in ["enqueued_at", "requested_at"] {
                expected[changed] = stored[changed].clone();
            }
            expected["status"] = json!("pending");
        }
        assert_eq!(stored, expected, "{status:?}");
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn only_status_and_process_end_schedule(pool: PgPool) {
    let app = App::new(&pool);
    for status in Status::SETTABLE {
        let id = processed(&pool, Status::Scheduled).await;
        let before = row(&pool, id).await;
        assert_eq!(update(&pool, id, &json!({"title": "new"})).await.status(), 200);
        let renamed = row(&pool, id).await;
        for untouched in ["status", "run_at", "enqueued_at"] {
            assert_eq!(renamed[untouched], before[untouched], "{untouched}");
        }
        let response = update(&pool, id, &json!({"status": status})).await;
        assert_eq!((response.status(), &response.json()["run_at"]), (200, &Value::Null));
        let stored = row(&pool, id).await;
        assert_eq!(
            (&stored["status"], &stored["enqueued_at"]),
            (&json!(status), &Value::Null)
        );
    }
    let id = processed(&pool, Status::Scheduled).await;
    assert_eq!(app.post(format!("/tasks/{id}/process"), None).await.status(), 202);
    let stored = row(&pool, id).await;
    assert_eq!(
        (&stored["status"], &stored["run_at"]),
        (&json!("pending"), &Value::Null)
    );
    assert_eq!(app.messages().await, [json!({"task_id": id}).to_string()]);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn rescheduling_takes_one_round_trip(pool: PgPool) {
    let proxy = Proxy::start(&pool).await;
    let app = App::with_database(proxy.database(&pool));
    let id = task(&pool, "t").await;
    let mut used = Vec::new();
    for _ in 0..3 {
        let before = proxy.round_trips();
        let response = app
            .patch(format!("/tasks/{id}"), json!({"run_at": in_seconds(60)}))
            .await;
        assert_eq!(response.status(), 200);
        used.push(proxy.round_trips() - before);
    }
    assert_eq!(used[1..], [1, 1]);
}
