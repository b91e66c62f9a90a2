//! The checks of the exercise webhooks.

// functions: create-task, get-task, task-processor, task-reconciler, webhook-sender

use std::{
    collections::BTreeSet,
    time::{Duration, Instant, SystemTime},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use grading::{Call, Function, Reply, Response, Starting, TestEnvironment, Webhooks, events};
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

const SECRET: &str = "shared by the receiver and the sender only";

/// The event that EventBridge sends on schedule.
fn scheduled() -> Value {
    json!({"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}})
}

/// The sender, with an hour between attempts: no attempt is repeated unless a check overrides that.
fn sender(environment: &TestEnvironment) -> Starting {
    environment
        .function("webhook-sender")
        .with("WEBHOOK_SECRET", SECRET)
        .with("WEBHOOK_ALLOW_LOCAL", "true")
        .with("WEBHOOK_RETRY_DELAY_SECONDS", "3600")
        .with("WEBHOOK_TIMEOUT_SECONDS", "5")
        .with("WEBHOOK_MAX_ATTEMPTS", "4")
        .in_time(Duration::from_secs(60))
}

async fn invoke(sender: &mut Function) -> Result<Value, String> {
    sender.invoke(&scheduled()).await
}

async fn run(sender: &mut Function) {
    let outcome = invoke(sender).await;
    assert!(outcome.is_ok(), "webhook-sender has failed: {outcome:?}");
}

/// create-task.
async fn creator(environment: &TestEnvironment, allow_local: bool) -> Function {
    let starting = environment.function("create-task");
    starting
        .with("WEBHOOK_ALLOW_LOCAL", &allow_local.to_string())
        .start()
        .await
}

async fn create(creator: &mut Function, body: &Value, key: Option<&str>) -> Response {
    let event = events::by(events::rest("POST", "/tasks", None), "alice", false);
    let event = events::with_body(event, body);
    let event = key
        .into_iter()
        .fold(event, |event, key| events::with_header(event, "Idempotency-Key", key));
    creator.call(&event).await
}

/// A task with a webhook, whose message is in the queue; its id.
async fn task(creator: &mut Function, description: &str, url: &str) -> i64 {
    let body = json!({"title": "Process user data", "description": description, "webhook_url": url});
    let response = create(creator, &body, None).await;
    assert_eq!(
        response.status, 201,
        "POST /tasks with a webhook_url: {}",
        response.body
    );
    response.json()["id"].as_i64().expect("an id")
}

/// Tasks that a processor has completed.
async fn completed(environment: &TestEnvironment, urls: &[String]) {
    let (mut creator, mut processor) = (
        creator(environment, true).await,
        environment.function("task-processor").start().await,
    );
    for url in urls {
        task(&mut creator, "", url).await;
    }
    work(environment, &mut processor, urls.len()).await;
}

/// Lets the processor handle all messages in the queue.
async fn work(environment: &TestEnvironment, processor: &mut Function, count: usize) {
    let mut left = count;
    while left > 0 {
        let batch = left.min(10);
        let delivered = environment.deliver(processor, batch).await;
        assert_eq!(delivered.error, None, "the processor's error");
        left -= batch;
    }
}

/// The table, in the order of the tasks.
async fn deliveries(environment: &TestEnvironment) -> Vec<Value> {
    environment
        .rows(
            "select task_id, status::text as status, attempts, last_error,
                    extract(epoch from next_attempt_at - now())::float8 as in_seconds
             from webhook_deliveries order by task_id",
        )
        .await
}

/// Makes all pending deliveries due.
async fn make_due(environment: &TestEnvironment) {
    environment
        .execute(
            "update webhook_deliveries set next_attempt_at = now() - interval '1 s' where status::text = 'pending'",
        )
        .await;
}

/// A task with normalized times: Postgres and Rust format fractions of a second differently.
fn spelled(mut task: Value) -> Value {
    for name in ["created_at", "updated_at"] {
        let time = task[name].as_str().unwrap_or_default().trim_end_matches('Z');
        let time = time.trim_end_matches('0').trim_end_matches('.').to_owned();
        task[name] = json!(time);
    }
    task
}

fn header<'a>(call: &'a Call, name: &str) -> &'a str {
    call.headers.get(name).map_or("", String::as_str)
}

fn id(call: &Call) -> String {
    header(call, "webhook-id").to_owned()
}

fn assert_signed(call: &Call) {
    let timestamp = header(call, "webhook-timestamp");
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("after 1970");
    let sent: u64 = timestamp
        .parse()
        .unwrap_or_else(|_| panic!("Webhook-Timestamp is {timestamp:?}"));
    assert!(
        now.as_secs().abs_diff(sent) < 300,
        "Webhook-Timestamp is {timestamp}, not the time in seconds"
    );
    let mut mac: Hmac<Sha256> = Mac::new_from_slice(SECRET.as_bytes()).expect("a key");
    mac.update(format!("{}.{timestamp}.{}", id(call), call.body).as_bytes());
    let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    assert_eq!(header(call, "webhook-signature"), expected, "Webhook-Signature");
}

/// Waits until the receiver has been called this often.
async fn wait_for(receiver: &Webhooks, calls: usize, what: &str) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while receiver.calls().len() < calls {
        let there = receiver.calls().len();
        assert!(
            Instant::now() < deadline,
            "{what}: {there} of {calls} calls within 15 s"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn completed_task_is_posted_signed_with_an_event_id() {
    let environment = TestEnvironment::new().await;
    let receiver = Webhooks::start(&[Reply::Status(204)]).await;
    let (mut creator, mut sender) = (creator(&environment, true).await, sender(&environment).start().await);
    let id = task(
        &mut creator,
        "Count the words of this",
        &receiver.url("/hook?customer=7"),
    )
    .await;
    run(&mut sender).await;
    assert_eq!(receiver.calls().len(), 0, "calls while the task is pending");

    let mut processor = environment.function("task-processor").start().await;
    work(&environment, &mut processor, 1).await;
    let mut reader = environment.function("get-task").start().await;
    let event = events::by(events::task("GET", id, ""), "alice", false);
    let shown = reader.call(&event).await.json();
    assert_eq!(shown["status"], "completed", "the task's status");
    run(&mut sender).await;
    run(&mut sender).await;

    let calls = receiver.calls();
    assert_eq!(calls.len(), 1, "calls of the receiver");
    let call = &calls[0];
    assert_eq!(
        (call.method.as_str(), call.path.as_str()),
        ("POST", "/hook?customer=7"),
        "the method and path called"
    );
    let content_type = header(call, "content-type");
    assert!(
        content_type.starts_with("application/json"),
        "the content-type is {content_type:?}"
    );
    assert_eq!(spelled(call.json()), spelled(shown), "the task as it was sent");
    assert_ne!(header(call, "webhook-id"), "", "Webhook-Id");
    assert_signed(call);
    let rows = deliveries(&environment).await;
    let seen: Vec<_> = rows
        .iter()
        .map(|row| (&row["task_id"], &row["status"], &row["attempts"]))
        .collect();
    assert_eq!(
        seen,
        [(&json!(id), &json!("delivered"), &json!(1))],
        "webhook_deliveries"
    );
}

#[tokio::test]
async fn insecure_internal_or_changed_url_is_refused() {
    let environment = TestEnvironment::new().await;
    let mut strict = creator(&environment, false).await;
    let body = |url: Value| json!({"title": "t", "webhook_url": url});
    for url in [
        "",
        "not a url",
        "http://example.com/",
        "ftp://example.com/",
        "https://user:password@example.com/",
        "https://localhost/",
        "https://LOCALHOST:8443/",
        "http://localhost:8080/",
        "http://127.0.0.1:8080/",
        "https://127.0.0.1/",
        "https://10.1.2.3/",
        "https://172.16.0.1/",
        "https://192.168.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://100.64.0.1/",
        "https://0.0.0.0/",
        "https://[::1]/",
        "https://[fd00::1]/",
        "https://[fe80::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://017700000001/",
        "https://intranet/",
        // The root of all names has a dot, too.
        "https://localhost./",
        "https://intranet./",
        // Multicast, reserved, unspecified, and IPv4 addresses within IPv6 ones (NAT64, 6to4).
        "https://224.0.0.1/",
        "https://240.0.0.1/",
        "https://[::]/",
        "https://[64:ff9b::a00:1]/",
        "https://[2002:a00:1::]/",
        // Not only the first address of a range.
        "https://0.1.2.3/",
        "https://127.0.0.2/",
        "https://172.31.255.1/",
        "https://100.127.0.1/",
        "https://198.18.0.1/",
        "https://255.255.255.255/",
        "https://[ff02::1]/",
        "https://[fc00::1]/",
        "https://user@example.com/",
    ] {
        let response = create(&mut strict, &body(json!(url)), None).await;
        assert_eq!(response.status, 422, "the status for {url}");
        let pointer = &response.json()["errors"][0]["pointer"];
        assert_eq!(pointer, "#/webhook_url", "the pointer of the mistake for {url}");
    }
    assert_eq!(
        environment.rows("select id from tasks").await.len(),
        0,
        "tasks stored with a refused URL"
    );
    for url in [
        json!(null),
        json!("https://example.com"),
        json!("https://example.com:8443/hook?customer=7"),
        json!("https://93.184.216.34/"),
        json!("https://172.32.0.1/"),
        json!("https://100.128.0.1/"),
        json!("https://[2606:2800:220:1::1]/"),
    ] {
        let response = create(&mut strict, &body(url.clone()), None).await;
        assert_eq!(response.status, 201, "the status for {url}: {}", response.body);
    }

    let mut lenient = creator(&environment, true).await;
    for (url, status) in [
        ("http://127.0.0.1:8080/", 201),
        ("http://localhost:8080/", 201),
        ("http://10.0.0.1/", 422),
        ("http://example.com/", 422),
        ("https://192.168.0.1/", 422),
    ] {
        let response = create(&mut lenient, &body(json!(url)), None).await;
        assert_eq!(
            response.status, status,
            "the status for {url} with WEBHOOK_ALLOW_LOCAL=true"
        );
    }

    let (one, other) = (json!("https://example.com/1"), json!("https://example.com/2"));
    for (key, first, second, status) in [
        ("same", &one, &one, 201),
        ("other", &one, &other, 422),
        ("added", &json!(null), &one, 422),
        ("removed", &one, &json!(null), 422),
        ("none", &json!(null), &json!(null), 201),
    ] {
        let response = create(&mut strict, &body(first.clone()), Some(key)).await;
        assert_eq!(response.status, 201, "the status of the first request with a key");
        let again = create(&mut strict, &body(second.clone()), Some(key)).await;
        let what = format!("{first}, then {second} under the same Idempotency-Key");
        assert_eq!(again.status, status, "the status of {what}");
        if status == 201 {
            assert_eq!(again.json(), response.json(), "the response to {what}");
        }
    }
}

#[tokio::test]
async fn settling_statement_stores_the_delivery() {
    let environment = TestEnvironment::new().await;
    let variables = &environment.template.function("task-processor")["Environment"]["Variables"];
    assert_eq!(variables["DATABASE_ROLE"], "processor", "the processor's role");
    let dead = Webhooks::start(&[Reply::Silence]).await;
    let proxy = environment.proxy().await;
    let mut processor = environment.function("task-processor").through(&proxy).start().await;
    let mut creator = creator(&environment, true).await;
    // The first batch also prepares the statements.
    for (batch, size) in [1, 4].into_iter().enumerate() {
        for _ in 0..size {
            task(&mut creator, "", &dead.url("/")).await;
        }
        let before = proxy.round_trips();
        work(&environment, &mut processor, size).await;
        if batch > 0 {
            assert_eq!(proxy.round_trips() - before, 2, "round trips of a warm batch");
        }
    }
    assert_eq!(dead.calls().len(), 0, "calls by the processor");
    let together = environment
        .rows(
            "select task.status::text as task, delivery.status::text as delivery, delivery.attempts,
                    task.xmin::text = delivery.xmin::text as same_transaction
             from tasks as task left join webhook_deliveries as delivery on delivery.task_id = task.id",
        )
        .await;
    let expected = json!({"task": "completed", "delivery": "pending", "attempts": 0, "same_transaction": true});
    assert_eq!(
        together,
        vec![expected; 5],
        "each task, its delivery, and whether one transaction stored both"
    );
    let may = "select action from unnest(array['update', 'delete', 'truncate']) as action
               where has_table_privilege('processor', 'webhook_deliveries', action)";
    assert_eq!(
        environment.rows(may).await,
        [json!(null); 0],
        "unnecessary permissions of the role processor on deliveries"
    );
}

#[tokio::test]
async fn every_final_outcome_is_announced_and_nothing_else() {
    let environment = TestEnvironment::new().await;
    let receiver = Webhooks::start(&[]).await;
    let (mut creator, mut sender) = (creator(&environment, true).await, sender(&environment).start().await);
    let mut processor = environment.function("task-processor").start().await;
    let url = receiver.url("/");
    let failed = task(&mut creator, "fail: no such user", &url).await;
    task(&mut creator, "retry: the service is down", &url).await;
    work(&environment, &mut processor, 2).await;
    // Ten workers have crashed on this one.
    let discarded = task(&mut creator, "", &url).await;
    environment
        .execute(&format!(
            "update tasks set attempts = 10, enqueued_at = null, updated_at = now() - interval '1 hour'
             where id = {discarded}"
        ))
        .await;
    let mut reconciler = environment.function("task-reconciler").start().await;
    let swept = reconciler.invoke(&scheduled()).await;
    assert!(swept.is_ok(), "the reconciler has failed: {swept:?}");
    let rows = [environment.row(failed).await, environment.row(discarded).await];
    for row in &rows {
        assert_eq!(row["status"], "failed", "the status of task {}", row["id"]);
    }
    // Deleting a task does not cancel its announcement.
    environment
        .execute(&format!("delete from tasks where id = {discarded}"))
        .await;
    run(&mut sender).await;
    let calls = receiver.calls();
    let mut told: Vec<(Value, Value, Value)> = calls
        .iter()
        .map(Call::json)
        .map(|task| (task["id"].clone(), task["status"].clone(), task["result"].clone()))
        .collect();
    told.sort_by_key(|(id, ..)| id.as_i64());
    let expected = rows.map(|row| (row["id"].clone(), row["status"].clone(), row["result"].clone()));
    assert_eq!(told, expected, "the announcements: id, status and result");

    environment
        .execute(&format!(
            "update tasks set status = 'pending', result = null, settled_at = null where id = {failed}"
        ))
        .await;
    // Invoked directly, because the queue contains other messages.
    let outcome = processor.invoke(&events::sqs(&[failed])).await;
    assert!(outcome.is_ok(), "the processor has failed: {outcome:?}");
    assert_eq!(
        environment.row(failed).await["status"],
        "failed",
        "the status when it was processed again"
    );
    run(&mut sender).await;
    let ids: BTreeSet<String> = receiver.calls().iter().map(id).collect();
    assert_eq!(
        ids.len(),
        3,
        "distinct values of Webhook-Id when one of two tasks was settled twice"
    );
}

#[tokio::test]
async fn transient_failure_is_retried_with_backoff_until_exhausted() {
    let environment = TestEnvironment::new().await;
    let receiver = Webhooks::start(&[
        Reply::Status(503),
        Reply::Silence,
        Reply::Status(429),
        Reply::Status(500),
    ])
    .await;
    completed(&environment, &[receiver.url("/")]).await;
    let mut sender = sender(&environment).with("WEBHOOK_TIMEOUT_SECONDS", "1").start().await;
    for (attempt, seconds) in [(1, 3600.0), (2, 7200.0), (3, 14400.0)] {
        run(&mut sender).await;
        run(&mut sender).await;
        assert_eq!(
            receiver.calls().len(),
            attempt,
            "calls when retry {attempt} is not due yet"
        );
        let row = &deliveries(&environment).await[0];
        assert_eq!(row["status"], "pending", "the status after attempt {attempt}");
        assert_eq!(row["attempts"], attempt, "the attempts");
        assert!(
            row["last_error"].as_str().is_some_and(|error| !error.is_empty()),
            "there is no last_error: {row}"
        );
        let in_seconds = row["in_seconds"].as_f64().unwrap_or_default();
        // A few seconds may have passed since the attempt began.
        assert!(
            in_seconds > seconds - 60.0,
            "retry {attempt} is due in {in_seconds} s instead of {seconds}"
        );
        make_due(&environment).await;
    }
    run(&mut sender).await;
    make_due(&environment).await;
    run(&mut sender).await;
    let calls = receiver.calls();
    assert_eq!(calls.len(), 4, "calls where WEBHOOK_MAX_ATTEMPTS is 4");
    for call in &calls {
        assert_eq!(
            (id(call), &call.body),
            (id(&calls[0]), &calls[0].body),
            "Webhook-Id and body of every attempt"
        );
        assert_signed(call);
    }
    let row = &deliveries(&environment).await[0];
    assert_eq!(
        (&row["status"], &row["attempts"]),
        (&json!("failed"), &json!(4)),
        "the final status and attempts"
    );
    assert!(row["last_error"].is_string(), "there is no last_error: {row}");

    // One endpoint refuses connections; the other one recovers.
    let recovering = Webhooks::start(&[Reply::Status(502), Reply::Status(200)]).await;
    environment.execute("delete from webhook_deliveries").await;
    completed(&environment, &["http://127.0.0.1:1/".to_owned(), recovering.url("/")]).await;
    run(&mut sender).await;
    make_due(&environment).await;
    run(&mut sender).await;
    let rows = deliveries(&environment).await;
    let seen: Vec<_> = rows.iter().map(|row| (&row["status"], &row["attempts"])).collect();
    let two = &json!(2);
    assert_eq!(
        seen,
        [(&json!("pending"), two), (&json!("delivered"), two)],
        "status and attempts for a refused connection, and for a second attempt that succeeds"
    );
}

#[tokio::test]
async fn permanent_failure_ends_at_once_and_no_call_goes_inside() {
    let environment = TestEnvironment::new().await;
    let inside = Webhooks::start(&[]).await;
    let gone = Webhooks::start(&[Reply::Status(404)]).await;
    let redirecting = Webhooks::start(&[Reply::Redirect(inside.url("/"))]).await;
    completed(&environment, &[gone.url("/"), redirecting.url("/")]).await;
    let mut lenient = sender(&environment).start().await;
    run(&mut lenient).await;
    make_due(&environment).await;
    run(&mut lenient).await;
    assert_eq!(inside.calls().len(), 0, "calls of the redirect's target");
    assert_eq!(
        (gone.calls().len(), redirecting.calls().len()),
        (1, 1),
        "calls of a receiver that returns 404 and of one that returns 307"
    );
    for row in deliveries(&environment).await {
        assert_eq!(row["status"], "failed", "the status after 404, or 307");
        assert!(row["last_error"].is_string(), "there is no last_error: {row}");
    }

    // create-task accepted them with other settings; this sender must not call them.
    let by_name = inside.url("/").replace("127.0.0.1", "localhost");
    completed(&environment, &[inside.url("/"), by_name]).await;
    let mut strict = sender(&environment).with("WEBHOOK_ALLOW_LOCAL", "false").start().await;
    for _ in 0..2 {
        run(&mut strict).await;
        make_due(&environment).await;
    }
    assert_eq!(
        inside.calls().len(),
        0,
        "calls of 127.0.0.1 and localhost by a sender without WEBHOOK_ALLOW_LOCAL"
    );
    let delivered = environment
        .rows("select task_id from webhook_deliveries where status::text = 'delivered'")
        .await;
    assert_eq!(delivered.len(), 0, "deliveries marked as delivered");
}

#[tokio::test]
async fn hanging_receiver_delays_no_one_and_dead_sender_loses_nothing() {
    let environment = TestEnvironment::new().await;
    let (dead, living) = (Webhooks::start(&[Reply::Silence]).await, Webhooks::start(&[]).await);
    completed(
        &environment,
        &[dead.url("/1"), dead.url("/2"), dead.url("/3"), living.url("/")],
    )
    .await;
    let mut dying = sender(&environment).with("WEBHOOK_TIMEOUT_SECONDS", "20").start().await;
    tokio::select! {
        outcome = invoke(&mut dying) => panic!("it did not wait for receivers that do not respond: {outcome:?}"),
        () = async {
            wait_for(&dead, 3, "three webhooks to a receiver that does not respond").await;
            wait_for(&living, 1, "a webhook alongside three without a response").await;
        } => {}
    }
    // Killed.
    drop(dying);
    let first: BTreeSet<String> = dead.calls().iter().map(id).collect();
    make_due(&environment).await;
    let mut next = sender(&environment).with("WEBHOOK_TIMEOUT_SECONDS", "1").start().await;
    run(&mut next).await;
    let calls = dead.calls();
    let again: BTreeSet<String> = calls[3..].iter().map(id).collect();
    assert_eq!(again, first, "Webhook-Ids sent by the next sender, and by the dead one");
    let ids: BTreeSet<String> = living.calls().iter().map(id).collect();
    assert_eq!(
        ids.len(),
        1,
        "distinct values of Webhook-Id at the receiver that responds"
    );
    let rows = deliveries(&environment).await;
    let statuses: Vec<&Value> = rows.iter().map(|row| &row["status"]).collect();
    assert_eq!(
        statuses,
        ["pending", "pending", "pending", "delivered"],
        "the statuses of all four"
    );
}

#[tokio::test]
async fn concurrent_senders_send_each_delivery_once() {
    let environment = TestEnvironment::new().await;
    let silent = Webhooks::start(&[Reply::Silence]).await;
    completed(&environment, &[silent.url("/")]).await;
    let sender = || sender(&environment).with("WEBHOOK_TIMEOUT_SECONDS", "20").start();
    let (mut one, mut other) = (sender().await, sender().await);
    tokio::select! {
        outcome = invoke(&mut one) => panic!("it did not wait for a receiver that does not respond: {outcome:?}"),
        () = async {
            wait_for(&silent, 1, "a webhook").await;
            run(&mut other).await;
        } => {}
    }
    assert_eq!(
        silent.calls().len(),
        1,
        "calls while one sender waits for the response and another one runs"
    );
    drop(one);

    let receiver = Webhooks::start(&[]).await;
    completed(&environment, &vec![receiver.url("/"); 30]).await;
    let mut one = sender().await;
    tokio::join!(run(&mut one), run(&mut other));
    let ids: BTreeSet<String> = receiver.calls().iter().map(id).collect();
    assert_eq!(
        (receiver.calls().len(), ids.len()),
        (30, 30),
        "calls and events for 30 tasks and two senders"
    );

    // More than a sender is likely to take at once.
    let receiver = Webhooks::start(&[]).await;
    completed(&environment, &vec![receiver.url("/"); 120]).await;
    run(&mut one).await;
    assert_eq!(
        receiver.calls().len(),
        120,
        "calls by one run, when 120 deliveries are due"
    );
}
