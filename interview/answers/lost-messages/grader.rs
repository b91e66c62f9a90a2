//! lost-messages: a message is deleted or redelivered according to the outcome of its task.
// functions: task-processor
// unchanged: template.yaml, functions/task-reconciler, shared/core/src/store/reconciling.rs
// tests: functions

use std::time::{Duration, Instant};

use grading::{DEAD_LETTER_QUEUE, Delivered, Function, TASK_QUEUE, TestEnvironment, events, eventually};
use serde_json::json;

/// A processor whose failed messages are visible again at once.
async fn processor(environment: &TestEnvironment) -> Function {
    environment
        .function("task-processor")
        .with("RETRY_DELAY_SECONDS", "0")
        .start()
        .await
}

fn message(id: i64) -> String {
    json!({"task_id": id}).to_string()
}

/// Delivers a message together with one about a new task, which succeeds.
async fn deliver_with_a_neighbor(environment: &TestEnvironment, processor: &mut Function) -> Delivered {
    let neighbor = environment.task("neighbor", "succeeds").await;
    environment.enqueue(&[neighbor]).await;
    let delivered = environment.deliver(processor, 2).await;
    assert_eq!(
        delivered.error, None,
        "the error of a batch in which one record succeeded"
    );
    assert_eq!(
        environment.row(neighbor).await["status"],
        "completed",
        "the status of the task that succeeds"
    );
    assert!(
        !delivered.redelivered.contains(&message(neighbor)),
        "the message of a completed task was not deleted because another one in its batch failed"
    );
    delivered
}

#[tokio::test]
async fn successful_task_is_completed_and_its_message_is_deleted() {
    let environment = TestEnvironment::new().await;
    let id = environment.task("t", "one two three").await;
    environment.enqueue(&[id]).await;
    let delivered = environment.deliver(&mut processor(&environment).await, 1).await;
    assert_eq!(delivered.error, None, "the error of a batch that succeeded");
    assert_eq!(environment.row(id).await["status"], "completed", "the task's status");
    assert_eq!(environment.messages(TASK_QUEUE).await, 0, "messages in the queue");
}

#[tokio::test]
async fn batch_in_which_everything_fails_is_redelivered_whole() {
    let environment = TestEnvironment::new().await;
    let mut processor = processor(&environment).await;
    for size in [1, 10] {
        let mut ids = Vec::new();
        for number in 0..size {
            ids.push(
                environment
                    .task(&format!("task {number}"), "retry: no connection")
                    .await,
            );
        }
        environment.enqueue(&ids).await;
        // Either the ids of all records or an error: Lambda keeps all messages, and polls on.
        let delivered = environment.deliver(&mut processor, size).await;
        assert_eq!(
            delivered.redelivered.len(),
            size,
            "redelivered messages of {size} that failed"
        );
        environment.receive_all(TASK_QUEUE, size).await;
    }
}

#[tokio::test]
async fn message_of_settled_or_deleted_task_is_deleted() {
    let environment = TestEnvironment::new().await;
    let done = environment.task("done", "").await;
    let failed = environment.task("failed", "").await;
    let failing = environment.task("failing", "fail: no such user").await;
    let settled = "settled_at = now() + interval '1 minute'";
    environment
        .execute(&format!(
            "update tasks set status = 'completed', result = 'r', {settled} where id = {done};
             update tasks set status = 'failed', result = 'r', {settled} where id = {failed}"
        ))
        .await;
    environment.enqueue(&[done, failed, failing, 1_000_000]).await;
    let delivered = environment.deliver(&mut processor(&environment).await, 4).await;
    assert_eq!(delivered.redelivered, [""; 0], "redelivered messages");
    assert_eq!(
        environment.row(failed).await["status"],
        "failed",
        "the status of the task that had failed"
    );
    let row = environment.row(failing).await;
    assert_eq!(
        (&row["status"], &row["result"]),
        (&json!("failed"), &json!("no such user")),
        "status and result of a task that failed permanently"
    );
}

