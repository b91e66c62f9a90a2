//! Operations on the dead-letter queue: listing and redriving its messages.

use std::cell::RefCell;

use queue::DeadLetterQueue;
use serde_json::{Value, json};

use crate::support::{TestQueue, client_config, scripted_sqs};

fn bodies(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("body {number}")).collect()
}

#[tokio::test]
async fn list_shows_every_message_and_deletes_none() {
    let (source, dead) = (TestQueue::create().await, TestQueue::create().await);
    let letters = dead.as_dead_letter_queue_of(&source);
    assert_eq!(letters.list().await.expect("listed"), []);
    dead.send(&bodies(23)).await;
    for _ in 0..2 {
        let listed = letters.list().await.expect("listed");
        assert!(listed.iter().all(|letter| letter.sent_at.is_some()), "{listed:?}");
        assert!(listed.is_sorted_by_key(|letter| letter.sent_at), "{listed:?}");
        let mut found: Vec<String> = listed.into_iter().map(|letter| letter.body).collect();
        found.sort_by_key(|body| body.len());
        assert_eq!(found.len(), 23);
        assert!(bodies(23).iter().all(|body| found.contains(body)), "{found:?}");
    }
}

#[tokio::test]
async fn redrive_moves_messages_with_bodies() {
    let (source, dead) = (TestQueue::create().await, TestQueue::create().await);
    let letters = dead.as_dead_letter_queue_of(&source);
    assert_eq!(letters.redrive(|_| ()).await.expect("nothing to do"), 0);
    dead.send(&bodies(12)).await;
    letters.list().await.expect("listed");

    let progress = RefCell::new(Vec::new());
    let moved = letters.redrive(|moved| progress.borrow_mut().push(moved)).await;
    assert_eq!(moved.expect("moved"), 12);
    assert_eq!(progress.take().last(), Some(&12));
    let mut arrived = source.bodies().await;
    arrived.sort();
    let mut expected = bodies(12);
    expected.sort();
    assert_eq!(arrived, expected);
    assert_eq!(dead.bodies().await, [""; 0]);
}

/// Redrives against an SQS that returns these responses; returns the outcome and the actions it
/// received.
async fn redrive(
    respond: impl Fn(&str, usize) -> Value + Send + Sync + 'static,
) -> (Result<usize, String>, Vec<String>) {
    let (url, received) = scripted_sqs(respond).await;
    let letters = DeadLetterQueue::new(
        client_config().endpoint_url(&url),
        format!("{url}/1/dead"),
        format!("{url}/1/source"),
    );
    let moved = letters.redrive(|_| ()).await;
    let moved = moved.map_err(|error| shared::telemetry::chain(&error));
    let received = received.lock().expect("not poisoned");
    (moved, received.iter().map(|(action, _)| action.clone()).collect())
}

fn move_task(status: &str) -> Value {
    json!({"Results": [{"Status": status, "ApproximateNumberOfMessagesMoved": 7, "FailureReason": "AccessDenied"}]})
}

#[tokio::test]
async fn aws_redrive_is_started_and_followed() {
    let (moved, actions) = redrive(|action, times| match (action, times) {
        ("GetQueueAttributes", _) => json!({"Attributes": {"QueueArn": "arn:aws:sqs:us-east-1:1:dead"}}),
        ("StartMessageMoveTask", _) => json!({"TaskHandle": "t"}),
        ("ListMessageMoveTasks", 1) => move_task("RUNNING"),
        _ => move_task("COMPLETED"),
    })
    .await;
    assert_eq!(moved, Ok(7));
    let follow = "ListMessageMoveTasks";
    assert_eq!(actions, ["GetQueueAttributes", "StartMessageMoveTask", follow, follow]);
}

