//! What every function that uses the database has in common: how it copes without.

use serde_json::json;
use sqlx::PgPool;

use crate::support::{Call, database, database_that_is_down, execute, task};

#[tokio::test]
async fn without_a_database_every_route_is_503_with_retry_after() {
    let database = database_that_is_down();
    let answers = [
        Call::task("GET", 1, "")
            .send(|request| get_task::handle(&database, request))
            .await,
        Call::new("GET", "/tasks")
            .send(|request| list_tasks::handle(&database, request))
            .await,
        Call::task("DELETE", 1, "")
            .send(|request| delete_task::handle(&database, request))
            .await,
        Call::task("PUT", 1, "")
            .json(&json!({"title": "t"}))
            .send(|request| update_task::handle(&database, request))
            .await,
    ];
    for answer in answers {
        answer.assert_problem(503, "Service Unavailable");
        assert_eq!(answer.header("retry-after"), "2");
        assert!(
            !answer.json().to_string().contains("127.0.0.1"),
            "internals in {answer:?}"
        );
    }
}

#[sqlx::test(migrator = "shared::store::MIGRATIONS")]
async fn a_statement_that_hangs_is_503_within_the_functions_time(pool: PgPool) {
    let database = database(&pool);
    let id = task(&pool, "t").await;
    let mut blocker = pool.begin().await.expect("a transaction");
    sqlx::query("update tasks set title = 'locked'")
        .execute(&mut *blocker)
        .await
        .expect("the row is locked");
    let started = std::time::Instant::now();
    let call = Call::task("PUT", id, "").json(&json!({"title": "t"}));
    let answer = call.send(|request| update_task::handle(&database, request)).await;
    answer.assert_problem(503, "Service Unavailable");
    assert!(started.elapsed().as_secs_f64() < 2.5, "{:?}", started.elapsed());
    blocker.rollback().await.expect("the lock is released");

    let call = Call::task("PUT", id, "").json(&json!({"title": "after"}));
    let answer = call.send(|request| update_task::handle(&database, request)).await;
    assert_eq!((answer.status, &answer.json()["title"]), (200, &json!("after")));
}

#[sqlx::test(migrator = "shared::store::MIGRATIONS")]
async fn a_bug_of_ours_is_500_without_internals(pool: PgPool) {
    let database = database(&pool);
    execute(&pool, "alter table tasks rename column title to name").await;
    let answer = Call::task("GET", 1, "")
        .send(|request| get_task::handle(&database, request))
        .await;
    answer.assert_problem(500, "Internal Server Error");
    assert_eq!(answer.json()["detail"], "Something went wrong on our side.");
}

#[sqlx::test(migrator = "shared::store::MIGRATIONS")]
async fn after_postgres_ends_the_session_the_next_request_succeeds(pool: PgPool) {
    let database = database(&pool);
    let id = task(&pool, "t").await;
    let end_sessions = "select pg_terminate_backend(pid) from pg_stat_activity
                        where datname = current_database() and pid <> pg_backend_pid()";
    for round in 0..3 {
        // A write too: Postgres says that it closed the session before the statement arrived.
        let body = json!({"title": format!("round {round}")});
        let call = Call::task("PUT", id, "").json(&body);
        let answer = call.send(|request| update_task::handle(&database, request)).await;
        assert_eq!((answer.status, &answer.json()["title"]), (200, &body["title"]));
        execute(&pool, end_sessions).await;
    }
}
