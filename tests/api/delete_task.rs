//! `DELETE /tasks/{id}`

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{Call, Gateway, count, database, row, task};

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn a_task_is_deleted_once(pool: PgPool) {
    let database = database(&pool);
    let kept = task(&pool, "kept").await;
    for gateway in [Gateway::Rest, Gateway::Http] {
        let id = task(&pool, "t").await;
        let delete =
            || Call::task("DELETE", id, "").send_via(gateway, |request| delete_task::handle(&database, request));
        let answer = delete().await;
        assert_eq!(answer.status, 200);
        assert_eq!(
            answer.json(),
            json!({"message": format!("Task {id} deleted successfully"), "task_id": id})
        );
        assert_eq!(row(&pool, id).await, Value::Null);
        delete().await.assert_problem(404, "Not Found");
    }
    assert_eq!(count(&pool).await, 1);
    assert_eq!(row(&pool, kept).await["title"], "kept");
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn of_two_deletes_at_once_one_succeeds(pool: PgPool) {
    for _ in 0..20 {
        let id = task(&pool, "t").await;
        let (one, two) = (database(&pool), database(&pool));
        let (one, two) = tokio::join!(
            Call::task("DELETE", id, "").send(|request| delete_task::handle(&one, request)),
            Call::task("DELETE", id, "").send(|request| delete_task::handle(&two, request)),
        );
        let mut statuses = [one.status, two.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 404]);
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn what_is_not_an_id_is_422(pool: PgPool) {
    let database = database(&pool);
    for id in ["0", "abc", "9223372036854775808"] {
        let answer = Call::task("DELETE", id, "")
            .send(|request| delete_task::handle(&database, request))
            .await;
        answer.assert_problem(422, "Unprocessable Entity");
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn with_if_match_only_the_version_that_was_seen_is_deleted(pool: PgPool) {
    let database = database(&pool);
    let id = task(&pool, "t").await;
    let delete = async |tags: &str| {
        let call = Call::task("DELETE", id, "").header("if-match", tags);
        call.send(|request| delete_task::handle(&database, request)).await
    };
    for stale in ["\"0\"", "\"2\"", "W/\"1\"", "nonsense"] {
        delete(stale).await.assert_problem(412, "Precondition Failed");
        assert_eq!(row(&pool, id).await["title"], "t");
    }
    assert_eq!(delete("\"7\", \"1\"").await.status, 200);
    delete("\"1\"").await.assert_problem(404, "Not Found");
}
