//! duplicate-processing: how often a task runs, for any number and timing of claims.
// functions: task-processor
// tests: functions

use std::{
    fs,
    time::{Duration, Instant},
};

use grading::{Function, Message, TASK_QUEUE, TestEnvironment, events};
use serde_json::Value;

/// How long both workers may take to start waiting for a row: less than their lock timeout of a
/// second.
const GRACE: Duration = Duration::from_millis(700);

/// A test environment that records every claim of a task.
async fn environment() -> TestEnvironment {
    let environment = TestEnvironment::new().await;
    environment
        .execute(
            "create table claims (task_id bigint, lease interval);
             create function note_claim() returns trigger language plpgsql security definer as $$
             begin
                 insert into claims values (new.id, new.lease_expires_at - now());
                 return null;
             end $$;
             create trigger note_claim after update on tasks for each row
             when (new.fencing_token > old.fencing_token) execute function note_claim();",
        )
        .await;
    environment
}

/// A processor that emits metrics, and whose failed messages are visible again at once.
async fn processor(environment: &TestEnvironment) -> Function {
    let processor = environment
        .function("task-processor")
        .with("METRICS_NAMESPACE", "grading");
    processor.with("RETRY_DELAY_SECONDS", "0").start().await
}

/// How often each of these tasks was claimed.
async fn claims(environment: &TestEnvironment, ids: &[i64]) -> Vec<u64> {
    let list = ids.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
    let query = format!(
        "select count(claims.task_id) as claims from unnest(array[{list}]) as asked (id)
         left join claims on task_id = id group by id order by id"
    );
    let rows = environment.rows(&query).await;
    rows.iter().filter_map(|row| row["claims"].as_u64()).collect()
}

/// How many times a processor has run a task.
fn worked_on(processor: &Function) -> usize {
    processor.metric("ProcessingTime").len()
}

/// Half a second passes between the claim of a task and its outcome. The trigger is one of the
/// statement: it holds no row while it sleeps.
async fn outcomes_take_a_while(environment: &TestEnvironment) {
    environment
        .execute(
            "create function linger() returns trigger language plpgsql security definer as $$
             begin
                 if exists (select from tasks where status = 'processing') then
                     perform pg_sleep(0.5);
                 end if;
                 return null;
             end $$;
             create trigger linger before update on tasks for each statement execute function linger();",
        )
        .await;
}

/// What became of the messages of two processors.
#[derive(Default)]
struct Race {
    /// Those that were not acknowledged.
    redelivered: Vec<Message>,
    /// The tasks whose message was acknowledged before they were settled.
    left_too_early: Vec<i64>,
}

fn task_of(message: &Message) -> i64 {
    let body: Value = serde_json::from_str(&message.body).expect("a message of a check is JSON");
    body["task_id"].as_i64().expect("a task id")
}

/// Two messages about each of these tasks, one for each processor.
async fn messages_for_two(environment: &TestEnvironment, ids: &[i64]) -> [Vec<Message>; 2] {
    for _ in 0..2 {
        environment.enqueue(ids).await;
    }
    let mut messages = environment.receive_all(TASK_QUEUE, 2 * ids.len()).await;
    messages.sort_by_key(task_of);
    let mut of_two = [Vec::new(), Vec::new()];
    for (number, message) in messages.into_iter().enumerate() {
        of_two[number % 2].push(message);
    }
    of_two
}

/// Hands both processors their messages, about the same tasks, such that both start their claims
/// before either can succeed.
async fn at_once(environment: &TestEnvironment, [one, two]: [&mut Function; 2], messages: [Vec<Message>; 2]) -> Race {
    let mut held = environment.pool.begin().await.expect("a transaction");
    let lock = sqlx::query("select from tasks for update").execute(&mut *held);
    lock.await.expect("the rows are locked");
    let release = async {
        let deadline = Instant::now() + GRACE;
        let waiting = "select count(*) as sessions from pg_stat_activity
                       where datname = current_database() and wait_event_type = 'Lock'";
        // Skipping a locked row instead of waiting is also correct.
        while environment.rows(waiting).await[0]["sessions"] != 2 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        held.commit().await.expect("the rows are free");
    };
    let [first, second] = messages;
    let (first, second, ()) = tokio::join!(work(environment, one, first), work(environment, two, second), release);
    let mut race = first;
    race.redelivered.extend(second.redelivered);
    race.left_too_early.extend(second.left_too_early);
    race
}

