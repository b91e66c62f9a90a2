//! The log lines from which CloudWatch extracts metrics.

use std::{
    io,
    time::{Duration, SystemTime},
};

use aws_lambda_events::sqs::SqsEvent;
use serde_json::{Value, json};
use sqlx::PgPool;
use task_metrics::{Batch, Metrics};
use task_processor::{Settings, TaskError, handle, process};

use crate::support::{App, MetricLines, TestQueue, database, events, execute, refusing_sqs, settings, task};

/// The metadata of a line with these metrics: name and unit.
fn metadata(metrics: &[(&str, &str)]) -> Value {
    let metrics: Vec<Value> = metrics
        .iter()
        .map(|(name, unit)| json!({"Name": name, "Unit": unit}))
        .collect();
    json!({"CloudWatchMetrics": [{"Namespace": "task-api", "Dimensions": [[]], "Metrics": metrics}]})
}

fn all() -> Value {
    metadata(&[
        ("BatchSize", "Count"),
        ("TasksCompleted", "Count"),
        ("TasksFailed", "Count"),
        ("ProcessingTime", "Milliseconds"),
        ("QueueLatency", "Milliseconds"),
    ])
}

fn times() -> Value {
    metadata(&[("ProcessingTime", "Milliseconds"), ("QueueLatency", "Milliseconds")])
}

#[test]
fn metric_line_has_at_most_100_values() {
    let milliseconds = |count: u64| (1..=count).map(Duration::from_millis).collect::<Vec<_>>();
    let batch = |processing_times, queue_latencies| Batch {
        size: 250,
        completed: 200,
        failed: 1,
        processing_times: milliseconds(processing_times),
        queue_latencies: milliseconds(queue_latencies),
    };
    let values = |from: u64, to: u64| json!({"Values": (from..=to).collect::<Vec<_>>(), "Counts": vec![1; (to + 1 - from) as usize]});
    let lines = MetricLines::default();
    let metrics = lines.metrics("task-api");

    metrics.batch(&batch(201, 200));
    assert_eq!(
        lines.take(),
        [
            json!({
                "_aws": all(), "BatchSize": 250, "TasksCompleted": 200, "TasksFailed": 1,
                "ProcessingTime": values(1, 100), "QueueLatency": values(1, 100),
            }),
            json!({"_aws": times(), "ProcessingTime": values(101, 200), "QueueLatency": values(101, 200)}),
            json!({"_aws": metadata(&[("ProcessingTime", "Milliseconds")]), "ProcessingTime": 201}),
        ]
    );
    metrics.batch(&batch(100, 101));
    let lines_of_two = lines.take();
    assert_eq!(lines_of_two.len(), 2);
    assert_eq!(
        lines_of_two[1],
        json!({"_aws": metadata(&[("QueueLatency", "Milliseconds")]), "QueueLatency": 101})
    );
}

#[test]
fn empty_batch_counts_zero_without_times() {
    let lines = MetricLines::default();
    lines.metrics("task-api").batch(&Batch::default());
    let counts = [
        ("BatchSize", "Count"),
        ("TasksCompleted", "Count"),
        ("TasksFailed", "Count"),
    ];
    assert_eq!(
        lines.take(),
        [json!({"_aws": metadata(&counts), "BatchSize": 0, "TasksCompleted": 0, "TasksFailed": 0})]
    );
}

#[test]
fn fractions_of_milliseconds_are_preserved() {
    let lines = MetricLines::default();
    let batch = Batch {
        processing_times: vec![Duration::from_micros(1500), Duration::ZERO],
        ..Batch::default()
    };
    lines.metrics("a \"b\"\n").batch(&batch);
    let line = lines.take().remove(0);
    assert_eq!(line["ProcessingTime"], json!({"Values": [1.5, 0], "Counts": [1, 1]}));
    assert_eq!(line["_aws"]["CloudWatchMetrics"][0]["Namespace"], "a \"b\"\n");
}

#[test]
fn empty_namespace_writes_nothing() {
    let lines = MetricLines::default();
    let metrics = lines.metrics("");
    metrics.task_created();
    metrics.batch(&Batch::default());
    assert!(lines.take().is_empty());
}

