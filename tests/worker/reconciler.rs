//! The task-reconciler: which tasks it re-sends, discards and leaves.

use serde_json::{Value, json};
use sqlx::PgPool;
use task_reconciler::{Settings, SweepReport, sweep};

use crate::support::{App, TestQueue, database, execute, refusing_queue, row, settings};

/// Settings with this sweep limit; a message counts as lost after an hour.
fn with_sweep_limit(sweep_limit: i64) -> Settings {
    Settings {
        sweep_limit,
        ..settings::TASK_RECONCILER
    }
}

/// Inserts a task with these columns and values.
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

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn sweep_sends_only_unsent_and_lost_tasks(pool: PgPool) {
    let queue = TestQueue::create().await;
    // 1 to 3: due.
    insert(&pool, "updated_at", "now() - interval '11 s'").await;
    insert(&pool, "enqueued_at", "now() - interval '61 min'").await;
    let expired_lease = "'processing', now() - interval '61 min', now() - interval '1 s'";
    insert(&pool, "status, enqueued_at, lease_expires_at", expired_lease).await;
    // 4 to 8: not due.
    insert(&pool, "updated_at", "now() - interval '5 s'").await;
    insert(&pool, "enqueued_at", "now() - interval '59 min'").await;
    let valid_lease = "'processing', now() - interval '61 min', now() + interval '1 min'";
    insert(&pool, "status, enqueued_at, lease_expires_at", valid_lease).await;
    let long_ago = "now() - interval '1 day'";
    insert(
        &pool,
        "status, updated_at, settled_at",
        &format!("'completed', {long_ago}, {long_ago}"),
    )
    .await;
    insert(
        &pool,
        "status, enqueued_at, settled_at",
        &format!("'failed', {long_ago}, {long_ago}"),
    )
    .await;

    let (database, sender) = (database(&pool), queue.sender());
    let report = sweep(&database, &sender, &with_sweep_limit(1000), None)
        .await
        .expect("swept");
    assert_eq!(
        report,
        SweepReport {
            sent: 3,
            ..SweepReport::default()
        }
    );
    assert_eq!(sent(&queue).await, [1, 2, 3]);

    let report = sweep(&database, &sender, &with_sweep_limit(1000), None)
        .await
        .expect("swept");
    assert_eq!(report, SweepReport::default(), "they were not marked as enqueued");
    assert_eq!(sent(&queue).await, [0; 0]);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn sweep_is_bounded_and_reports_rest(pool: PgPool) {
    let queue = TestQueue::create().await;
    let (database, sender) = (database(&pool), queue.sender());
    execute(
        &pool,
        "insert into tasks (title, updated_at) select 't', '2020-01-01' from generate_series(1, 40)",
    )
    .await;
    let report = sweep(&database, &sender, &with_sweep_limit(25), None)
        .await
        .expect("swept");
    assert_eq!(
        report,
        SweepReport {
            sent: 25,
            left: 15,
            ..SweepReport::default()
        }
    );
    assert_eq!(sent(&queue).await, (1..=25).collect::<Vec<_>>());
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn unreachable_sqs_leaves_tasks_due(pool: PgPool) {
    insert(&pool, "updated_at", "now() - interval '1 h'").await;
    let report = sweep(&database(&pool), &refusing_queue().await, &with_sweep_limit(1000), None)
        .await
        .expect("swept");
    assert_eq!(
        report,
        SweepReport {
            refused: 1,
            left: 1,
            ..SweepReport::default()
        }
    );
    assert_eq!(row(&pool, 1).await["enqueued_at"], json!(null));
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn concurrent_sweeps_send_task_once(pool: PgPool) {
    let queue = TestQueue::create().await;
    let (one, two) = (database(&pool), database(&pool));
    let sender = queue.sender();
    execute(
        &pool,
        "insert into tasks (title, updated_at) select 't', '2020-01-01' from generate_series(1, 100)",
    )
    .await;
    let settings = with_sweep_limit(1000);
    let (first, second) = tokio::join!(
        sweep(&one, &sender, &settings, None),
        sweep(&two, &sender, &settings, None)
    );
    let (first, second) = (first.expect("swept"), second.expect("swept"));
    assert_eq!(first.sent + second.sent, 100);
    assert!(
        first.sent > 0 && second.sent > 0,
        "the sweeps did not overlap: {first:?} {second:?}"
    );
    assert_eq!(sent(&queue).await, (1..=100).collect::<Vec<_>>());
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn task_is_discarded_after_ten_lost_attempts(pool: PgPool) {
    let queue = TestQueue::create().await;
    let columns = "status, enqueued_at, lease_expires_at, attempts";
    for attempts in [9, 10] {
        let expired = format!("'processing', now() - interval '61 min', now() - interval '1 s', {attempts}");
        insert(&pool, columns, &expired).await;
    }
    // Its message may still be in the queue: not lost.
    insert(&pool, "enqueued_at, attempts", "now() - interval '1 min', 10").await;

    let swept = sweep(&database(&pool), &queue.sender(), &with_sweep_limit(1000), None).await;
    assert_eq!(
        swept.expect("swept"),
        SweepReport {
            sent: 1,
            given_up: 1,
            ..SweepReport::default()
        }
    );
    assert_eq!(sent(&queue).await, [1]);
    let given_up = row(&pool, 2).await;
    assert_eq!(
        (&given_up["status"], &given_up["result"]),
        (
            &json!("failed"),
            &json!("discarded after 10 attempts without a reported outcome")
        )
    );
    assert_eq!(row(&pool, 3).await["status"], "pending");
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn discarded_task_that_is_reopened_is_tried_again(pool: PgPool) {
    let app = App::new(&pool);
    let sweep = async || {
        let report = app.sweep(None).await.expect("swept");
        (report.sent, report.given_up)
    };
    let columns = "status, enqueued_at, lease_expires_at, attempts";
    let lost = "'processing', now() - interval '61 min', now() - interval '1 s', 10";
    for reopen in [
        // As an operator may do it in SQL, and with the API.
        "update tasks set status = 'pending', settled_at = null",
        r#"{"status": "pending"}"#,
        r#"{"status": "processing"}"#,
    ] {
        execute(&pool, "truncate tasks restart identity").await;
        insert(&pool, columns, lost).await;
        assert_eq!(sweep().await, (0, 1));
        assert_eq!(row(&pool, 1).await["status"], "failed");
        assert_eq!(app.messages().await, [""; 0]);

        match serde_json::from_str::<Value>(reopen) {
            Ok(patch) => assert_eq!(app.patch("/tasks/1", patch).await.status(), 200),
            Err(_) => execute(&pool, reopen).await,
        }
        assert_eq!(sweep().await, (1, 0), "{reopen}");
        let event = app.queue().await.receive_as_event(1).await;
        let response = app.process(event).await.expect("processed");
        assert!(response.batch_item_failures.is_empty());
        assert_eq!(row(&pool, 1).await["status"], "completed", "{reopen}");
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn only_expired_keys_are_deleted(pool: PgPool) {
    let queue = TestQueue::create().await.sender();
    execute(
        &pool,
        "insert into idempotency_keys (key, fingerprint, task_id, expires_at)
         select 'old ' || n, ''::bytea, 1, now() - interval '1 s' from generate_series(1, 3) as n
         union all select 'new', ''::bytea, 1, now() + interval '1 min'",
    )
    .await;
    for (limit, deleted) in [(2, 2), (1000, 1), (1000, 0)] {
        let report = sweep(&database(&pool), &queue, &with_sweep_limit(limit), None)
            .await
            .expect("swept");
        assert_eq!(report.expired_keys, deleted);
    }
    let left: Vec<String> = sqlx::query_scalar("select key from idempotency_keys")
        .fetch_all(&pool)
        .await
        .expect("valid");
    assert_eq!(left, ["new"]);
}
