//! lost-messages: a message is deleted or redelivered according to the outcome of its task.
// functions: task-processor

use grading::{DEAD_LETTER_QUEUE, Delivered, Function, Stand, TASK_QUEUE, eventually};
use serde_json::json;

/// A processor whose failed messages are visible again at once.
async fn processor(stand: &Stand) -> Function {
    stand
        .function("task-processor")
        .with("RETRY_DELAY_SECONDS", "0")
        .start()
        .await
}

fn message(id: i64) -> String {
    json!({"task_id": id}).to_string()
}

/// Delivers a message together with one about a new task, which succeeds.
async fn deliver_with_a_neighbor(stand: &Stand, processor: &mut Function) -> Delivered {
    let neighbor = stand.task("neighbor", "succeeds").await;
    stand.enqueue(&[neighbor]).await;
    let delivered = stand.deliver(processor, 2).await;
    assert_eq!(
        delivered.error, None,
        "the error of a batch in which one record succeeded"
    );
    assert_eq!(
        stand.row(neighbor).await["status"],
        "completed",
        "the status of the task that succeeds"
    );
    assert!(
        !delivered.came_back.contains(&message(neighbor)),
        "the message of a completed task was not deleted because another one in its batch failed"
    );
    delivered
}

#[tokio::test]
async fn successful_task_is_completed_and_its_message_is_deleted() {
    let stand = Stand::new().await;
    let id = stand.task("t", "one two three").await;
    stand.enqueue(&[id]).await;
    let delivered = stand.deliver(&mut processor(&stand).await, 1).await;
    assert_eq!(delivered.error, None, "the error of a batch that succeeded");
    assert_eq!(stand.row(id).await["status"], "completed", "the task's status");
    assert_eq!(stand.messages(TASK_QUEUE).await, 0, "messages in the queue");
}

#[tokio::test]
async fn batch_in_which_everything_fails_is_redelivered_whole() {
    let stand = Stand::new().await;
    let ids = [
        stand.task("a", "retry: no connection").await,
        stand.task("b", "retry: no connection").await,
    ];
    stand.enqueue(&ids).await;
    let delivered = stand.deliver(&mut processor(&stand).await, 2).await;
    assert_eq!(delivered.came_back.len(), 2, "redelivered messages");
    assert!(
        delivered.error.is_some(),
        "the invocation is not an error, so Lambda does not poll more slowly"
    );
}

#[tokio::test]
async fn message_of_settled_or_deleted_task_is_deleted() {
    let stand = Stand::new().await;
    let done = stand.task("done", "").await;
    let failed = stand.task("failed", "").await;
    let settled = "settled_at = now() + interval '1 minute'";
    stand
        .execute(&format!(
            "update tasks set status = 'completed', result = 'r', {settled} where id = {done};
             update tasks set status = 'failed', result = 'r', {settled} where id = {failed}"
        ))
        .await;
    stand.enqueue(&[done, failed, 1_000_000]).await;
    let delivered = stand.deliver(&mut processor(&stand).await, 3).await;
    assert_eq!(delivered.came_back, [""; 0], "redelivered messages");
    assert_eq!(
        stand.row(failed).await["status"],
        "failed",
        "the status of the task that had failed"
    );
}

#[tokio::test]
async fn transient_failure_is_redelivered_and_its_neighbors_are_not() {
    let stand = Stand::new().await;
    let failing = stand.task("failing", "retry: no connection").await;
    stand.enqueue(&[failing]).await;
    let delivered = deliver_with_a_neighbor(&stand, &mut processor(&stand).await).await;
    assert_eq!(
        stand.row(failing).await["status"],
        "pending",
        "the status of the task that failed transiently"
    );
    assert_eq!(
        delivered.came_back,
        [message(failing)],
        "the messages left of a batch in which one task failed transiently"
    );
}

