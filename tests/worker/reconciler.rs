//! The task-reconciler: which tasks it re-sends, discards and leaves.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use queue::TaskQueue;
use serde_json::{Value, json};
use sqlx::PgPool;
use task_metrics::Metrics;
use task_reconciler::{Progress, Settings, SweepReport};

use crate::support::{
    App, MetricLines, TestQueue, client_config, database, database_that_is_down, execute, mapping,
    mapping::refusing_mapping, refusing_queue, row, settings, sqs_stub,
};

/// The time of an invocation.
const TIME: Duration = Duration::from_secs(30);

/// Runs a sweep; a message counts as lost after an hour.
async fn sweep(pool: &PgPool, queue: &TaskQueue) -> SweepReport {
    sweep_for(pool, queue, TIME).await
}

/// Runs a sweep in an invocation of this length.
async fn sweep_for(pool: &PgPool, queue: &TaskQueue, time: Duration) -> SweepReport {
    let settings = &settings::TASK_RECONCILER;
    let (metrics, progress) = (&Metrics::none(), &Progress::default());
    task_reconciler::sweep(&database(pool), queue, metrics, settings, progress, time, None)
        .await
        .expect("swept")
}

/// A stub of SQS that accepts the messages that `accepts` and reports this many as waiting, and the
/// ids of the tasks whose messages it has accepted, in order.
async fn stub_of_sqs(
    waiting: u64,
    accepts: impl Fn(i64) -> bool + Send + Sync + 'static,
) -> (TaskQueue, Arc<Mutex<Vec<i64>>>) {
    let ids = Arc::<Mutex<Vec<i64>>>::default();
    let accepted = Arc::clone(&ids);
    let respond = move |action: &str, request: Value| {
        if action == "GetQueueAttributes" {
            return json!({"Attributes": {"ApproximateNumberOfMessages": waiting.to_string()}});
        }
        let entries = request["Entries"].as_array().expect("entries");
        assert!(entries.len() <= 10, "{} entries", entries.len());
        let (mut successful, mut failed) = (Vec::new(), Vec::new());
        for entry in entries {
            let id = entry["Id"].as_str().expect("an id");
            let task: Value = serde_json::from_str(entry["MessageBody"].as_str().expect("a body")).expect("JSON");
            let task = task["task_id"].as_i64().expect("an id");
            if accepts(task) {
                accepted.lock().expect("not poisoned").push(task);
                successful.push(json!({"Id": id, "MessageId": "m", "MD5OfMessageBody": ""}));
            } else {
                failed.push(json!({"Id": id, "Code": "InternalError", "SenderFault": false}));
            }
        }
        json!({"Successful": successful, "Failed": failed})
    };
    let url = sqs_stub(respond).await;
    let queue = TaskQueue::new(
        client_config().endpoint_url(url),
        "http://sqs/000000000000/stub".to_owned(),
    );
    (queue, ids)
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

    let sender = queue.sender();
    let report = sweep(&pool, &sender).await;
    assert_eq!(
        report,
        SweepReport {
            sent: 3,
            ..SweepReport::default()
        }
    );
    assert_eq!(sent(&queue).await, [1, 2, 3]);

    let report = sweep(&pool, &sender).await;
    assert_eq!(report, SweepReport::default(), "they were not marked as enqueued");
    assert_eq!(sent(&queue).await, [0; 0]);
}

