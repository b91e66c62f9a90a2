//! What the functions make of the authorizer's word.

use create_task::Settings;
use serde_json::json;
use sqlx::PgPool;

use crate::support::{Call, NO_METRICS, TestQueue, count, database, row, task};

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn a_route_that_lacks_the_authorizer_lets_nobody_in(pool: PgPool) {
    let database = database(&pool);
    let test_queue = TestQueue::create().await;
    let queue = test_queue.sender();
    let settings = Settings {
        idempotency_key_seconds: 60,
    };
    let id = task(&pool, "t").await;
    let before = row(&pool, id).await;
    let body = json!({"title": "new"});

    let call = Call::new("POST", "/tasks").json(&body).without_authorizer();
    let create = call.send(|request| create_task::handle(&database, &queue, &NO_METRICS, &settings, request));
    let call = Call::new("GET", "/tasks").without_authorizer();
    let list = call.send(|request| list_tasks::handle(&database, request));
    let call = Call::task("GET", id, "").without_authorizer();
    let get = call.send(|request| get_task::handle(&database, request));
    let call = Call::task("PATCH", id, "").json(&body).without_authorizer();
    let update = call.send(|request| update_task::handle(&database, request));
    let call = Call::task("DELETE", id, "").without_authorizer();
    let delete = call.send(|request| delete_task::handle(&database, request));
    let call = Call::task("POST", id, "/process").without_authorizer();
    let process = call.send(|request| process_task::handle(&database, &queue, request));
    let call = Call::task("GET", id, "").without_authorizer();
    let history = call.send(|request| admin_task::handle(&database, request));
    let answers = tokio::join!(create, list, get, update, delete, process, history);

    let (create, list, get, update, delete, process, history) = answers;
    for answer in [create, list, get, update, delete, process, history] {
        answer.assert_problem(401, "Unauthorized");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
    }
    assert_eq!((row(&pool, id).await, count(&pool).await), (before, 1));
    assert_eq!(test_queue.bodies().await, [""; 0]);
}