#[tokio::test]
async fn transient_failures_alone_are_redelivered() {
    let environment = TestEnvironment::new().await;
    let (mut ids, mut failing) = (Vec::new(), Vec::new());
    for number in 0..10 {
        let fails = number % 3 == 0;
        let description = if fails { "retry: no connection" } else { "succeeds" };
        let id = environment.task(&format!("task {number}"), description).await;
        ids.push(id);
        failing.extend(fails.then_some(id));
    }
    environment.enqueue(&ids).await;
    let delivered = environment.deliver(&mut processor(&environment).await, 10).await;
    assert_eq!(
        delivered.error, None,
        "the error of a batch in which six records succeeded"
    );
    for id in ids {
        let expected = if failing.contains(&id) { "pending" } else { "completed" };
        let what = format!("the status of one of ten tasks, of which four failed transiently: task {id}");
        assert_eq!(environment.row(id).await["status"], expected, "{what}");
    }
    let mut redelivered = delivered.redelivered;
    redelivered.sort();
    let mut expected: Vec<String> = failing.into_iter().map(message).collect();
    expected.sort();
    assert_eq!(
        redelivered, expected,
        "the messages left of a batch in which four of ten tasks failed transiently"
    );
}

#[tokio::test]
async fn retry_comes_after_its_delay_and_completes_the_task() {
    let environment = TestEnvironment::new().await;
    let failing = environment.task("failing", "retry: no connection").await;
    environment.enqueue(&[failing]).await;
    // With the delay of template.yaml: two seconds, while the queue's visibility timeout is 18.
    let mut processor = environment.function("task-processor").start().await;
    let delivered = deliver_with_a_neighbor(&environment, &mut processor).await;
    assert_eq!(
        delivered.redelivered,
        [message(failing)],
        "what is left in the queue of a task that failed transiently"
    );

    environment.execute("update tasks set description = 'fixed'").await;
    let again = eventually(
        6,
        "the message of a task that failed transiently is received again",
        async || environment.receive(TASK_QUEUE, 1).await.pop(),
    );
    let again = again.await;
    assert_eq!(again.receives, 2, "how often the message was received");
    environment.hand_over(&mut processor, vec![again]).await;
    let row = environment.row(failing).await;
    assert_eq!(
        row["status"], "completed",
        "the status of the task after its second delivery"
    );
    assert_eq!(row["attempts"], 2, "its attempts");
    assert_eq!(environment.messages(TASK_QUEUE).await, 0, "messages in the queue");
}

