//! The task-processor, called with SQS events.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant, SystemTime},
};

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent};
use serde_json::{Value, json};
use shared::{
    domain::{Status, Task, TaskId},
    store::processing::{Claim, ClaimOutcome, ClaimRequest, Outcome, Settle},
};
use sqlx::{PgPool, Postgres, Transaction};
use task_processor::{BatchError, Event, Processed, Retry, Settings, TaskError, perform, process};
use tokio::sync::Barrier;
use tokio_util::sync::CancellationToken;

use crate::support::{
    App, Proxy, TestQueue, database, database_that_is_down, events, eventually, execute, hanging_sqs, row, settings,
    store_status, task,
};

/// An event with these bodies; the message ids are m0, m1, ...
fn event(bodies: &[String]) -> SqsEvent {
    event_received(bodies, 1)
}

/// The same, received for the nth time; sent a minute ago.
fn event_received(bodies: &[String], times: u32) -> SqsEvent {
    event_sent(bodies, times, milliseconds_since_1970() - 60_000)
}

fn milliseconds_since_1970() -> u128 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.expect("after 1970").as_millis()
}

fn event_sent(bodies: &[String], times: u32, sent_at: u128) -> SqsEvent {
    let record = |(number, body): (usize, &String)| {
        let mut record = events::sqs_sample();
        record["messageId"] = json!(format!("m{number}"));
        record["body"] = json!(body);
        record["attributes"]["ApproximateReceiveCount"] = json!(times.to_string());
        record["attributes"]["SentTimestamp"] = json!(sent_at.to_string());
        record
    };
    let records: Vec<Value> = bodies.iter().enumerate().map(record).collect();
    serde_json::from_value(json!({"Records": records})).expect("an SQS event")
}

fn message(id: i64) -> String {
    json!({"task_id": id}).to_string()
}

fn in_30_s() -> SystemTime {
    SystemTime::now() + Duration::from_secs(30)
}

/// Processes a batch and returns the ids of the messages to retry.
async fn run(
    pool: &PgPool,
    bodies: &[String],
    perform: impl AsyncFn(&Task, &CancellationToken) -> Result<String, TaskError>,
) -> Result<Vec<String>, BatchError> {
    let retries = process(
        &database(pool),
        event(bodies),
        in_30_s(),
        settings::TASK_PROCESSOR,
        perform,
    )
    .await?;
    Ok(message_ids(retries))
}

fn message_ids(processed: Processed) -> Vec<String> {
    processed.retries.into_iter().map(|retry| retry.message_id).collect()
}

async fn status(pool: &PgPool, id: i64) -> (String, Value) {
    let row = row(pool, id).await;
    assert_eq!(row["status"] == "processing", !row["lease_expires_at"].is_null());
    (
        row["status"].as_str().unwrap_or_default().to_owned(),
        row["result"].clone(),
    )
}