/// Hands a processor its messages. If the other one has everything, the invocation may be an error.
async fn work(environment: &TestEnvironment, processor: &mut Function, messages: Vec<Message>) -> Race {
    let delivered = environment.hand_over(processor, messages).await;
    let settled = environment
        .rows("select id from tasks where status in ('completed', 'failed')")
        .await;
    let mut race = Race::default();
    for message in delivered.messages {
        let id = task_of(&message);
        if delivered.redelivered.contains(&message.body) {
            race.redelivered.push(message);
        } else if settled.iter().all(|row| row["id"] != id) {
            race.left_too_early.push(id);
        }
    }
    race
}

/// Redelivers what a race has left. If each processor left a task to the other, it is still
/// unclaimed.
async fn redeliver(environment: &TestEnvironment, processor: &mut Function, messages: Vec<Message>) {
    if !messages.is_empty() {
        environment.hand_over(processor, messages).await;
    }
}

#[tokio::test]
async fn task_is_claimed_once_and_completed() {
    let environment = environment().await;
    let id = environment.task("t", "one two three").await;
    environment.enqueue(&[id]).await;
    let mut processor = processor(&environment).await;
    let delivered = environment.deliver(&mut processor, 1).await;
    assert_eq!(delivered.redelivered, [""; 0], "redelivered messages");
    let row = environment.row(id).await;
    assert_eq!(row["status"], "completed", "the task's status");
    assert_eq!(row["attempts"], 1, "its attempts");
    assert_eq!(claims(&environment, &[id]).await, [1], "its claims");
    assert_eq!(worked_on(&processor), 1, "values of the metric ProcessingTime");
    assert_eq!(processor.metric("TasksCompleted"), [1.0], "the metric TasksCompleted");
}

#[tokio::test]
async fn duplicate_messages_run_their_task_once() {
    let environment = environment().await;
    let id = environment.task("t", "").await;
    let mut processor = processor(&environment).await;
    // In one batch, and again afterwards.
    for messages in [2, 1] {
        environment.enqueue(&vec![id; messages]).await;
        let delivered = environment.deliver(&mut processor, messages).await;
        assert_eq!(delivered.redelivered, [""; 0], "redelivered messages");
    }
    assert_eq!(environment.row(id).await["status"], "completed", "the task's status");
    assert_eq!(claims(&environment, &[id]).await, [1], "its claims");
    assert_eq!(worked_on(&processor), 1, "values of the metric ProcessingTime");
}

/// A task claimed with this lease by a worker that is running or dead; its message is visible
/// again.
async fn held(environment: &TestEnvironment, lease: &str) -> i64 {
    let id = environment.task("held", "").await;
    let claim = "status = 'processing', attempts = 1, fencing_token = 1, started_at = now()";
    let lease = format!("lease_expires_at = now() + interval '{lease}'");
    let claim = format!("update tasks set {claim}, {lease} where id = {id}; truncate claims");
    environment.execute(&claim).await;
    environment.enqueue(&[id]).await;
    id
}

#[tokio::test]
async fn task_leased_by_another_worker_is_left_alone_and_retried() {
    let environment = environment().await;
    let id = held(&environment, "1 hour").await;
    let mut processor = processor(&environment).await;
    let delivered = environment.deliver(&mut processor, 1).await;
    assert_eq!(delivered.redelivered.len(), 1, "redelivered messages");
    assert_eq!(
        claims(&environment, &[id]).await,
        [0],
        "claims of a task that another worker has leased"
    );
    assert_eq!(environment.row(id).await["fencing_token"], 1, "its fencing token");
}

#[tokio::test]
async fn task_of_dead_worker_is_taken_over_when_its_lease_expires() {
    let environment = environment().await;
    let id = held(&environment, "0 seconds").await;
    let mut processor = processor(&environment).await;
    environment.deliver(&mut processor, 1).await;
    let row = environment.row(id).await;
    assert_eq!(row["status"], "completed", "the task's status");
    assert_eq!(row["attempts"], 2, "its attempts");
    assert_eq!(environment.messages(TASK_QUEUE).await, 0, "messages in the queue");
}