#[tokio::test]
async fn retry_comes_after_its_delay_and_completes_the_task() {
    let stand = Stand::new().await;
    let failing = stand.task("failing", "retry: no connection").await;
    stand.enqueue(&[failing]).await;
    // With the delay of template.yaml: two seconds, while the queue's visibility timeout is 18.
    let mut processor = stand.function("task-processor").start().await;
    deliver_with_a_neighbor(&stand, &mut processor).await;

    stand.execute("update tasks set description = 'fixed'").await;
    let again = eventually(
        6,
        "the message of a task that failed transiently is received again",
        async || stand.receive(TASK_QUEUE, 1).await.pop(),
    );
    let again = again.await;
    assert_eq!(again.receives, 2, "how often the message was received");
    stand.hand_over(&mut processor, vec![again]).await;
    let row = stand.row(failing).await;
    assert_eq!(
        row["status"], "completed",
        "the status of the task after its second delivery"
    );
    assert_eq!(row["attempts"], 2, "its attempts");
    assert_eq!(stand.messages(TASK_QUEUE).await, 0, "messages in the queue");
}

#[tokio::test]
async fn malformed_message_ends_in_the_dead_letter_queue() {
    let stand = Stand::new().await;
    let mut processor = processor(&stand).await;
    stand.send(TASK_QUEUE, "not a task").await;
    for receive in 1..=5 {
        let delivered = deliver_with_a_neighbor(&stand, &mut processor).await;
        assert_eq!(
            delivered.came_back,
            ["not a task"],
            "what is left in the queue after delivery {receive} of a malformed message"
        );
    }
    ends_as_a_dead_letter(&stand, "not a task").await;
}

#[tokio::test]
async fn fifth_failure_fails_the_task_and_dead_letters_its_message() {
    let stand = Stand::new().await;
    let mut processor = processor(&stand).await;
    let failing = stand.task("failing", "retry: still down").await;
    stand.enqueue(&[failing]).await;
    for receive in 1..=5 {
        let delivered = deliver_with_a_neighbor(&stand, &mut processor).await;
        assert_eq!(
            delivered.came_back,
            [message(failing)],
            "what is left in the queue after delivery {receive}"
        );
    }
    let row = stand.row(failing).await;
    assert_eq!(
        row["status"], "failed",
        "the status of the task after its fifth delivery"
    );
    assert_eq!(row["result"], "still down", "its result");
    ends_as_a_dead_letter(&stand, &message(failing)).await;
}

async fn ends_as_a_dead_letter(stand: &Stand, body: &str) {
    eventually(10, "the message is in the dead-letter queue", async || {
        // SQS moves it instead of delivering it a sixth time.
        let received = stand.receive(TASK_QUEUE, 1).await;
        assert!(received.is_empty(), "the message was received more than five times");
        (stand.messages(DEAD_LETTER_QUEUE).await == 1).then_some(())
    })
    .await;
    let dead = stand.receive_all(DEAD_LETTER_QUEUE, 1).await;
    assert_eq!(dead[0].body, body, "the message in the dead-letter queue");
}

#[tokio::test]
async fn message_of_leased_task_outlives_a_dead_worker() {
    let stand = Stand::new().await;
    let mut processor = processor(&stand).await;
    let held = stand.task("held", "one two three").await;
    // The state after a worker died right after its claim.
    let lease = "status = 'processing', attempts = 1, fencing_token = 1, started_at = now(), lease_expires_at = now()";
    stand
        .execute(&format!(
            "update tasks set {lease} + interval '1 hour' where id = {held}"
        ))
        .await;
    stand.enqueue(&[held]).await;
    let delivered = deliver_with_a_neighbor(&stand, &mut processor).await;
    assert_eq!(
        delivered.came_back,
        [message(held)],
        "the messages left of a batch in which a dead worker still had the lease of a task"
    );

    stand
        .execute(&format!("update tasks set {lease} where id = {held}"))
        .await;
    stand.deliver(&mut processor, 1).await;
    assert_eq!(
        stand.row(held).await["status"],
        "completed",
        "the status of that task once the lease has expired"
    );
}
