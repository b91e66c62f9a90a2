//! One trace from the request that creates a task to the batch that completes it.

use std::time::{Duration, SystemTime};

use aws_lambda_events::sqs::{SqsEvent, SqsMessage};
use queue::TaskQueue;
use serde_json::{Value, json};
use shared::trace::TraceHeader;
use sqlx::PgPool;
use task_processor::{Settings, handle, perform, process};
use task_reconciler::sweep;

use crate::support::{Call, LogLines, NO_METRICS, TestQueue, client_config, database, execute, sqs_that_answers, task};

const TRACE_ID: &str = "1-5759e988-bd862e3fe1be46a994272793";
const HEADER: &str = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1;Lineage=1:2345:0";
const OTHER_ID: &str = "1-67891234-12456789abcdef012345678a";
const OTHER_HEADER: &str = "Root=1-67891234-12456789abcdef012345678a;Parent=53995c3f42cd8ad8;Sampled=0";

const SETTINGS: Settings = Settings {
    max_receive_count: 5,
    retry_delay_seconds: 2,
};

const CREATE: create_task::Settings = create_task::Settings {
    idempotency_key_seconds: 60,
};

fn in_30_s() -> SystemTime {
    SystemTime::now() + Duration::from_secs(30)
}

fn create() -> Call {
    Call::new("POST", "/tasks").json(&json!({"title": "t"}))
}

/// The trace header that SQS has for a message.
fn header(message: &SqsMessage) -> Option<&str> {
    message.attributes.get("AWSTraceHeader").map(String::as_str)
}