#[tokio::test]
async fn outcome_under_a_lost_lease_is_discarded() {
    let environment = environment().await;
    let id = environment.task("stolen", "").await;
    environment.enqueue(&[id]).await;
    // As if another worker claimed it right after this one, with a newer token.
    environment
        .execute(
            "create function steal() returns trigger language plpgsql security definer as $$
             begin
                 update tasks set fencing_token = fencing_token + 1 where id = new.id;
                 return null;
             end $$;
             create trigger steal after update on tasks for each row
             when (new.fencing_token = 1 and old.fencing_token = 0) execute function steal();",
        )
        .await;
    let mut processor = processor(&environment).await;
    environment.deliver(&mut processor, 1).await;
    let row = environment.row(id).await;
    assert_eq!(
        row["status"], "processing",
        "the status of a task that its second worker is still running"
    );
    assert_eq!(row["fencing_token"], 2, "its fencing token");
    assert_eq!(
        processor.metric("TasksCompleted"),
        [0.0],
        "the metric TasksCompleted of the worker that lost its lease"
    );
    // It has run: its letter was sent.
    assert_eq!(
        worked_on(&processor),
        1,
        "values of the metric ProcessingTime of the worker that lost its lease"
    );
}

#[tokio::test]
async fn concurrent_claims_of_one_task_have_one_winner() {
    let environment = environment().await;
    outcomes_take_a_while(&environment).await;
    let (mut one, mut two) = (processor(&environment).await, processor(&environment).await);
    for _ in 0..3 {
        let id = environment.task("wanted by two", "").await;
        let messages = messages_for_two(&environment, &[id]).await;
        let race = at_once(&environment, [&mut one, &mut two], messages).await;
        let claims = claims(&environment, &[id]).await;
        assert!(claims[0] <= 1, "both workers have claimed the task");
        assert_eq!(
            race.left_too_early, [0; 0],
            "tasks whose message was acknowledged while another worker had them"
        );
        redeliver(&environment, &mut one, race.redelivered).await;
        assert_eq!(
            environment.messages(TASK_QUEUE).await,
            0,
            "messages in the queue once the task is settled"
        );
        let row = environment.row(id).await;
        assert_eq!(row["status"], "completed", "the task's status");
        assert_eq!(row["attempts"], 1, "its attempts");
    }
    assert_eq!(
        worked_on(&one) + worked_on(&two),
        3,
        "how often the two workers ran three tasks in total"
    );
}

#[tokio::test]
async fn two_workers_with_one_batch_complete_each_task_once() {
    let environment = environment().await;
    let (mut one, mut two) = (processor(&environment).await, processor(&environment).await);
    let mut ids = Vec::new();
    for number in 0..10 {
        ids.push(environment.task(&format!("task {number}"), "").await);
    }
    let mut messages = messages_for_two(&environment, &ids).await;
    messages[1].reverse();
    let race = at_once(&environment, [&mut one, &mut two], messages).await;
    redeliver(&environment, &mut one, race.redelivered).await;

    let open = environment
        .rows("select id from tasks where status <> 'completed'")
        .await;
    assert_eq!(open.len(), 0, "tasks that are not completed");
    assert_eq!(claims(&environment, &ids).await, [1; 10], "the claims of each task");
    let completed: f64 = [&one, &two]
        .into_iter()
        .flat_map(|worker| worker.metric("TasksCompleted"))
        .sum();
    assert_eq!(completed, 10.0, "the metric TasksCompleted of both together");
    assert_eq!(
        worked_on(&one) + worked_on(&two),
        10,
        "how often the two workers ran ten tasks in total"
    );
}

#[tokio::test]
async fn lease_lasts_as_long_as_the_invocation_may() {
    let environment = environment().await;
    for seconds in [5_u64, 300] {
        environment.execute("truncate claims").await;
        let id = environment.task("t", "").await;
        let processor = environment
            .function("task-processor")
            .in_time(Duration::from_secs(seconds));
        let response = processor.start().await.invoke(&events::sqs(&[id])).await;
        assert!(response.is_ok(), "the batch failed: {response:?}");
        let lease = environment
            .rows("select extract(epoch from lease)::float8 as seconds from claims")
            .await;
        let lease = lease
            .first()
            .and_then(|row| row["seconds"].as_f64())
            .expect("the claim was recorded");
        let missing = seconds as f64 - lease;
        // Some time passes before the claim, and a slightly longer lease does no harm.
        assert!(
            (-30.0..3.0).contains(&missing),
            "in an invocation that may take {seconds} s the lease lasts {lease:.0} s"
        );
    }
}

/// In any file: `make grade` runs only the tests of those that were changed.
#[tokio::test]
async fn no_test_is_ignored() {
    for folder in ["api", "worker"] {
        for entry in fs::read_dir(format!("../../tests/{folder}")).expect("the tests") {
            let path = entry.expect("an entry").path();
            // Folders have no text.
            let text = fs::read_to_string(&path).unwrap_or_default();
            assert!(
                !text.contains("#[ignore"),
                "a test in {} is ignored",
                path.display().to_string().trim_start_matches("../")
            );
        }
    }
}
