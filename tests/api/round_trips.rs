//! How often each route and the reconciler ask Postgres, counted on the wire. (Batches: `worker::processor`.)

use serde_json::json;
use sqlx::PgPool;

use crate::support::{Call, NO_METRICS, Proxy, TestQueue, task};

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn a_warm_request_asks_postgres_as_often_as_it_must(pool: PgPool) {
    let (proxy, queue) = (Proxy::start(&pool).await, TestQueue::create().await.sender());
    let database = &proxy.database(&pool);
    let settings = create_task::Settings {
        idempotency_key_seconds: 60,
    };
    let reconciler = task_reconciler::Settings {
        lost_after_seconds: 3600,
        max_attempts: 10,
        sweep_limit: 10,
    };
    let send = async |name: &str, id: i64| {
        let about = |method, below| Call::task(method, id, below);
        let new = json!({"title": "new"});
        let answer = match name {
            "api-info" => Call::new("GET", "/").send(api_info::handle).await,
            "admin-dashboard" => Call::new("GET", "/admin/dashboard").send(admin_dashboard::handle).await,
            "health" => {
                Call::new("GET", "/health")
                    .send(|request| health::handle(database, request))
                    .await
            }
            "create-task" => {
                let create = |request| create_task::handle(database, &queue, &NO_METRICS, &settings, request);
                Call::new("POST", "/tasks").json(&new).send(create).await
            }
            "list-tasks" => {
                let list = Call::new("GET", "/tasks").query("q", "new").query("limit", "2");
                list.send(|request| list_tasks::handle(database, request)).await
            }
            "list-tasks, counted" => {
                let list = Call::new("GET", "/tasks").query("count", "true");
                list.send(|request| list_tasks::handle(database, request)).await
            }
            "get-task" => {
                about("GET", "")
                    .send(|request| get_task::handle(database, request))
                    .await
            }
            "update-task" => {
                let update = about("PATCH", "").json(&new);
                update.send(|request| update_task::handle(database, request)).await
            }
            "delete-task" => {
                about("DELETE", "")
                    .send(|request| delete_task::handle(database, request))
                    .await
            }
            "process-task" => {
                let process = |request| process_task::handle(database, &queue, request);
                about("POST", "/process").send(process).await
            }
            "admin-status" => {
                let status = |request| admin_status::handle(database, &queue, &queue, request);
                Call::new("GET", "/admin/status").send(status).await
            }
            "admin-task" => {
                about("GET", "")
                    .send(|request| admin_task::handle(database, request))
                    .await
            }
            "task-reconciler" => {
                let swept = task_reconciler::sweep(database, &queue, &reconciler, None).await;
                return assert!(swept.is_ok(), "{swept:?}");
            }
            _ => unreachable!("{name}"),
        };
        assert!(answer.status < 300, "{name}: {}", answer.text());
    };
    for (name, round_trips) in [
        ("api-info", 0),
        ("admin-dashboard", 0),
        ("health", 1),
        // The second notes that the message was sent.
        ("create-task", 2),
        ("process-task", 2),
        ("list-tasks", 1),
        ("list-tasks, counted", 2),
        ("get-task", 1),
        ("update-task", 1),
        ("delete-task", 1),
        ("admin-status", 1),
        ("admin-task", 1),
        // Takes what is due, counts what it left, deletes expired keys.
        ("task-reconciler", 3),
    ] {
        let mut used = Vec::new();
        // The first one may also connect, and prepares the statements.
        for _ in 0..3 {
            let id = task(&pool, "t").await;
            let before = proxy.round_trips();
            send(name, id).await;
            used.push(proxy.round_trips() - before);
        }
        assert_eq!(used[1..], [round_trips; 2], "{name}");
    }
}
