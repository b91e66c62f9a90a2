//! `DELETE /tasks/{id}`

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{App, Gateway, count, row, task};

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn task_is_deleted_once(pool: PgPool) {
    let app = App::new(&pool);
    let kept = task(&pool, "kept").await;
    for gateway in [Gateway::Rest, Gateway::Http] {
        let id = task(&pool, "t").await;
        let delete = || app.delete(format!("/tasks/{id}")).via(gateway);
        let response = delete().await;
        assert_eq!(response.status(), 200);
        assert_eq!(
            response.json(),
            json!({"message": format!("Task {id} deleted successfully"), "task_id": id})
        );
        assert_eq!(row(&pool, id).await, Value::Null);
        delete().await.assert_problem(404, "Not Found");
    }
    assert_eq!(count(&pool).await, 1);
    assert_eq!(row(&pool, kept).await["title"], "kept");
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn one_of_two_concurrent_deletes_succeeds(pool: PgPool) {
    for _ in 0..20 {
        let id = task(&pool, "t").await;
        let delete = || App::new(&pool).delete(format!("/tasks/{id}"));
        let (one, two) = tokio::join!(delete(), delete());
        let mut statuses = [one.status(), two.status()];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 404]);
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn malformed_id_is_422(pool: PgPool) {
    let app = App::new(&pool);
    for id in ["0", "abc", "9223372036854775808"] {
        let response = app.delete(format!("/tasks/{id}")).await;
        response.assert_problem(422, "Unprocessable Entity");
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn if_match_deletes_only_that_version(pool: PgPool) {
    let app = App::new(&pool);
    let id = task(&pool, "t").await;
    let delete = async |tags: &str| app.delete(format!("/tasks/{id}")).header("if-match", tags).await;
    for stale in ["\"0\"", "\"2\"", "W/\"1\"", "nonsense"] {
        delete(stale).await.assert_problem(412, "Precondition Failed");
        assert_eq!(row(&pool, id).await["title"], "t");
    }
    assert_eq!(delete("\"7\", \"1\"").await.status(), 200);
    delete("\"1\"").await.assert_problem(404, "Not Found");
}