/// What each line says, and of which trace; lines in no particular order.
fn said(lines: &[Value]) -> Vec<(&str, Option<&str>)> {
    let mut said: Vec<_> = lines
        .iter()
        .map(|line| (line["message"].as_str().expect("a message"), line["traceId"].as_str()))
        .collect();
    said.sort_unstable();
    said
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn from_the_request_to_the_batch_every_message_and_every_line_about_a_task_names_its_trace(pool: PgPool) {
    let (database, queue) = (database(&pool), TestQueue::create().await);
    let sender = queue.sender();
    let (lines, _guard) = LogLines::start();

    let answer = create()
        .traced(HEADER)
        .send(|request| create_task::handle(&database, &sender, &NO_METRICS, &CREATE, request))
        .await;
    assert_eq!(answer.status, 201);
    assert_eq!(said(&lines.take()), [("request served", Some(TRACE_ID))]);

    let event = queue.receive_as_event(1).await;
    assert_eq!(header(&event.records[0]), Some(HEADER), "as Lambda gave it");
    let done = handle(&database, &sender, &NO_METRICS, SETTINGS, event, in_30_s()).await;
    assert!(done.expect("done").batch_item_failures.is_empty());
    let logged = lines.take();
    assert_eq!(
        said(&logged),
        [("batch processed", None), ("task completed", Some(TRACE_ID))]
    );
    let completed = logged.iter().find(|line| line["message"] == "task completed");
    assert_eq!(completed.expect("logged")["taskId"], answer.json()["id"]);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn processing_again_and_with_a_key_are_traced_too(pool: PgPool) {
    let (database, queue) = (database(&pool), TestQueue::create().await);
    let sender = queue.sender();
    let created = create()
        .header("idempotency-key", "k")
        .traced(HEADER)
        .send(|request| create_task::handle(&database, &sender, &NO_METRICS, &CREATE, request))
        .await;
    assert_eq!(header(&queue.receive_as_event(1).await.records[0]), Some(HEADER));
    let answer = Call::task("POST", &created.json()["id"], "/process")
        .traced(OTHER_HEADER)
        .send(|request| process_task::handle(&database, &sender, request))
        .await;
    assert_eq!(answer.status, 202);
    assert_eq!(header(&queue.receive_as_event(1).await.records[0]), Some(OTHER_HEADER));
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn without_a_trace_or_with_one_that_is_none_everything_works_and_names_none(pool: PgPool) {
    let (database, queue) = (database(&pool), TestQueue::create().await);
    let sender = queue.sender();
    let (lines, _guard) = LogLines::start();
    let calls = [
        create(),
        create().traced(""),
        create().traced("Root=1-5759e988;Parent=\u{e9}"),
        // What a client says of itself is not what Lambda says.
        create().header("x-amzn-trace-id", HEADER),
    ];
    for call in calls {
        let answer = call
            .send(|request| create_task::handle(&database, &sender, &NO_METRICS, &CREATE, request))
            .await;
        assert_eq!(answer.status, 201);
        assert_eq!(said(&lines.take()), [("request served", None)]);
        let event = queue.receive_as_event(1).await;
        assert_eq!(header(&event.records[0]), None);
        let done = handle(&database, &sender, &NO_METRICS, SETTINGS, event, in_30_s()).await;
        assert!(done.expect("done").batch_item_failures.is_empty());
        assert_eq!(
            said(&lines.take()),
            [("batch processed", None), ("task completed", None)]
        );
    }
}

/// An event with these messages, each a second after the one before.
fn event(messages: &[(String, &str)]) -> SqsEvent {
    let record = |(number, (body, header)): (usize, &(String, &str))| {
        let mut record: Value = serde_json::from_str(include_str!("../events/sqs.json")).expect("JSON");
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
async fn each_record_has_its_own_trace_and_of_several_about_a_task_the_latest_counts(pool: PgPool) {
    let (twice, lost) = (task(&pool, "twice").await, task(&pool, "lost").await);
    let messages = [
        (message(twice), OTHER_HEADER),
        (message(twice), HEADER),
        (message(lost), OTHER_HEADER),
        ("not a task".to_owned(), HEADER),
        (message(1_000_000), "Root=nonsense"),
    ];
    let (lines, _guard) = LogLines::start();
    let work = async |task: &shared::domain::Task| {
        if task.title.as_str() == "lost" {
            execute(
                &pool,
                "update tasks set fencing_token = fencing_token + 1 where title = 'lost'",
            )
            .await;
        }
        perform(task).await
    };
    let processed = process(&database(&pool), event(&messages), in_30_s(), SETTINGS, work).await;
    assert_eq!(processed.expect("processed").retries.len(), 1);
    let logged = lines.take();
    assert_eq!(
        said(&logged),
        [
            ("lost the task while working on it", Some(OTHER_ID)),
            ("not a task message", Some(TRACE_ID)),
            ("nothing to do: completed, failed or deleted", None),
            ("task completed", Some(TRACE_ID)),
            ("task completed", Some(OTHER_ID)),
        ]
    );
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn what_the_reconciler_sends_belongs_to_the_trace_of_its_sweep(pool: PgPool) {
    let (url, asked) = sqs_that_answers(|_, _| json!({"Successful": [], "Failed": []})).await;
    let queue = TaskQueue::new(client_config().endpoint_url(&url), format!("{url}/1/queue"));
    let settings = task_reconciler::Settings {
        lost_after_seconds: 3600,
        max_attempts: 10,
        sweep_limit: 10,
    };
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
        let swept = sweep(&database(&pool), &queue, &settings, trace.as_ref()).await;
        assert_eq!(swept.expect("swept").refused, 2);
        let (action, request) = asked.lock().expect("not poisoned").pop().expect("a request");
        let entries = request["Entries"].as_array().expect("entries");
        let sent: Vec<&Value> = entries.iter().map(|entry| &entry["MessageSystemAttributes"]).collect();
        assert_eq!((action.as_str(), sent), ("SendMessageBatch", vec![&expected; 2]));
        let trace_id = trace.as_ref().map(TraceHeader::trace_id);
        assert_eq!(said(&lines.take()), [("sweep done", trace_id)]);
    }
}
