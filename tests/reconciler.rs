//! The task-reconciler: what it sends, and what it leaves alone.

use serde_json::{Value, json};
use sqlx::PgPool;
use task_reconciler::{Limits, Report, sweep};

use crate::support::{TestQueue, database, execute, queue_nobody_serves, row};

/// A message counts as lost after an hour.
fn limits(sweep_limit: i64) -> Limits {
    Limits {
        lost_after_seconds: 3600,
        sweep_limit,
    }
}

/// Inserts a task for each list of columns and values.
async fn insert(pool: &PgPool, columns: &str, values: &str) {
    execute(
        pool,
        &format!("insert into tasks (title, {columns}) values ('t', {values})"),
    )
    .await;
}

/// The ids in the messages, sorted.
async fn sent(queue: &TestQueue) -> Vec<i64> {
    let id = |body: String| {
        serde_json::from_str::<Value>(&body).expect("JSON")["task_id"]
            .as_i64()
            .expect("an id")
    };
    let mut ids: Vec<i64> = queue.bodies().await.into_iter().map(id).collect();
    ids.sort_unstable();
    ids
}

#[sqlx::test(migrator = "shared::store::MIGRATIONS")]
async fn what_was_never_sent_or_is_lost_is_sent_and_nothing_else(pool: PgPool) {
    let queue = TestQueue::create().await;
    // 1 to 3: due.
    insert(&pool, "updated_at", "now() - interval '11 s'").await;
    insert(&pool, "enqueued_at", "now() - interval '61 min'").await;
    let dead_worker = "'processing', now() - interval '61 min', now() - interval '1 s'";
    insert(&pool, "status, enqueued_at, lease_expires_at", dead_worker).await;
    // 4 to 8: not due.
    insert(&pool, "updated_at", "now() - interval '5 s'").await;
    insert(&pool, "enqueued_at", "now() - interval '59 min'").await;
    let living_worker = "'processing', now() - interval '61 min', now() + interval '1 min'";
    insert(&pool, "status, enqueued_at, lease_expires_at", living_worker).await;
    insert(&pool, "status, updated_at", "'completed', now() - interval '1 day'").await;
    insert(&pool, "status, enqueued_at", "'failed', now() - interval '1 day'").await;

    let (database, sender) = (database(&pool), queue.sender().await);
    let report = sweep(&database, &sender, &limits(1000)).await.expect("swept");
    assert_eq!(
        report,
        Report {
            sent: 3,
            refused: 0,
            left: 0
        }
    );
    assert_eq!(sent(&queue).await, [1, 2, 3]);

    let report = sweep(&database, &sender, &limits(1000)).await.expect("swept");
    assert_eq!(
        report,
        Report {
            sent: 0,
            refused: 0,
            left: 0
        },
        "they are marked as sent"
    );
    assert_eq!(sent(&queue).await, [0; 0]);
}

#[sqlx::test(migrator = "shared::store::MIGRATIONS")]
async fn a_sweep_is_bounded_and_says_how_much_is_left(pool: PgPool) {
    let queue = TestQueue::create().await;
    let (database, sender) = (database(&pool), queue.sender().await);
    execute(
        &pool,
        "insert into tasks (title, updated_at) select 't', '2020-01-01' from generate_series(1, 40)",
    )
    .await;
    let report = sweep(&database, &sender, &limits(25)).await.expect("swept");
    assert_eq!(
        report,
        Report {
            sent: 25,
            refused: 0,
            left: 15
        }
    );
    assert_eq!(sent(&queue).await, (1..=25).collect::<Vec<_>>());
}

#[sqlx::test(migrator = "shared::store::MIGRATIONS")]
async fn without_sqs_the_tasks_stay_due(pool: PgPool) {
    insert(&pool, "updated_at", "now() - interval '1 h'").await;
    let report = sweep(&database(&pool), &queue_nobody_serves(false).await, &limits(1000))
        .await
        .expect("swept");
    assert_eq!(
        report,
        Report {
            sent: 0,
            refused: 1,
            left: 1
        }
    );
    assert_eq!(row(&pool, 1).await["enqueued_at"], json!(null));
}

#[sqlx::test(migrator = "shared::store::MIGRATIONS")]
async fn two_sweeps_at_once_never_send_the_same(pool: PgPool) {
    let queue = TestQueue::create().await;
    let (one, two) = (database(&pool), database(&pool));
    let sender = queue.sender().await;
    execute(
        &pool,
        "insert into tasks (title, updated_at) select 't', '2020-01-01' from generate_series(1, 100)",
    )
    .await;
    let limits = limits(1000);
    let (first, second) = tokio::join!(sweep(&one, &sender, &limits), sweep(&two, &sender, &limits));
    let (first, second) = (first.expect("swept"), second.expect("swept"));
    assert_eq!(first.sent + second.sent, 100);
    assert!(
        first.sent > 0 && second.sent > 0,
        "they did not run at once: {first:?} {second:?}"
    );
    assert_eq!(sent(&queue).await, (1..=100).collect::<Vec<_>>());
}
