//! Protected routes that are called without their authorizer's context.

use serde_json::json;
use sqlx::PgPool;

use crate::support::{App, count, row, task};

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn route_without_authorizer_is_401(pool: PgPool) {
    let app = App::new(&pool);
    let id = task(&pool, "t").await;
    let before = row(&pool, id).await;
    let (path, body) = (format!("/tasks/{id}"), json!({"title": "new"}));
    let caller = app.without_authorizer();
    for request in [
        caller.post("/tasks", body.clone()),
        caller.get("/tasks"),
        caller.get(&path),
        caller.patch(&path, body),
        caller.delete(&path),
        caller.post(format!("{path}/process"), None),
        caller.get(format!("/admin/tasks/{id}")),
        caller.get("/ready"),
    ] {
        let response = request.await;
        response.assert_problem(401, "Unauthorized");
        assert_eq!(response.header("www-authenticate"), "Bearer");
    }
    assert_eq!((row(&pool, id).await, count(&pool).await), (before, 1));
    assert_eq!(app.messages().await, [""; 0]);
}