/// Without a destination, SQS cannot move messages that were sent to the dead-letter queue directly.
#[tokio::test]
async fn redrive_names_source_and_destination() {
    let (url, received) = scripted_sqs(|action, _| match action {
        "GetQueueAttributes" => json!({"Attributes": {"QueueArn": "arn:aws:sqs:eu-west-1:123:dead"}}),
        "StartMessageMoveTask" => json!({"TaskHandle": "t"}),
        _ => move_task("COMPLETED"),
    })
    .await;
    let (dead, source) = (format!("{url}/123/dead"), format!("{url}/123/source"));
    let letters = DeadLetterQueue::new(client_config().endpoint_url(&url), dead, source);
    assert_eq!(letters.redrive(|_| ()).await.expect("moved"), 7);
    let received = received.lock().expect("not poisoned");
    let (source, destination) = ("arn:aws:sqs:eu-west-1:123:dead", "arn:aws:sqs:eu-west-1:123:source");
    assert_eq!(
        received[1],
        (
            "StartMessageMoveTask".to_owned(),
            json!({"SourceArn": source, "DestinationArn": destination})
        )
    );
    assert_eq!(received.len(), 3, "{received:?}");
}

#[tokio::test]
async fn refused_or_failed_redrive_is_an_error() {
    let (refused, actions) = redrive(|action, _| match action {
        "GetQueueAttributes" => json!({"Attributes": {"QueueArn": "arn:aws:sqs:us-east-1:1:dead"}}),
        _ => json!({"__type": "com.amazonaws.sqs#ResourceNotFoundException", "message": "no such source"}),
    })
    .await;
    assert!(refused.is_err_and(|error| error.contains("no such source")));
    let requested = ["GetQueueAttributes", "StartMessageMoveTask", "ListMessageMoveTasks"];
    assert_eq!(actions, requested);

    let (failed, _) = redrive(|action, _| match action {
        "GetQueueAttributes" => json!({"Attributes": {"QueueArn": "arn:aws:sqs:us-east-1:1:dead"}}),
        "StartMessageMoveTask" => json!({"TaskHandle": "t"}),
        _ => move_task("FAILED"),
    })
    .await;
    assert!(failed.is_err_and(|error| error.contains("7 messages: AccessDenied")));
}

/// SQS's refusals of a second move task (recorded by LocalStack's tests on AWS, and as documented
/// in the Amazon SQS API Reference, "StartMessageMoveTask").
const REFUSALS: [(&str, &str); 2] = [
    (
        "com.amazonaws.sqs#InvalidParameterValue",
        "There is already a task running. Only one active task is allowed for a source queue arn at a given time.",
    ),
    ("com.amazonaws.sqs#UnsupportedOperation", "Unsupported operation."),
];

#[tokio::test]
async fn running_redrive_is_followed_not_repeated() {
    for (code, message) in REFUSALS {
        for status in ["RUNNING", "CANCELLING"] {
            let (moved, actions) = redrive(move |action, times| match (action, times) {
                ("GetQueueAttributes", _) => json!({"Attributes": {"QueueArn": "arn:aws:sqs:us-east-1:1:dead"}}),
                ("StartMessageMoveTask", _) => json!({"__type": code, "message": message}),
                ("ListMessageMoveTasks", 1) => move_task(status),
                _ => move_task("COMPLETED"),
            })
            .await;
            assert_eq!(moved, Ok(7));
            let follow = "ListMessageMoveTasks";
            let expected = ["GetQueueAttributes", "StartMessageMoveTask", follow, follow];
            assert_eq!(actions, expected, "{code}");
        }
    }
}

#[tokio::test]
async fn refusal_without_running_redrive_drains_nothing() {
    for (code, message) in REFUSALS {
        for list in [json!({"Results": []}), move_task("COMPLETED"), move_task("FAILED")] {
            let (moved, actions) = redrive(move |action, _| match action {
                "GetQueueAttributes" => json!({"Attributes": {"QueueArn": "arn:aws:sqs:us-east-1:1:dead"}}),
                "StartMessageMoveTask" => json!({"__type": code, "message": message}),
                _ => list.clone(),
            })
            .await;
            assert!(moved.is_err_and(|error| error.contains(message)), "{code}");
            let expected = ["GetQueueAttributes", "StartMessageMoveTask", "ListMessageMoveTasks"];
            assert_eq!(actions, expected, "{code}");
        }
    }
}
