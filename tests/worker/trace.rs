//! A trace from the request that creates a task to the batch that completes it.

use std::time::{Duration, SystemTime};

use aws_lambda_events::sqs::{SqsEvent, SqsMessage};
use serde_json::{Value, json};
use shared::trace::TraceHeader;
use sqlx::PgPool;
use task_processor::{perform, process};
use tokio_util::sync::CancellationToken;

use crate::support::{App, LogLines, Request, client_config, database, events, execute, scripted_sqs, settings, task};

const TRACE_ID: &str = "1-5759e988-bd862e3fe1be46a994272793";
const HEADER: &str = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1;Lineage=1:2345:0";
const OTHER_ID: &str = "1-67891234-12456789abcdef012345678a";
const OTHER_HEADER: &str = "Root=1-67891234-12456789abcdef012345678a;Parent=53995c3f42cd8ad8;Sampled=0";

fn in_30_s() -> SystemTime {
    SystemTime::now() + Duration::from_secs(30)
}

fn create(app: &App) -> Request {
    app.post("/tasks", json!({"title": "t"}))
}

/// A message's trace header.
fn header(message: &SqsMessage) -> Option<&str> {
    message.attributes.get("AWSTraceHeader").map(String::as_str)
}

/// Each log line's message and trace id, sorted.
fn messages_and_traces(lines: &[Value]) -> Vec<(&str, Option<&str>)> {
    let text = lines
        .iter()
        .map(|line| (line["message"].as_str(), line["traceId"].as_str()));
    sorted(text.map(|(message, trace)| (message.expect("a message"), trace)))
}

fn sorted<T: Ord>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut items: Vec<T> = items.into_iter().collect();
    items.sort_unstable();
    items
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn trace_id_reaches_message_and_logs(pool: PgPool) {
    let app = App::new(&pool);
    let queue = app.queue().await;
    let (lines, _guard) = LogLines::start();

    let response = create(&app).traced(HEADER).await;
    assert_eq!(response.status(), 201);
    assert_eq!(messages_and_traces(&lines.take()), [("request served", Some(TRACE_ID))]);

    let event = queue.receive_as_event(1).await;
    assert_eq!(
        header(&event.records[0]),
        Some(HEADER),
        "the header differs from Lambda's"
    );
    let done = app.process(event).await;
    assert!(done.expect("done").batch_item_failures.is_empty());
    let logged = lines.take();
    assert_eq!(
        messages_and_traces(&logged),
        sorted([("batch processed", None), ("task completed", Some(TRACE_ID))])
    );
    let completed = logged.iter().find(|line| line["message"] == "task completed");
    assert_eq!(completed.expect("logged")["taskId"], response.json()["id"]);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn process_and_keyed_create_are_traced(pool: PgPool) {
    let app = App::new(&pool);
    let queue = app.queue().await;
    let created = create(&app).header("idempotency-key", "k").traced(HEADER).await;
    assert_eq!(header(&queue.receive_as_event(1).await.records[0]), Some(HEADER));
    let process = app.post(format!("/tasks/{}/process", created.id()), None);
    assert_eq!(process.traced(OTHER_HEADER).await.status(), 202);
    assert_eq!(header(&queue.receive_as_event(1).await.records[0]), Some(OTHER_HEADER));
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn missing_or_malformed_trace_is_ignored(pool: PgPool) {
    let app = App::new(&pool);
    let queue = app.queue().await;
    let (lines, _guard) = LogLines::start();
    for request in [
        create(&app),
        create(&app).traced(""),
        create(&app).traced("Root=1-5759e988;Parent=\u{e9}"),
        // A header that the client sends is not trusted.
        create(&app).header("x-amzn-trace-id", HEADER),
    ] {
        assert_eq!(request.await.status(), 201);
        assert_eq!(messages_and_traces(&lines.take()), [("request served", None)]);
        let event = queue.receive_as_event(1).await;
        assert_eq!(header(&event.records[0]), None);
        let done = app.process(event).await;
        assert!(done.expect("done").batch_item_failures.is_empty());
        assert_eq!(
            messages_and_traces(&lines.take()),
            [("batch processed", None), ("task completed", None)]
        );
    }
}

/// An event with these messages, each a second after the one before.
fn event(messages: &[(String, &str)]) -> SqsEvent {
    let record = |(number, (body, header)): (usize, &(String, &str))| {
        let mut record = events::sqs_sample();
        record["messageId"] = json!(format!("m{number}"));
        record["body"] = json!(body);
        record["attributes"]["SentTimestamp"] = json!((1_795_359_600_000_u64 + number as u64 * 1000).to_string());
        record["attributes"]["AWSTraceHeader"] = json!(header);
        record
    };
    let records: Vec<Value> = messages.iter().enumerate().map(record).collect();
    serde_json::from_value(json!({"Records": records})).expect("an SQS event")
}

fn message(id: i64) -> String {
    json!({"task_id": id}).to_string()
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn latest_record_of_task_determines_trace(pool: PgPool) {
    let (twice, lost) = (task(&pool, "twice").await, task(&pool, "lost").await);
    let messages = [
        (message(twice), OTHER_HEADER),
        (message(twice), HEADER),
        (message(lost), OTHER_HEADER),
        ("not a task".to_owned(), HEADER),
        (message(1_000_000), "Root=nonsense"),
    ];
    let (lines, _guard) = LogLines::start();
    let work = async |task: &shared::domain::Task, _: &_| {
        if task.title.as_str() == "lost" {
            execute(
                &pool,
                "update tasks set fencing_token = fencing_token + 1 where title = 'lost'",
            )
            .await;
        }
        perform(task, &CancellationToken::new()).await
    };
    let processed = process(
        &database(&pool),
        event(&messages),
        in_30_s(),
        settings::TASK_PROCESSOR,
        work,
    )
    .await;
    assert_eq!(processed.expect("processed").retries.len(), 1);
    let logged = lines.take();
    assert_eq!(
        messages_and_traces(&logged),
        sorted([
            ("lease lost, outcome discarded", Some(OTHER_ID)),
            ("malformed message", Some(TRACE_ID)),
            (
                "nothing to do: the task is completed, failed, cancelled or deleted",
                None
            ),
            ("task completed", Some(TRACE_ID)),
            ("task completed", Some(OTHER_ID)),
        ])
    );
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn resent_message_has_trace_of_sweep(pool: PgPool) {
    let (url, requests) = scripted_sqs(|_, _| json!({"Successful": [], "Failed": []})).await;
    let app = App::new(&pool).with_sqs(client_config().endpoint_url(&url));
    for _ in 0..2 {
        execute(
            &pool,
            "insert into tasks (title, updated_at) values ('t', now() - interval '1 min')",
        )
        .await;
    }
    let (lines, _guard) = LogLines::start();
    let attribute = json!({"AWSTraceHeader": {"DataType": "String", "StringValue": HEADER}});
    for (trace, expected) in [(TraceHeader::parse(HEADER), attribute), (None, Value::Null)] {
        let swept = app.sweep(trace.as_ref()).await;
        assert_eq!(swept.expect("swept").refused, 2);
        let (action, request) = requests.lock().expect("not poisoned").pop().expect("a request");
        let entries = request["Entries"].as_array().expect("entries");
        let sent: Vec<&Value> = entries.iter().map(|entry| &entry["MessageSystemAttributes"]).collect();
        assert_eq!((action.as_str(), sent), ("SendMessageBatch", vec![&expected; 2]));
        let trace_id = trace.as_ref().map(TraceHeader::trace_id);
        assert_eq!(messages_and_traces(&lines.take()), [("sweep done", trace_id)]);
    }
}