/// Tasks that were never sent.
async fn unsent(pool: &PgPool, count: i64) {
    execute(
        pool,
        &format!("insert into tasks (title, updated_at) select 't', '2020-01-01' from generate_series(1, {count})"),
    )
    .await;
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn sweep_without_time_reports_all_tasks_as_left(pool: PgPool) {
    unsent(&pool, 40).await;
    let (queue, accepted) = stub_of_sqs(0, |_| true).await;
    let report = sweep_for(&pool, &queue, Duration::ZERO).await;
    assert_eq!(
        report,
        SweepReport {
            left: 40,
            ..SweepReport::default()
        }
    );
    assert_eq!(*accepted.lock().expect("not poisoned"), [0; 0]);
    assert_eq!(row(&pool, 1).await["enqueued_at"], json!(null));
}

/// Sweeps until no message is refused: on a busy machine an attempt may take too long. Returns how
/// many messages were sent.
async fn sweep_all(pool: &PgPool, queue: &TaskQueue) -> usize {
    let mut sent = 0;
    for _ in 0..10 {
        let report = sweep(pool, queue).await;
        sent += report.sent;
        if report.left == 0 {
            return sent;
        }
    }
    panic!("{sent} messages were sent by ten sweeps");
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn sweep_sends_thousands_from_both_ends(pool: PgPool) {
    unsent(&pool, 2200).await;
    let (queue, accepted) = stub_of_sqs(0, |_| true).await;
    assert_eq!(sweep_all(&pool, &queue).await, 2200);
    let accepted = accepted.lock().expect("not poisoned").clone();
    // A sweep that ends early has sent the oldest and the newest.
    let place = |id: i64| accepted.iter().position(|accepted| *accepted == id);
    assert!(place(1) < place(1500) && place(2200) < place(1500), "{accepted:?}");
    let all: BTreeSet<i64> = accepted.iter().copied().collect();
    assert_eq!(all.len(), 2200);
    assert_eq!(sweep(&pool, &queue).await, SweepReport::default());
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn sweep_goes_on_behind_refused_messages(pool: PgPool) {
    unsent(&pool, 1200).await;
    let (queue, accepted) = stub_of_sqs(0, |id| id % 100 != 0).await;
    let report = sweep(&pool, &queue).await;
    assert!(report.sent > 1000 && report.refused >= 12, "{report:?}");
    assert_eq!((report.sent + report.refused, report.left), (1200, report.refused));
    // Both are in the database as in the report.
    let marked: Vec<bool> = sqlx::query_scalar("select enqueued_at is not null from tasks order by id")
        .fetch_all(&pool)
        .await
        .expect("tasks");
    assert_eq!(marked.iter().filter(|marked| **marked).count(), report.sent);
    assert!((100..=1200).step_by(100).all(|id| !marked[id - 1]));
    let accepted: BTreeSet<i64> = accepted.lock().expect("not poisoned").iter().copied().collect();
    assert!(
        marked
            .iter()
            .zip(1..)
            .all(|(marked, id)| !marked || accepted.contains(&id))
    );
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn sweep_stops_when_sqs_refuses_everything(pool: PgPool) {
    unsent(&pool, 1200).await;
    let report = sweep(&pool, &refusing_queue().await).await;
    assert_eq!(
        report,
        SweepReport {
            refused: 500,
            left: 1200,
            ..SweepReport::default()
        }
    );
    let unsent: i64 = sqlx::query_scalar("select count(*) from tasks where enqueued_at is null")
        .fetch_one(&pool)
        .await
        .expect("a number");
    assert_eq!(unsent, 1200);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn next_sweep_sends_what_sqs_refused(pool: PgPool) {
    unsent(&pool, 1200).await;
    let (database, metrics, progress) = (database(&pool), Metrics::none(), Progress::default());
    let settings = &settings::TASK_RECONCILER;
    let mut sent = Vec::new();
    for queue in [refusing_queue().await, stub_of_sqs(0, |_| true).await.0] {
        let swept = task_reconciler::sweep(&database, &queue, &metrics, settings, &progress, TIME, None).await;
        sent.push(swept.expect("swept").sent);
    }
    assert_eq!(sent, [0, 1200]);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn full_queue_has_no_lost_messages(pool: PgPool) {
    insert(&pool, "enqueued_at", "now() - interval '61 min'").await;
    insert(&pool, "updated_at", "now() - interval '1 h'").await;
    let columns = "status, enqueued_at, lease_expires_at, attempts";
    let crashed = "'processing', now() - interval '61 min', now() - interval '1 s', 10";
    insert(&pool, columns, crashed).await;

    let (queue, accepted) = stub_of_sqs(50_000, |_| true).await;
    let report = sweep(&pool, &queue).await;
    assert_eq!((report.sent, report.given_up, report.left), (1, 1, 0));
    assert_eq!(*accepted.lock().expect("not poisoned"), [2]);

    let (queue, accepted) = stub_of_sqs(49_999, |_| true).await;
    assert_eq!(sweep(&pool, &queue).await.sent, 1);
    assert_eq!(*accepted.lock().expect("not poisoned"), [1]);
}

/// Its messages are old because nothing receives them.
#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn paused_queue_has_no_lost_messages(pool: PgPool) {
    let columns = "enqueued_at, updated_at";
    insert(&pool, columns, "now() - interval '2 h', now() - interval '2 h'").await;
    insert(&pool, columns, "null, now() - interval '2 h'").await;
    let (mapping, _) = mapping::mapping().await;
    mapping.set_enabled(false).await.expect("paused");
    let (queue, accepted) = stub_of_sqs(1, |_| true).await;
    let paused = queue.with_mapping(Some(mapping.clone()));
    for (report, ids) in [((1, 0), vec![2]), ((0, 0), vec![2])] {
        let swept = sweep(&pool, &paused).await;
        assert_eq!((swept.sent, swept.left), report, "only what has no message");
        assert_eq!(*accepted.lock().expect("not poisoned"), ids);
    }

    mapping.set_enabled(true).await.expect("resumed");
    assert_eq!(sweep(&pool, &paused).await.sent, 1);
    assert_eq!(*accepted.lock().expect("not poisoned"), [2, 1]);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn unknown_state_of_mapping_hides_no_lost_message(pool: PgPool) {
    let values = "now() - interval '2 h', now() - interval '2 h'";
    insert(&pool, "enqueued_at, updated_at", values).await;
    let (queue, _) = stub_of_sqs(0, |_| true).await;
    let (mapping, _) = refusing_mapping(500, "ServiceException").await;
    assert_eq!(sweep(&pool, &queue.with_mapping(Some(mapping))).await.sent, 1);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn sweep_examines_limited_number_of_waiting_tasks(pool: PgPool) {
    // Their messages wait in the queue. Only two in the middle were not sent.
    execute(
        &pool,
        "insert into tasks (title, updated_at, enqueued_at)
         select 't', '2020-01-01', case when n not in (60000, 80000) then now() end from generate_series(1, 120000) as n",
    )
    .await;
    let (queue, accepted) = stub_of_sqs(0, |_| true).await;
    let (database, metrics, progress) = (database(&pool), Metrics::none(), Progress::default());
    let settings = &settings::TASK_RECONCILER;
    let mut sent = Vec::new();
    for _ in 0..3 {
        let swept = task_reconciler::sweep(&database, &queue, &metrics, settings, &progress, TIME, None).await;
        sent.push(swept.expect("swept").sent);
        insert(&pool, "updated_at", "now() - interval '1 h'").await;
        // One that fails does not begin anew.
        let down = database_that_is_down();
        let failed = task_reconciler::sweep(&down, &queue, &metrics, settings, &progress, TIME, None).await;
        assert!(failed.is_err(), "{failed:?}");
    }
    // Each sweep examines what is new, and 25,000 from either end; the second and third continue
    // where the one before stopped.
    assert_eq!(sent, [0, 2, 2]);
    assert_eq!(
        *accepted.lock().expect("not poisoned"),
        [120_001, 80_000, 120_002, 60_000]
    );
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn unreachable_sqs_leaves_tasks_due(pool: PgPool) {
    insert(&pool, "updated_at", "now() - interval '1 h'").await;
    let report = sweep(&pool, &refusing_queue().await).await;
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
    unsent(&pool, 1200).await;
    let (queue, accepted) = stub_of_sqs(0, |_| true).await;
    let (first, second) = tokio::join!(sweep(&pool, &queue), sweep(&pool, &queue));
    let rest = sweep_all(&pool, &queue).await;
    assert_eq!(first.sent + second.sent + rest, 1200);
    assert!(
        first.sent > 0 && second.sent > 0,
        "the sweeps did not overlap: {first:?} {second:?}"
    );
    // An attempt that takes too long on a busy machine is repeated, so SQS may get a message twice.
    let accepted: BTreeSet<i64> = accepted.lock().expect("not poisoned").iter().copied().collect();
    assert_eq!(accepted, (1..=1200).collect());
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

    assert_eq!(
        sweep(&pool, &queue.sender()).await,
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

/// Inserts keys that expired some time ago.
async fn expired_keys(pool: &PgPool, count: i64) {
    execute(
        pool,
        &format!(
            "insert into idempotency_keys (key, fingerprint, task_id, expires_at)
             select 'old ' || n, '', 1, now() - n * interval '1 ms' from generate_series(1, {count}) as n"
        ),
    )
    .await;
}

async fn count(pool: &PgPool, table: &str) -> i64 {
    let count = format!("select count(*) from {table}");
    sqlx::query_scalar(&count).fetch_one(pool).await.expect("a number")
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn only_expired_keys_are_deleted(pool: PgPool) {
    expired_keys(&pool, 3).await;
    execute(
        &pool,
        "insert into idempotency_keys (key, fingerprint, task_id, expires_at)
         values ('new', '', 1, now() + interval '1 min')",
    )
    .await;
    let (queue, _) = stub_of_sqs(0, |_| true).await;
    for deleted in [3, 0] {
        assert_eq!(
            sweep(&pool, &queue).await,
            SweepReport {
                expired_keys: deleted,
                ..SweepReport::default()
            }
        );
    }
    let left: Vec<String> = sqlx::query_scalar("select key from idempotency_keys")
        .fetch_all(&pool)
        .await
        .expect("valid");
    assert_eq!(left, ["new"]);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn sweep_deletes_keys_of_a_thousand_requests_a_second(pool: PgPool) {
    // Those of the minute since the last sweep, some of which expired at the same time.
    expired_keys(&pool, 60_000).await;
    execute(
        &pool,
        "update idempotency_keys set expires_at = date_trunc('second', expires_at)",
    )
    .await;
    let (queue, _) = stub_of_sqs(0, |_| true).await;
    let report = sweep(&pool, &queue).await;
    assert_eq!((report.expired_keys, report.expired_keys_left), (60_000, 0));
    assert_eq!(count(&pool, "idempotency_keys").await, 0);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn sweep_without_time_reports_expired_keys_as_left(pool: PgPool) {
    expired_keys(&pool, 7).await;
    let (queue, _) = stub_of_sqs(0, |_| true).await;
    let report = sweep_for(&pool, &queue, Duration::ZERO).await;
    assert_eq!((report.expired_keys, report.expired_keys_left), (0, 7));
}

/// Settings that delete tasks after 30 days.
const KEEP_30_DAYS: Settings = Settings {
    task_retention_days: 30,
    ..settings::TASK_RECONCILER
};

/// Inserts tasks that were settled `count` to 1 milliseconds before 30 days ago.
async fn old_tasks(pool: &PgPool, count: i64) {
    execute(
        pool,
        &format!(
            "insert into tasks (title, status, settled_at)
             select 'old', case n % 2 when 0 then 'completed'::task_status else 'failed' end,
                    now() - interval '30 days' - n * interval '1 ms'
             from generate_series(1, {count}) as n"
        ),
    )
    .await;
}

/// Runs a sweep with these settings; returns its report and its metrics.
async fn sweep_with(pool: &PgPool, settings: &Settings, time: Duration) -> (SweepReport, Value) {
    let (queue, _) = stub_of_sqs(0, |_| true).await;
    let (lines, progress) = (MetricLines::default(), Progress::default());
    let metrics = lines.metrics("task-api");
    let swept = task_reconciler::sweep(&database(pool), &queue, &metrics, settings, &progress, time, None).await;
    let mut lines = lines.take();
    assert_eq!(lines.len(), 1, "{lines:?}");
    (swept.expect("swept"), lines.remove(0))
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn retention_deletes_only_old_settled_tasks(pool: PgPool) {
    old_tasks(&pool, 2500).await;
    let young = "now() - interval '29 days 23 h'";
    insert(
        &pool,
        "status, created_at, settled_at",
        &format!("'completed', '2020-01-01', {young}"),
    )
    .await;
    // Old, but open: the first is due.
    insert(&pool, "created_at, updated_at", "'2020-01-01', '2020-01-01'").await;
    let lease = "'processing', '2020-01-01', now(), now() + interval '1 min'";
    insert(&pool, "status, created_at, enqueued_at, lease_expires_at", lease).await;

    let (report, _) = sweep_with(&pool, &settings::TASK_RECONCILER, TIME).await;
    assert_eq!((report.deleted_tasks, report.sent), (0, 1), "off by default");
    let (report, metrics) = sweep_with(&pool, &KEEP_30_DAYS, TIME).await;
    assert_eq!((report.deleted_tasks, report.old_tasks_left), (2500, 0));
    assert_eq!(
        (&metrics["TasksDeleted"], &metrics["OldTasksLeft"]),
        (&json!(2500), &json!(0))
    );
    let left: Vec<i64> = sqlx::query_scalar("select id from tasks order by id")
        .fetch_all(&pool)
        .await
        .expect("ids");
    assert_eq!(left, [2501, 2502, 2503]);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn metrics_of_sweep_show_what_is_left(pool: PgPool) {
    old_tasks(&pool, 3).await;
    expired_keys(&pool, 2).await;
    unsent(&pool, 1).await;
    let (report, mut metrics) = sweep_with(&pool, &KEEP_30_DAYS, Duration::ZERO).await;
    assert_eq!(
        (report.left, report.expired_keys_left, report.old_tasks_left),
        (1, 2, 3)
    );
    metrics.as_object_mut().expect("an object").remove("_aws");
    assert_eq!(
        metrics,
        json!({
            "MessagesResent": 0, "MessagesMissing": 1, "TasksDiscarded": 0, "KeysDeleted": 0, "KeysLeft": 2,
            "TasksDeleted": 0, "OldTasksLeft": 3,
        })
    );
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn sweep_without_findings_writes_no_metrics(pool: PgPool) {
    let (queue, _) = stub_of_sqs(0, |_| true).await;
    let (lines, progress) = (MetricLines::default(), Progress::default());
    let (settings, metrics) = (&settings::TASK_RECONCILER, lines.metrics("task-api"));
    let swept = task_reconciler::sweep(&database(&pool), &queue, &metrics, settings, &progress, TIME, None).await;
    assert_eq!(swept.expect("swept"), SweepReport::default());
    assert!(lines.take().is_empty());
}