fn is(status: &str, result: &str) -> (String, Value) {
    (
        status.to_owned(),
        if result.is_empty() { Value::Null } else { json!(result) },
    )
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn long_result_is_shortened(pool: PgPool) {
    let (failed, completed) = (task(&pool, "t").await, task(&pool, "t").await);
    let fail = format!("update tasks set description = 'fail: ' || repeat('😀', 9990) where id = {failed}");
    execute(&pool, &fail).await;
    run(&pool, &[message(failed)], perform).await.expect("done");
    run(&pool, &[message(completed)], async |_: &_, _: &_| Ok("é".repeat(1001)))
        .await
        .expect("done");
    let (reason, result) = (format!("{}…", "😀".repeat(999)), format!("{}…", "é".repeat(999)));
    assert_eq!(status(&pool, failed).await, is("failed", &reason));
    assert_eq!(status(&pool, completed).await, is("completed", &result));
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn batch_is_completed_and_acknowledged(pool: PgPool) {
    let (one, two) = (task(&pool, "Process user data").await, task(&pool, "t").await);
    execute(&pool, "update tasks set description = 'Count the words' where id = 1").await;
    assert_eq!(
        run(&pool, &[message(two), message(one)], perform).await.expect("done"),
        [""; 0]
    );
    let result = "Processed \"Process user data\": 3 words, 15 characters";
    assert_eq!(status(&pool, one).await, is("completed", result));
    assert_eq!(
        status(&pool, two).await,
        is("completed", "Processed \"t\": 0 words, 0 characters")
    );
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn words_are_counted_unless_description_requests_failure(pool: PgPool) {
    let app = App::new(&pool);
    let outcome = async |description: &str| {
        let body = json!({"title": "t", "description": description});
        let created = app.post("/tasks", body).await.json();
        perform(
            &serde_json::from_value(created).expect("a task"),
            &CancellationToken::new(),
        )
        .await
    };
    let counted = Ok("Processed \"t\": 3 words, 13 characters".to_owned());
    assert_eq!(outcome("fail or retry").await, counted);
    assert_eq!(
        outcome("fail: no user").await,
        Err(TaskError::Permanent("no user".to_owned()))
    );
    assert_eq!(
        outcome("retry: later").await,
        Err(TaskError::Transient("later".to_owned()))
    );
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn empty_batch_succeeds(pool: PgPool) {
    assert_eq!(run(&pool, &[], perform).await.expect("done"), [""; 0]);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn each_record_has_its_own_outcome(pool: PgPool) {
    let mut ids = Vec::new();
    for title in [
        "good",
        "permanent",
        "transient",
        "panic",
        "completed",
        "leased",
        "also good",
    ] {
        ids.push(task(&pool, title).await);
    }
    execute(
        &pool,
        "update tasks set status = 'completed', result = 'r', settled_at = now() where title = 'completed'",
    )
    .await;
    let lease =
        "update tasks set status = 'processing', lease_expires_at = now() + interval '1 min' where title = 'leased'";
    execute(&pool, lease).await;
    let deleted = 1_000_000;

    let mut bodies: Vec<String> = ids.iter().map(|id| message(*id)).collect();
    bodies.push(message(deleted));
    bodies.push("not json".to_owned());
    bodies.push(r#"{"task_id":0}"#.to_owned());
    let performed = AtomicUsize::new(0);
    let failed = run(&pool, &bodies, async |task: &Task, _: &_| {
        performed.fetch_add(1, Ordering::SeqCst);
        match task.title.as_str() {
            "permanent" => Err(TaskError::Permanent("never".to_owned())),
            "transient" => Err(TaskError::Transient("not now".to_owned())),
            "panic" => panic!("a bug in the business step"),
            "completed" | "leased" => unreachable!("it was not claimed"),
            title => Ok(title.to_owned()),
        }
    })
    .await;

    // transient, panic, leased, and the two malformed messages.
    assert_eq!(failed.expect("a partial success"), ["m2", "m3", "m5", "m8", "m9"]);
    assert_eq!(performed.into_inner(), 5);
    assert_eq!(status(&pool, ids[0]).await, is("completed", "good"));
    assert_eq!(status(&pool, ids[1]).await, is("failed", "never"));
    assert_eq!(status(&pool, ids[2]).await, is("pending", ""));
    assert_eq!(status(&pool, ids[3]).await, is("pending", ""));
    assert_eq!(status(&pool, ids[4]).await, is("completed", "r"));
    assert_eq!(status(&pool, ids[5]).await.0, "processing");
    assert_eq!(status(&pool, ids[6]).await, is("completed", "also good"));
}

/// In every status except those of an open task.
#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn late_message_about_settled_task_is_acknowledged(pool: PgPool) {
    let is_settled = |status: &Status| !matches!(status, Status::Pending | Status::Processing);
    for status in Status::ALL.into_iter().filter(is_settled) {
        let id = task(&pool, "t").await;
        store_status(&pool, id, status).await;
        let before = row(&pool, id).await;
        let failed = run(&pool, &[message(id)], perform).await;
        assert_eq!(failed.expect("done"), [""; 0], "{status:?}");
        assert_eq!(row(&pool, id).await, before, "{status:?}");
    }
}

/// Sends messages to the queue and receives them, with a visibility timeout of 30 s.
async fn received(queue: &TestQueue, bodies: &[String]) -> SqsEvent {
    queue.send(bodies).await;
    queue.receive_as_event(bodies.len()).await
}

/// Handles an event with a retry delay of one second.
async fn handled(app: &App, event: SqsEvent) -> Result<SqsBatchResponse, BatchError> {
    let settings = Settings {
        retry_delay_seconds: 1,
        ..settings::TASK_PROCESSOR
    };
    app.process_with(settings, event).await
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn failed_message_is_redelivered_after_retry_delay(pool: PgPool) {
    let app = App::new(&pool);
    let queue = app.queue().await;
    let bodies = [message(task(&pool, "t").await), "not a task".to_owned()];
    let event = received(queue, &bodies).await;
    let response = handled(&app, event).await;
    let failures = response.expect("a partial success").batch_item_failures;
    assert_eq!(failures.len(), 1);
    let again = eventually(10, "the message is visible again", async || {
        queue.bodies().await.into_iter().find(|body| *body == bodies[1])
    });
    again.await;
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn failed_batch_lists_all_records_and_is_redelivered(pool: PgPool) {
    let app = App::new(&pool);
    let queue = app.queue().await;
    let event = received(queue, &["{}".to_owned(), "[]".to_owned()]).await;
    let message_ids: Vec<_> = event.records.iter().map(|record| record.message_id.clone()).collect();
    let response = handled(&app, event).await.expect("not an error of the function");
    let failures = response.batch_item_failures.into_iter();
    let failures: Vec<_> = failures.map(|failure| Some(failure.item_identifier)).collect();
    assert_eq!(failures, message_ids);
    let mut redelivered = Vec::new();
    while redelivered.len() < 2 {
        let received = eventually(10, "a message is visible again", async || {
            Some(queue.bodies().await).filter(|bodies| !bodies.is_empty())
        });
        redelivered.extend(received.await);
    }
    redelivered.sort_unstable();
    assert_eq!(redelivered, ["[]", "{}"]);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn unusual_message_attribute_fails_no_record(pool: PgPool) {
    let (one, two) = (task(&pool, "one").await, task(&pool, "two").await);
    let mut event = serde_json::to_value(event(&[message(one), message(two)])).expect("serializable");
    event["Records"][1]["messageAttributes"] = json!({
        "note": {"binaryValue": "%%%", "stringListValues": null, "binaryListValues": null, "dataType": "Binary"},
    });
    let Event(event) = serde_json::from_value(event).expect("an event");
    let response = App::new(&pool).process(event).await.expect("processed");
    assert!(response.batch_item_failures.is_empty(), "{response:?}");
    for id in [one, two] {
        assert_eq!(status(&pool, id).await.0, "completed");
    }
}

/// Locks a task's row until the transaction ends.
async fn lock(pool: &PgPool, id: i64) -> Transaction<'static, Postgres> {
    let mut transaction = pool.begin().await.expect("a transaction");
    let lock = sqlx::query("select from tasks where id = $1 for update").bind(id);
    lock.execute(&mut *transaction).await.expect("the row is locked");
    transaction
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn locked_row_fails_only_its_record(pool: PgPool) {
    let ids = [
        task(&pool, "one").await,
        task(&pool, "locked").await,
        task(&pool, "failed").await,
        task(&pool, "four").await,
    ];
    // A redriven message about a failed task must not be acknowledged while the row is locked.
    execute(
        &pool,
        "update tasks set status = 'failed', settled_at = now() - interval '1 h' where title = 'failed'",
    )
    .await;
    let before = [row(&pool, ids[1]).await, row(&pool, ids[2]).await];
    let locks = [lock(&pool, ids[1]).await, lock(&pool, ids[2]).await];
    let started = Instant::now();
    let failed = run(&pool, &ids.map(message), perform).await;
    assert_eq!(failed.expect("a partial success"), ["m1", "m2"]);
    assert!(
        started.elapsed() < Duration::from_millis(900),
        "{:?}",
        started.elapsed()
    );
    assert_eq!([row(&pool, ids[1]).await, row(&pool, ids[2]).await], before);
    for id in [ids[0], ids[3]] {
        assert_eq!(status(&pool, id).await.0, "completed");
    }

    for lock in locks {
        lock.rollback().await.expect("released");
    }
    assert_eq!(run(&pool, &ids.map(message), perform).await.expect("done"), [""; 0]);
    for id in ids {
        assert_eq!(status(&pool, id).await.0, "completed");
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn briefly_locked_row_costs_no_retry(pool: PgPool) {
    let (one, locked) = (task(&pool, "one").await, task(&pool, "locked").await);
    let proxy = Proxy::start(&pool).await;
    let database = proxy.database(&pool);
    database.ping().await.expect("connected");
    let lock = lock(&pool, locked).await;
    let before = proxy.round_trips();
    let release = async {
        // Preparing the claim is a round trip, running it the next.
        while proxy.round_trips() < before + 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        lock.rollback().await.expect("released");
    };
    let bodies = [message(one), message(locked)];
    let batch = process(&database, event(&bodies), in_30_s(), settings::TASK_PROCESSOR, perform);
    let (processed, ()) = tokio::join!(batch, release);
    assert_eq!(processed.expect("processed").retries, []);
    for id in [one, locked] {
        assert_eq!(
            (status(&pool, id).await.0.as_str(), &row(&pool, id).await["attempts"]),
            ("completed", &json!(1))
        );
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn row_locked_at_settling_fails_only_its_record(pool: PgPool) {
    let (one, locked) = (task(&pool, "one").await, task(&pool, "locked").await);
    let held = std::sync::Mutex::new(None);
    let work = async |task: &Task, _: &_| {
        if task.title.as_str() == "locked" {
            let transaction = lock(&pool, task.id.get()).await;
            *held.lock().expect("not poisoned") = Some(transaction);
        }
        Ok("done".to_owned())
    };
    let failed = run(&pool, &[message(one), message(locked)], work).await;
    assert_eq!(failed.expect("a partial success"), ["m1"]);
    drop(held);
    assert_eq!(status(&pool, one).await, is("completed", "done"));
    assert_eq!(status(&pool, locked).await, is("processing", ""));
}

/// Lambda would end the function, and every record would fail.
#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn rows_locked_at_settling_leave_time_for_response(pool: PgPool) {
    let mut ids = vec![task(&pool, "first").await];
    for _ in 0..4 {
        ids.push(task(&pool, "locked").await);
    }
    let held = std::sync::Mutex::new(Vec::new());
    let work = async |task: &Task, _: &_| {
        if task.title.as_str() == "locked" {
            let transaction = lock(&pool, task.id.get()).await;
            held.lock().expect("not poisoned").push(transaction);
        }
        Ok("done".to_owned())
    };
    let bodies: Vec<String> = ids.iter().copied().map(message).collect();
    let deadline = SystemTime::now() + Duration::from_secs(4);
    let processed = process(
        &database(&pool),
        event(&bodies),
        deadline,
        settings::TASK_PROCESSOR,
        work,
    )
    .await;
    assert!(SystemTime::now() < deadline);
    let retries = processed.expect("a partial success").retries;
    let retries: Vec<String> = retries.into_iter().map(|retry| retry.message_id).collect();
    assert_eq!(retries, ["m1", "m2", "m3", "m4"]);
    drop(held);
    assert_eq!(status(&pool, ids[0]).await, is("completed", "done"));
    assert_eq!(status(&pool, ids[4]).await, is("processing", ""));
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn unknown_status_is_left_alone_and_neighbors_run(pool: PgPool) {
    let (one, newer) = (task(&pool, "one").await, task(&pool, "newer").await);
    execute(&pool, "alter type task_status add value 'archived'").await;
    execute(&pool, "update tasks set status = 'archived' where title = 'newer'").await;
    let before = row(&pool, newer).await;
    let failed = run(&pool, &[message(one), message(newer)], perform).await;
    assert_eq!(failed.expect("a partial success"), ["m1"]);
    assert_eq!(status(&pool, one).await.0, "completed");
    assert_eq!(row(&pool, newer).await, before);
    let report = App::new(&pool).sweep(None).await.expect("swept");
    assert_eq!((report.sent, report.given_up, report.left), (0, 0, 0));
    assert_eq!(row(&pool, newer).await, before);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn past_deadline_fails_batch_before_claim(pool: PgPool) {
    let id = task(&pool, "t").await;
    let before = row(&pool, id).await;
    for seconds in [0, 1, 60, 86_400] {
        let deadline = SystemTime::now() - Duration::from_secs(seconds);
        let event = event(&[message(id)]);
        let outcome = process(&database(&pool), event, deadline, settings::TASK_PROCESSOR, perform).await;
        assert!(matches!(outcome, Err(BatchError::NoTimeLeft)), "{seconds}: {outcome:?}");
        assert_eq!(row(&pool, id).await, before);
    }
    // `cargo lambda watch` reports ten minutes as the time since 1970.
    let unknown = SystemTime::UNIX_EPOCH + Duration::from_secs(600);
    let done = process(
        &database(&pool),
        event(&[message(id)]),
        unknown,
        settings::TASK_PROCESSOR,
        perform,
    )
    .await;
    assert_eq!(done.expect("processed").retries, []);
    assert_eq!(status(&pool, id).await.0, "completed");
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn unreachable_sqs_does_not_fail_batch(pool: PgPool) {
    let good = task(&pool, "t").await;
    let app = App::new(&pool).with_sqs(hanging_sqs().await);
    let event = event(&[message(good), "not a task".to_owned()]);
    let response = app.process(event).await;
    let failures = response.expect("a partial success").batch_item_failures;
    assert_eq!((failures.len(), failures[0].item_identifier.as_str()), (1, "m1"));
    assert_eq!(status(&pool, good).await.0, "completed");
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn retry_delay_doubles_with_every_receive(pool: PgPool) {
    let id = task(&pool, "t").await;
    let fail = async |_: &Task, _: &_| Err(TaskError::Transient("not now".to_owned()));
    for (receive, seconds) in [(1, 2), (2, 4), (3, 8), (4, 16)] {
        let event = event_received(&[message(id)], receive);
        let retries = process(&database(&pool), event, in_30_s(), settings::TASK_PROCESSOR, fail).await;
        let expected = Retry {
            message_id: "m0".to_owned(),
            receipt_handle: Some("AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a".to_owned()),
            seconds,
        };
        assert_eq!(retries.expect("processed").retries, [expected]);
        assert_eq!(row(&pool, id).await["attempts"], receive);
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn later_message_reruns_failed_task(pool: PgPool) {
    let id = task(&pool, "t").await;
    let failed = "update tasks set status = 'failed', result = 'it broke', attempts = 5, settled_at = now()";
    execute(&pool, failed).await;
    let count = AtomicUsize::new(0);
    let work = async |task: &Task, _: &_| {
        assert_eq!((task.attempts, &task.result), (1, &None), "the task starts afresh");
        count.fetch_add(1, Ordering::SeqCst);
        Ok("done".to_owned())
    };
    let before = row(&pool, id).await;
    let duplicate = event_received(&[message(id)], 1);
    let done = process(&database(&pool), duplicate, in_30_s(), settings::TASK_PROCESSOR, work).await;
    assert_eq!(done.expect("acknowledged").retries, []);
    assert_eq!((row(&pool, id).await, count.load(Ordering::SeqCst)), (before, 0));

    let in_a_second = milliseconds_since_1970() + 1000;
    // The second message finds the task completed.
    for _ in 0..2 {
        let redriven = event_sent(&[message(id)], 1, in_a_second);
        let done = process(&database(&pool), redriven, in_30_s(), settings::TASK_PROCESSOR, work).await;
        assert_eq!(done.expect("acknowledged").retries, []);
        assert_eq!(status(&pool, id).await, is("completed", "done"));
    }
    assert_eq!(count.into_inner(), 1);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn last_receive_fails_task_and_dead_letters_message(pool: PgPool) {
    let (failing, good) = (task(&pool, "failing").await, task(&pool, "good").await);
    let work = async |task: &Task, _: &_| match task.title.as_str() {
        "failing" => Err(TaskError::Transient("still down".to_owned())),
        _ => Ok("done".to_owned()),
    };
    for (receive, expected) in [(4, is("pending", "")), (5, is("failed", "still down"))] {
        let event = event_received(&[message(failing), message(good)], receive);
        let retries = process(&database(&pool), event, in_30_s(), settings::TASK_PROCESSOR, work).await;
        assert_eq!(message_ids(retries.expect("processed")), ["m0"]);
        assert_eq!(status(&pool, failing).await, expected);
        assert_eq!(status(&pool, good).await, is("completed", "done"));
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn missing_message_id_fails_batch_before_claim(pool: PgPool) {
    let id = task(&pool, "t").await;
    for missing in [json!(null), json!("")] {
        let mut event = serde_json::to_value(event(&[message(id), message(id)])).expect("serializable");
        event["Records"][1]["messageId"] = missing;
        let event = serde_json::from_value(event).expect("an SQS event");
        let outcome = process(&database(&pool), event, in_30_s(), settings::TASK_PROCESSOR, perform).await;
        assert!(matches!(outcome, Err(BatchError::NoMessageId)), "{outcome:?}");
        assert_eq!(status(&pool, id).await, is("pending", ""));
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn unreachable_database_fails_batch(pool: PgPool) {
    let id = task(&pool, "t").await;
    let outcome = process(
        &database_that_is_down(),
        event(&[message(id)]),
        in_30_s(),
        settings::TASK_PROCESSOR,
        perform,
    )
    .await;
    assert!(matches!(outcome, Err(BatchError::Store(_))), "{outcome:?}");
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn duplicate_messages_run_task_once(pool: PgPool) {
    let id = task(&pool, "t").await;
    let performed = AtomicUsize::new(0);
    let count = async |_: &Task, _: &_| {
        performed.fetch_add(1, Ordering::SeqCst);
        Ok("done".to_owned())
    };
    // Twice in one batch, and again in a later one.
    assert_eq!(
        run(&pool, &[message(id), message(id)], count).await.expect("done"),
        [""; 0]
    );
    assert_eq!(run(&pool, &[message(id)], count).await.expect("done"), [""; 0]);
    assert_eq!(performed.load(Ordering::SeqCst), 1);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn two_workers_with_one_batch_run_tasks_once(pool: PgPool) {
    for _ in 0..20 {
        let bodies = [message(task(&pool, "a").await), message(task(&pool, "b").await)];
        let performed = AtomicUsize::new(0);
        let count = async |_: &Task, _: &_| {
            performed.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            Ok("done".to_owned())
        };
        let (one, two) = tokio::join!(run(&pool, &bodies, count), run(&pool, &bodies, count));
        assert!(one.is_ok() || two.is_ok(), "{one:?} {two:?}");
        assert_eq!(performed.into_inner(), 2);
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn records_of_batch_run_concurrently(pool: PgPool) {
    let mut bodies = Vec::new();
    for _ in 0..10 {
        bodies.push(message(task(&pool, "t").await));
    }
    // Opens only once all ten records run at the same time.
    let barrier = Barrier::new(10);
    let meet = async |_: &Task, _: &_| {
        barrier.wait().await;
        Ok("met".to_owned())
    };
    let batch = tokio::time::timeout(Duration::from_secs(10), run(&pool, &bodies, meet));
    assert_eq!(
        batch.await.expect("all records run concurrently").expect("done"),
        [""; 0]
    );
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn timed_out_record_is_retried_and_others_settle(pool: PgPool) {
    let (slow, fast) = (task(&pool, "slow").await, task(&pool, "fast").await);
    let work = async |task: &Task, _: &_| match task.title.as_str() {
        "slow" => std::future::pending().await,
        _ => Ok("done".to_owned()),
    };
    // A tenth of it is reserved for settling, which can be slow on a busy machine.
    let deadline = SystemTime::now() + Duration::from_secs(4);
    let event = event(&[message(slow), message(fast)]);
    let retries = process(&database(&pool), event, deadline, settings::TASK_PROCESSOR, work).await;
    assert!(SystemTime::now() < deadline, "the outcomes were stored too late");
    assert_eq!(message_ids(retries.expect("processed")), ["m0"]);
    assert_eq!(status(&pool, slow).await, is("pending", ""));
    assert_eq!(status(&pool, fast).await, is("completed", "done"));
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn concurrent_change_wins_over_outcome(pool: PgPool) {
    let (deleted, changed) = (task(&pool, "deleted").await, task(&pool, "changed").await);
    let interfere = async |task: &Task, _: &_| {
        match task.title.as_str() {
            "deleted" => execute(&pool, "delete from tasks where title = 'deleted'").await,
            _ => {
                let change =
                    "update tasks set status = 'failed', result = 'manual', lease_expires_at = null, settled_at = now()
                              where title = 'changed'";
                execute(&pool, change).await;
            }
        }
        Ok("too late".to_owned())
    };
    assert_eq!(
        run(&pool, &[message(deleted), message(changed)], interfere)
            .await
            .expect("done"),
        [""; 0]
    );
    assert_eq!(row(&pool, deleted).await, Value::Null);
    assert_eq!(status(&pool, changed).await, is("failed", "manual"));
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn lost_lease_cannot_overwrite_result(pool: PgPool) {
    let id = task(&pool, "t").await;
    let (database, ids) = (database(&pool), [TaskId::try_from(id).expect("an id")]);
    let requests = ids.map(|id| ClaimRequest { id, sent_at: None });
    let claim = Claim {
        requests: &requests,
        lease: Duration::from_secs(60),
    };
    let token = async || match database.run(&claim).await.expect("claimed").remove(&ids[0]) {
        Some(ClaimOutcome::Claimed(claimed)) => Some(claimed.fencing_token),
        Some(ClaimOutcome::Busy) => None,
        other => panic!("{other:?}"),
    };
    let outcome = |fencing_token, result: &str| Outcome {
        id: ids[0],
        fencing_token,
        status: Status::Completed,
        result: Some(result.to_owned()),
    };

    let first = token().await.expect("free");
    assert_eq!(token().await, None, "the lease is still valid");
    execute(&pool, "update tasks set lease_expires_at = now()").await;
    let second = token().await.expect("the lease has expired");
    assert!(second > first);

    assert_eq!(database.run(&Settle(&[outcome(first, "late")])).await.expect("run"), []);
    assert_eq!(status(&pool, id).await.0, "processing");
    assert_eq!(
        database.run(&Settle(&[outcome(second, "right")])).await.expect("run"),
        ids
    );
    assert_eq!(
        database.run(&Settle(&[outcome(first, "later")])).await.expect("run"),
        []
    );
    assert_eq!(status(&pool, id).await, is("completed", "right"));
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn batch_of_any_size_is_two_statements(pool: PgPool) {
    let proxy = Proxy::start(&pool).await;
    let database = proxy.database(&pool);
    let mut used = Vec::new();
    // The first batch also connects and prepares the statements.
    for size in [1, 1, 10, 1000] {
        let insert = format!("insert into tasks (title) select 't' from generate_series(1, {size}) returning id");
        let ids: Vec<i64> = sqlx::query_scalar(&insert).fetch_all(&pool).await.expect("inserted");
        let bodies: Vec<String> = ids.into_iter().map(message).collect();
        let before = proxy.round_trips();
        process(&database, event(&bodies), in_30_s(), settings::TASK_PROCESSOR, perform)
            .await
            .expect("done");
        used.push(proxy.round_trips() - before);
    }
    assert_eq!(used[1..], [2, 2, 2]);
}
