//! What a newer version of the code has stored, as this version shows it: both run during a
//! deployment, and this one alone after a rollback.

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{App, execute, row, task};

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn unknown_status_is_shown_as_stored(pool: PgPool) {
    let app = App::new(&pool);
    let (newer, known) = (task(&pool, "newer").await, task(&pool, "known").await);
    let path = format!("/tasks/{newer}");
    // The connection is open and has prepared its statements.
    assert_eq!(app.get("/tasks").await.json()[0]["status"], "pending");
    execute(&pool, "alter type task_status add value 'archived'").await;
    execute(&pool, "alter table tasks drop constraint tasks_settled").await;
    execute(
        &pool,
        "update tasks set status = 'archived', settled_at = now() where title = 'newer'",
    )
    .await;

    let response = app.get(&path).await;
    assert_eq!((response.status(), response.header("etag")), (200, "\"1\""));
    let shown = response.json();
    assert_eq!(shown["status"], "archived");
    let list = app.get("/tasks").await.json();
    assert_eq!((&list[0], &list[1]["id"]), (&shown, &json!(known)));
    let pending = app.get("/tasks?status=pending&count=true").await;
    assert_eq!(pending.header("x-total-count"), "1");
    assert_eq!(pending.json()[0]["id"], known);
    // Clients cannot use it with this version.
    app.get("/tasks?status=archived")
        .await
        .assert_problem(422, "Unprocessable Entity");
    let set = app.patch(&path, json!({"status": "archived"})).await;
    set.assert_problem(422, "Unprocessable Entity");

    let status = app.get("/admin/status").await.json();
    assert_eq!(
        (&status["tasks"]["total"], &status["tasks"]["pending"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(status["recent_tasks"][1], shown);
    let history = app.get(format!("/admin{path}")).await.json();
    assert_eq!(history["status"], "archived");
    let timeline = history["timeline"].as_array().expect("a list");
    let events: Vec<&Value> = timeline.iter().map(|entry| &entry["event"]).collect();
    assert_eq!(
        events,
        ["created", "enqueued"],
        "it is not known how the task was settled"
    );

    let renamed = app.patch(&path, json!({"title": "renamed"})).await;
    assert_eq!((renamed.status(), &renamed.json()["status"]), (200, &json!("archived")));
    assert_eq!(app.post(format!("{path}/process"), None).await.status(), 202);
    assert_eq!(row(&pool, newer).await["status"], "pending");
    assert_eq!(app.delete(&path).await.status(), 200);
}