#[test]
fn closed_stdout_is_ignored() {
    struct Closed;
    impl io::Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    Metrics::new("task-api".to_owned(), Closed).task_created();
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn only_created_tasks_are_counted(pool: PgPool) {
    let lines = MetricLines::default();
    let app = || App::new(&pool).with_metrics(lines.metrics("task-api"));
    // A stored task counts as created, even if its message was not sent.
    let apps = [app(), app().with_sqs(refusing_sqs().await)];
    let created = json!({"_aws": metadata(&[("TasksCreated", "Count")]), "TasksCreated": 1});
    let calls = [
        ("", json!({"title": "t"}), 201, true),
        ("key", json!({"title": "t"}), 201, true),
        ("key", json!({"title": "t"}), 201, false),
        ("key", json!({"title": "another"}), 422, false),
        ("", json!({"title": ""}), 422, false),
    ];
    for (app, prefix) in apps.iter().zip(["a", "b"]) {
        for (key, body, status, counts) in &calls {
            let request = app.post("/tasks", body.clone());
            let request = match *key {
                "" => request,
                key => request.header("idempotency-key", &format!("{prefix}-{key}")),
            };
            let response = request.await;
            assert_eq!(response.status(), *status, "{response:?}");
            let expected = if *counts { vec![created.clone()] } else { vec![] };
            assert_eq!(lines.take(), expected, "{key} {body}");
        }
    }
}

fn in_30_s() -> SystemTime {
    SystemTime::now() + Duration::from_secs(30)
}

/// Messages with these bodies, sent that many milliseconds ago.
fn event(messages: &[(String, u64)]) -> SqsEvent {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.expect("after 1970").as_millis() as u64;
    let record = |(number, (body, ago)): (usize, &(String, u64))| {
        let mut record = events::sqs_sample();
        record["messageId"] = json!(format!("m{number}"));
        record["body"] = json!(body);
        record["attributes"]["SentTimestamp"] = json!((now - ago).to_string());
        record
    };
    let records: Vec<Value> = messages.iter().enumerate().map(record).collect();
    serde_json::from_value(json!({"Records": records})).expect("an SQS event")
}

fn message(id: i64) -> String {
    json!({"task_id": id}).to_string()
}

/// The values of a metric that has several, sorted.
fn sorted(metric: &Value) -> Vec<f64> {
    let values = metric["Values"].as_array().into_iter().flatten();
    let mut values: Vec<f64> = values.filter_map(Value::as_f64).collect();
    assert_eq!(metric["Counts"], json!(vec![1; values.len()]));
    values.sort_by(f64::total_cmp);
    values
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn batch_counts_messages_and_outcomes(pool: PgPool) {
    let lines = MetricLines::default();
    let (database, queue) = (database(&pool), TestQueue::create().await.sender());
    let mut ids = Vec::new();
    for description in ["one", "two", "fail: invalid", "retry: unavailable", "already completed"] {
        let id = task(&pool, "t").await;
        execute(
            &pool,
            &format!("update tasks set description = '{description}' where id = {id}"),
        )
        .await;
        ids.push(id);
    }
    execute(
        &pool,
        "update tasks set status = 'completed', settled_at = now() where description = 'already completed'",
    )
    .await;
    let mut messages: Vec<(String, u64)> = ids.iter().map(|id| (message(*id), 60_000)).collect();
    // A second, later message about the first task.
    messages.push((message(ids[0]), 30_000));
    messages.push(("not a task".to_owned(), 60_000));

    let metrics = lines.metrics("task-api");
    let process = || {
        let batch = event(&messages);
        handle(&database, &queue, &metrics, settings::TASK_PROCESSOR, batch, in_30_s())
    };
    let response = process().await;
    assert_eq!(response.expect("a partial success").batch_item_failures.len(), 2);
    let mut written = lines.take();
    let processing_times = sorted(&written[0]["ProcessingTime"].take());
    assert_eq!(processing_times.len(), 4, "the completed task ran again");
    assert!(
        processing_times.iter().all(|time| (0.0..10_000.0).contains(time)),
        "{processing_times:?}"
    );
    let queue_latencies = sorted(&written[0]["QueueLatency"].take());
    let seconds: Vec<u64> = queue_latencies
        .iter()
        .map(|latency| *latency as u64 / 10_000 * 10)
        .collect();
    assert_eq!(seconds, [30, 60, 60, 60]);
    let rest = json!({
        "_aws": all(), "BatchSize": 7, "TasksCompleted": 2, "TasksFailed": 1,
        "ProcessingTime": null, "QueueLatency": null,
    });
    assert_eq!(written, [rest]);

    // The same batch again: only the task to be retried is claimed.
    let again = process().await;
    assert!(again.is_ok());
    let written = lines.take().remove(0);
    assert_eq!(
        (
            &written["BatchSize"],
            &written["TasksCompleted"],
            &written["TasksFailed"]
        ),
        (&json!(7), &json!(0), &json!(0))
    );
    assert!(
        written["ProcessingTime"].is_number() && written["QueueLatency"].is_number(),
        "{written}"
    );
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn final_failures_count_and_lost_leases_do_not(pool: PgPool) {
    let (lost, last) = (task(&pool, "lost").await, task(&pool, "last").await);
    let work = async |task: &shared::domain::Task, _: &_| match task.title.as_str() {
        "lost" => {
            execute(
                &pool,
                "update tasks set fencing_token = fencing_token + 1 where title = 'lost'",
            )
            .await;
            Ok("too late".to_owned())
        }
        _ => Err(TaskError::Transient("still down".to_owned())),
    };
    let settings = Settings {
        max_receive_count: 1,
        ..settings::TASK_PROCESSOR
    };
    // Sent in the future, as if SQS's clock were ahead.
    let mut event = event(&[(message(lost), 0), (message(last), 0)]);
    for record in &mut event.records {
        record
            .attributes
            .insert("SentTimestamp".to_owned(), "99999999999999".to_owned());
    }
    let processed = process(&database(&pool), event, in_30_s(), settings, work).await;
    let metrics = processed.expect("processed").metrics;
    let expected = Batch {
        size: 2,
        completed: 0,
        failed: 1,
        processing_times: metrics.processing_times.clone(),
        queue_latencies: vec![Duration::ZERO; 2],
    };
    assert_eq!((metrics.processing_times.len(), &metrics), (2, &expected));
}