#[tokio::test]
async fn delay_doubles_with_every_receive() {
    let environment = TestEnvironment::new().await;
    let processor = environment.function("task-processor").with("RETRY_DELAY_SECONDS", "1");
    let mut processor = processor.start().await;
    let mut ids = Vec::new();
    for title in ["first", "second", "third", "fourth", "neighbor"] {
        let description = if title == "neighbor" {
            "succeeds"
        } else {
            "retry: no connection"
        };
        ids.push(environment.task(title, description).await);
    }
    environment.enqueue(&ids).await;
    // As if the second were received for the second time, and so on.
    let messages = environment.receive_all(TASK_QUEUE, 5).await;
    let records = messages.iter().map(|received| {
        let receive = ids.iter().position(|id| message(*id) == received.body);
        let mut record = received.record();
        let receive = receive.expect("one of those messages") % 4 + 1;
        record["attributes"]["ApproximateReceiveCount"] = json!(receive.to_string());
        record
    });
    let started = Instant::now();
    let done = processor.invoke(&events::batch(records.collect())).await;
    assert!(
        done.is_ok(),
        "a batch of which one record succeeded is an error: {done:?}"
    );
    // Each message is received again after its delay, not before. The fourth would take eight
    // seconds: it is only watched until the third is back, and a little longer.
    let mut seconds = [0.0; 4];
    while seconds[..3].contains(&0.0) || started.elapsed().as_secs_f64() < seconds[2] + 0.3 {
        assert!(
            started.elapsed() < Duration::from_secs(12),
            "not received again within 12 s: {seconds:?}"
        );
        for again in environment.receive(TASK_QUEUE, 10).await {
            if let Some(index) = ids[..4].iter().position(|id| message(*id) == again.body) {
                seconds[index] = started.elapsed().as_secs_f64();
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    if seconds[3] == 0.0 {
        seconds[3] = f64::INFINITY;
    }
    // SQS may count whole seconds.
    for (receive, (seconds, least)) in (1..).zip(seconds.into_iter().zip([0.0, 1.6, 3.4, 7.0])) {
        assert!(
            seconds >= least,
            "with RETRY_DELAY_SECONDS=1, a message that was received {receive} times came back after {seconds:.1} s"
        );
    }
    // Four seconds, not eight. (The shorter ones are less certain on a busy machine.)
    assert!(
        seconds[2] < 7.0,
        "with RETRY_DELAY_SECONDS=1, a message that was received 3 times came back only after {:.1} s",
        seconds[2]
    );
}

#[tokio::test]
async fn malformed_message_ends_in_the_dead_letter_queue() {
    let environment = TestEnvironment::new().await;
    let mut processor = processor(&environment).await;
    environment.send(TASK_QUEUE, "not a task").await;
    for receive in 1..=5 {
        let delivered = deliver_with_a_neighbor(&environment, &mut processor).await;
        assert_eq!(
            delivered.redelivered,
            ["not a task"],
            "what is left in the queue after delivery {receive} of a malformed message"
        );
    }
    ends_as_a_dead_letter(&environment, "not a task").await;
}

#[tokio::test]
async fn fifth_failure_fails_the_task_and_dead_letters_its_message() {
    let environment = TestEnvironment::new().await;
    let mut processor = processor(&environment).await;
    let failing = environment.task("failing", "retry: still down").await;
    environment.enqueue(&[failing]).await;
    for receive in 1..=5 {
        let delivered = deliver_with_a_neighbor(&environment, &mut processor).await;
        assert_eq!(
            delivered.redelivered,
            [message(failing)],
            "what is left in the queue after delivery {receive}"
        );
    }
    let row = environment.row(failing).await;
    assert_eq!(
        row["status"], "failed",
        "the status of the task after its fifth delivery"
    );
    assert_eq!(row["result"], "still down", "its result");
    ends_as_a_dead_letter(&environment, &message(failing)).await;

    // Which receive is the last one is a setting.
    let processor = environment.function("task-processor").with("RETRY_DELAY_SECONDS", "0");
    let mut processor = processor.with("MAX_RECEIVE_COUNT", "2").start().await;
    let failing = environment.task("failing", "retry: down again").await;
    environment.enqueue(&[failing]).await;
    for status in ["pending", "failed"] {
        deliver_with_a_neighbor(&environment, &mut processor).await;
        assert_eq!(
            environment.row(failing).await["status"],
            status,
            "with MAX_RECEIVE_COUNT=2, the status of the task after one of its two deliveries"
        );
    }
}

async fn ends_as_a_dead_letter(environment: &TestEnvironment, body: &str) {
    eventually(10, "the message is in the dead-letter queue", async || {
        // SQS moves it instead of delivering it a sixth time.
        let received = environment.receive(TASK_QUEUE, 1).await;
        assert!(received.is_empty(), "the message was received more than five times");
        (environment.messages(DEAD_LETTER_QUEUE).await == 1).then_some(())
    })
    .await;
    let dead = environment.receive_all(DEAD_LETTER_QUEUE, 1).await;
    assert_eq!(dead[0].body, body, "the message in the dead-letter queue");
}

#[tokio::test]
async fn message_of_leased_task_outlives_a_dead_worker() {
    let environment = TestEnvironment::new().await;
    let mut processor = processor(&environment).await;
    let held = environment.task("held", "one two three").await;
    // The state after a worker died right after its claim.
    let lease = "status = 'processing', attempts = 1, fencing_token = 1, started_at = now(), lease_expires_at = now()";
    environment
        .execute(&format!(
            "update tasks set {lease} + interval '1 hour' where id = {held}"
        ))
        .await;
    environment.enqueue(&[held]).await;
    let delivered = deliver_with_a_neighbor(&environment, &mut processor).await;
    assert_eq!(
        delivered.redelivered,
        [message(held)],
        "the messages left of a batch in which a dead worker still had the lease of a task"
    );

    environment
        .execute(&format!("update tasks set {lease} where id = {held}"))
        .await;
    environment.deliver(&mut processor, 1).await;
    assert_eq!(
        environment.row(held).await["status"],
        "completed",
        "the status of that task once the lease has expired"
    );

    // A worker may hold a task for longer than its message has receives.
    let held = environment.task("held", "one two three").await;
    environment
        .execute(&format!(
            "update tasks set {lease} + interval '1 hour' where id = {held}"
        ))
        .await;
    environment.enqueue(&[held]).await;
    for receive in 1..=5 {
        let delivered = deliver_with_a_neighbor(&environment, &mut processor).await;
        assert_eq!(
            delivered.redelivered,
            [message(held)],
            "what is left in the queue after delivery {receive}, while another worker has the lease of the task"
        );
    }
    ends_as_a_dead_letter(&environment, &message(held)).await;
}
