//! The checks of the exercise task-priorities.

// functions: admin-status, admin-task, create-task, get-task, list-tasks, process-task, task-processor, task-reconciler, update-task

use std::path::Path;

use grading::{Function, Response, TASK_QUEUE, Template, TestEnvironment, events, eventually, migrations, roles};
use serde_json::{Value, json};
use sqlx::{ConnectOptions, Connection, PgConnection, migrate::Migrator, postgres::PgConnectOptions};

/// The last migration before the exercise.
const LAST_MIGRATION: i64 = 10;

/// True if a resource of this name is referenced.
fn mentions(value: &Value, resource: &str) -> bool {
    match value {
        Value::Array(parts) => parts.iter().any(|part| mentions(part, resource)),
        Value::Object(parts) => parts.values().any(|part| mentions(part, resource)),
        Value::String(text) => text
            .split(|letter: char| !letter.is_alphanumeric())
            .any(|word| word == resource),
        _ => false,
    }
}

/// The event source mapping of the second queue.
fn second_mapping(template: &Template) -> &Value {
    let mappings = template.resources("AWS::Lambda::EventSourceMapping").into_values();
    let second = mappings.map(|mapping| &mapping["Properties"]).find(|mapping| {
        let function = &mapping["FunctionName"];
        let triggers = ["TaskProcessorFunction", "TaskProcessorFunctionAliaslive"];
        let of_processor = triggers.iter().any(|name| mentions(function, name));
        of_processor && !mentions(&mapping["EventSourceArn"], TASK_QUEUE)
    });
    second.expect("template.yaml has no second event source mapping that triggers the task-processor")
}

/// The name of the high-priority queue.
fn high_queue(template: &Template) -> String {
    let source = &second_mapping(template)["EventSourceArn"];
    let queues = template.resources("AWS::SQS::Queue");
    let name = queues.into_keys().find(|name| mentions(source, name));
    name.expect("the second event source mapping has no queue of the template")
        .to_owned()
}

fn by_alice(event: Value) -> Value {
    events::by(event, "alice", false)
}

fn post(body: &Value) -> Value {
    by_alice(events::with_body(events::rest("POST", "/tasks", None), body))
}

fn high(title: &str) -> Value {
    json!({"title": title, "priority": "high"})
}

fn id_of(response: &Response) -> i64 {
    assert!(response.status < 300, "{}: {}", response.status, response.body);
    response.json()["id"].as_i64().expect("an id")
}

async fn create(function: &mut Function, body: &Value) -> i64 {
    id_of(&function.call(&post(body)).await)
}

/// Asserts that this is a 422 with one mistake, at this pointer.
fn assert_invalid(response: &Response, pointer: &str, what: &Value) {
    assert_eq!(response.status, 422, "the status of {what}");
    let errors = response.json()["errors"].clone();
    let pointers = errors.as_array().into_iter().flatten().map(|error| &error["pointer"]);
    assert_eq!(pointers.collect::<Vec<_>>(), [pointer], "the mistakes in {what}");
}

/// The tasks that a queue's messages are about, in id order; the messages stay in flight for the
/// rest of the check.
async fn sent(environment: &TestEnvironment, queue: &str) -> Vec<i64> {
    let messages = environment.receive(queue, 100).await;
    let ids = messages.iter().map(|message| {
        let body: Value = serde_json::from_str(&message.body).expect("a message is JSON");
        body["task_id"].as_i64().expect("a message has a task_id")
    });
    let mut ids: Vec<i64> = ids.collect();
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn every_representation_has_the_tasks_priority() {
    let environment = TestEnvironment::new().await;
    let mut create_task = environment.function("create-task").start().await;
    let mut ids = Vec::new();
    for (body, priority) in [
        (json!({"title": "t"}), "normal"),
        (
            json!({"title": "t", "description": "d", "priority": "normal"}),
            "normal",
        ),
        (high("t"), "high"),
    ] {
        let response = create_task.call(&post(&body)).await;
        assert_eq!(response.status, 201, "the status of {body}");
        assert_eq!(response.json()["priority"], priority, "the response to {body}");
        ids.push((id_of(&response), priority));
    }
    let mut get_task = environment.function("get-task").start().await;
    let mut admin_task = environment.function("admin-task").start().await;
    for (id, priority) in &ids {
        let response = get_task.call(&by_alice(events::task("GET", *id, ""))).await;
        assert_eq!(response.json()["priority"], *priority, "GET /tasks/{id}");
        let event = events::rest("GET", &format!("/admin/tasks/{id}"), Some(*id));
        let response = admin_task.call(&event).await;
        assert!(
            response.body.contains(&format!(r#""priority":"{priority}""#)),
            "GET /admin/tasks/{id}: {}",
            response.body
        );
    }
    let mut list_tasks = environment.function("list-tasks").start().await;
    let mut admin_status = environment.function("admin-status").start().await;
    let list = list_tasks
        .call(&by_alice(events::rest("GET", "/tasks", None)))
        .await
        .json();
    let status = admin_status.call(&events::rest("GET", "/admin/status", None)).await;
    assert_eq!(status.status, 200, "GET /admin/status: {}", status.body);
    for shown in [&list, &status.json()["recent_tasks"]] {
        for (id, priority) in &ids {
            let task = shown.as_array().into_iter().flatten().find(|task| task["id"] == *id);
            assert_eq!(
                task.map(|task| &task["priority"]),
                Some(&json!(priority)),
                "task {id} in {shown}"
            );
        }
    }
}

#[tokio::test]
async fn priority_can_be_changed_and_invalid_priority_is_422() {
    let environment = TestEnvironment::new().await;
    let mut create_task = environment.function("create-task").start().await;
    let mut update_task = environment.function("update-task").start().await;
    let id = create(&mut create_task, &json!({"title": "t", "description": "d"})).await;
    let change = |method: &str, body: &Value| by_alice(events::with_body(events::task(method, id, ""), body));
    let mut etags = vec!["\"1\"".to_owned()];
    for (method, body, priority) in [
        ("PATCH", json!({"priority": "high"}), "high"),
        ("PATCH", json!({"title": "u"}), "high"),
        ("PUT", json!({"title": "v", "priority": "normal"}), "normal"),
        ("PUT", json!({"priority": "high"}), "high"),
    ] {
        let response = update_task.call(&change(method, &body)).await;
        assert_eq!(response.status, 200, "{method} {body}");
        let task = response.json();
        assert_eq!(task["priority"], priority, "the priority after {method} {body}");
        assert_eq!(
            task["description"], "d",
            "the description, which is absent from the body"
        );
        let etag = response.header("etag").to_owned();
        assert!(!etags.contains(&etag), "the ETag after {method} {body}");
        etags.push(etag);
    }
    let before = environment.row(id).await;
    for bad in [
        json!(null),
        json!("HIGH"),
        json!("urgent"),
        json!(""),
        json!(1),
        json!(true),
    ] {
        let body = json!({"title": "t", "priority": bad});
        assert_invalid(&create_task.call(&post(&body)).await, "#/priority", &body);
        for method in ["PUT", "PATCH"] {
            assert_invalid(&update_task.call(&change(method, &body)).await, "#/priority", &body);
        }
    }
    assert_eq!(environment.row(id).await, before, "the task after refused changes");
    assert_eq!(environment.rows("select id from tasks").await.len(), 1, "tasks");
}

/// How many task rows Postgres has read, from the table or its indexes, and in how many scans.
async fn reads(environment: &TestEnvironment) -> (i64, i64) {
    let query = "select t.seq_tup_read + sum(i.idx_tup_read) as rows, t.seq_scan + sum(i.idx_scan) as scans
                 from pg_stat_user_tables as t join pg_stat_user_indexes as i using (relid)
                 where t.relname = 'tasks'
                 group by t.seq_tup_read, t.seq_scan";
    let read = environment.rows(query).await;
    let number = |name: &str| read[0][name].as_f64().expect("a number") as i64;
    (number("rows"), number("scans"))
}

/// How many sessions there are on the test environment's database.
async fn sessions(environment: &TestEnvironment) -> usize {
    let query =
        "select pid from pg_stat_activity where datname = current_database() and backend_type = 'client backend'";
    environment.rows(query).await.len()
}

#[tokio::test]
async fn filtered_list_is_complete_and_reads_no_other_tasks() {
    let environment = TestEnvironment::new().await;
    let mut create_task = environment.function("create-task").start().await;
    let mut expected = Vec::new();
    for number in 0..10 {
        expected.push(create(&mut create_task, &high(&format!("urgent {number}"))).await);
    }
    environment
        .execute(
            "insert into tasks (title, created_by, enqueued_at)
             select 'import ' || n, 'alice', now() from generate_series(1, 30000) as n;
             analyze tasks",
        )
        .await;
    let list = || events::with_query(events::rest("GET", "/tasks", None), "priority", "high");
    let ids = |response: &Response| -> Vec<i64> {
        assert_eq!(response.status, 200, "{}", response.body);
        let list = response.json();
        list.as_array()
            .into_iter()
            .flatten()
            .filter_map(|task| task["id"].as_i64())
            .collect()
    };
    let others = sessions(&environment).await;
    let mut list_tasks = environment.function("list-tasks").start().await;
    assert_eq!(ids(&list_tasks.call(&by_alice(list())).await), expected);
    let page = events::with_query(events::with_query(list(), "limit", "4"), "count", "true");
    let page = list_tasks.call(&by_alice(page)).await;
    assert_eq!(ids(&page), expected[..4], "with a limit");
    assert_eq!(page.header("x-total-count"), "10", "X-Total-Count");
    // An admin sees everyone's tasks, with another statement.
    let all = list_tasks.call(&events::with_query(list(), "count", "true")).await;
    assert_eq!(all.header("x-total-count"), "10", "X-Total-Count for an admin");
    assert!(
        page.header("link").contains("priority=high"),
        "the links keep the filter: {}",
        page.header("link")
    );
    let newest = events::with_query(events::with_query(list(), "sort", "-id"), "limit", "2");
    assert_eq!(
        ids(&list_tasks.call(&by_alice(newest)).await),
        [expected[9], expected[8]],
        "the newest first"
    );
    let search = events::with_query(list(), "q", "GENT 7");
    assert_eq!(ids(&list_tasks.call(&by_alice(search)).await), [expected[7]], "with q");
    let none = events::with_query(list(), "status", "failed");
    assert_eq!(ids(&list_tasks.call(&by_alice(none)).await), [0; 0], "with a status");
    assert_eq!(
        ids(&list_tasks.call(&events::by(list(), "bob", false)).await),
        [0; 0],
        "another user's list"
    );
    let normal = events::with_query(events::rest("GET", "/tasks", None), "priority", "normal");
    let normal = ids(&list_tasks.call(&by_alice(normal)).await);
    assert!(
        normal.len() == 100 && normal[0] == expected[9] + 1,
        "the tasks of normal priority: {normal:?}"
    );
    for bad in ["", "High", "urgent"] {
        let event = events::with_query(events::rest("GET", "/tasks", None), "priority", bad);
        assert_invalid(
            &list_tasks.call(&by_alice(event)).await,
            "#/query/priority",
            &json!(bad),
        );
    }
    drop(list_tasks);

    for (whose, admin) in [("the caller's own", false), ("all users'", true)] {
        // A session reports its reads when it ends, so the earlier ones must have ended.
        eventually(30, "the previous function's session has ended", async || {
            (sessions(&environment).await <= others).then_some(())
        })
        .await;
        let (rows, scans) = reads(&environment).await;
        let mut list_tasks = environment.function("list-tasks").start().await;
        // Often enough for Postgres to switch to a generic plan.
        for _ in 0..8 {
            assert_eq!(
                ids(&list_tasks.call(&events::by(list(), "alice", admin)).await),
                expected
            );
        }
        drop(list_tasks);
        let read = eventually(30, "Postgres reports its reads", async || {
            let (rows_now, scans_now) = reads(&environment).await;
            (scans_now >= scans + 8).then_some(rows_now - rows)
        })
        .await;
        assert!(read <= 8 * 100, "8 lists of ten tasks ({whose}) read {read} rows");
    }
}

#[tokio::test]
async fn every_sender_uses_the_queue_of_the_tasks_priority() {
    let environment = TestEnvironment::new().await;
    let queue = high_queue(&environment.template);
    let mut create_task = environment.function("create-task").start().await;
    let normal = create(&mut create_task, &json!({"title": "t"})).await;
    let urgent = create(&mut create_task, &high("t")).await;
    assert_eq!(
        sent(&environment, &queue).await,
        [urgent],
        "what create-task has sent to {queue}"
    );
    assert_eq!(
        sent(&environment, TASK_QUEUE).await,
        [normal],
        "what create-task has sent to {TASK_QUEUE}"
    );

    let mut process_task = environment.function("process-task").start().await;
    for id in [normal, urgent] {
        let response = process_task.call(&by_alice(events::task("POST", id, "/process"))).await;
        assert_eq!(response.status, 202);
    }
    assert_eq!(
        sent(&environment, &queue).await,
        [urgent],
        "what process-task has sent to {queue}"
    );
    assert_eq!(
        sent(&environment, TASK_QUEUE).await,
        [normal],
        "what process-task has sent to {TASK_QUEUE}"
    );

    // A changed priority applies from the next message on, from any sender.
    let mut update_task = environment.function("update-task").start().await;
    let body = json!({"priority": "high"});
    let change = by_alice(events::with_body(events::task("PATCH", normal, ""), &body));
    assert_eq!(update_task.call(&change).await.status, 200);
    let other = create(&mut create_task, &json!({"title": "t"})).await;
    assert_eq!(sent(&environment, TASK_QUEUE).await, [other]);
    environment
        .execute("update tasks set enqueued_at = null, updated_at = now() - interval '1 hour'")
        .await;
    let mut reconciler = environment.function("task-reconciler").start().await;
    let swept = reconciler.invoke(&json!({})).await;
    swept.unwrap_or_else(|error| panic!("the sweep fails: {error}"));
    assert_eq!(
        sent(&environment, &queue).await,
        [normal, urgent],
        "what the task-reconciler has sent to {queue}"
    );
    assert_eq!(
        sent(&environment, TASK_QUEUE).await,
        [other],
        "what the task-reconciler has sent to {TASK_QUEUE}"
    );
    let unsent = environment.rows("select id from tasks where enqueued_at is null").await;
    assert!(unsent.is_empty(), "not marked as enqueued: {unsent:?}");
}

#[tokio::test]
async fn second_queue_redelivers_after_the_retry_delay() {
    let environment = TestEnvironment::new().await;
    let queue = high_queue(&environment.template);
    let mut create_task = environment.function("create-task").start().await;
    let fails = json!({"title": "t", "description": "retry: not yet", "priority": "high"});
    let (done, fails) = (
        create(&mut create_task, &high("t")).await,
        create(&mut create_task, &fails).await,
    );
    let (_, name) = environment
        .queue_url(&queue)
        .rsplit_once('/')
        .expect("a URL has a path");
    let records = environment.receive_all(&queue, 2).await.into_iter().map(|message| {
        let mut record = message.record();
        record["eventSourceARN"] = json!(format!("arn:aws:sqs:us-east-1:000000000000:{name}"));
        record
    });
    let event = events::batch(records.collect());
    let starting = environment.function("task-processor").with("RETRY_DELAY_SECONDS", "1");
    let mut processor = starting.start().await;
    let response = processor
        .invoke(&event)
        .await
        .unwrap_or_else(|error| panic!("the batch fails: {error}"));
    let failures = response["batchItemFailures"].as_array().map(Vec::len);
    assert_eq!(failures, Some(1), "one of two records fails: {response}");
    assert_eq!(environment.row(done).await["status"], "completed");
    assert_eq!(environment.row(fails).await["status"], "pending");
    let properties = &environment.template.resource(&queue)["Properties"];
    let visibility = &properties["VisibilityTimeout"];
    let what = format!("the message is visible again after a second, not after {visibility} s");
    let again = eventually(10, &what, async || {
        environment
            .receive(&queue, 10)
            .await
            .into_iter()
            .find(|again| again.receives == 2)
    });
    let again = again.await;
    assert_eq!(again.body, json!({"task_id": fails}).to_string(), "what came back");
}

#[tokio::test]
async fn idempotency_key_covers_the_priority() {
    let environment = TestEnvironment::new().await;
    let mut create_task = environment.function("create-task").start().await;
    let once = |body: &Value, key: &str| events::with_header(post(body), "Idempotency-Key", key);
    for (key, body, others) in [
        (
            "a",
            high("t"),
            [json!({"title": "t"}), json!({"title": "t", "priority": "normal"})],
        ),
        ("b", json!({"title": "t"}), [high("t"), json!({"title": "u"})]),
    ] {
        let first = create_task.call(&once(&body, key)).await;
        assert_eq!(first.status, 201, "{body}");
        let again = create_task.call(&once(&body, key)).await;
        assert_eq!(again.header("idempotent-replayed"), "true", "{body} repeated");
        assert_eq!(again.body, first.body, "the response to {body} repeated");
        for other in others {
            let response = create_task.call(&once(&other, key)).await;
            assert_invalid(&response, "#/header/idempotency-key", &other);
        }
    }
    let same = create_task
        .call(&once(&json!({"title": "t", "priority": "normal"}), "b"))
        .await;
    assert_eq!(
        same.header("idempotent-replayed"),
        "true",
        "an explicit normal is the same as none"
    );
    assert_eq!(environment.rows("select id from tasks").await.len(), 2, "tasks");
}

#[tokio::test]
async fn previous_version_keeps_working_and_its_data_stays_valid() {
    let environment = TestEnvironment::new().await;
    // A database from before the deployment, which is then migrated.
    let own: PgConnectOptions = environment.database_url.parse().expect("a URL");
    let name = format!("{}_before", own.get_database().expect("a database"));
    environment
        .execute(&format!(r#"create database "{name}" template template0"#))
        .await;
    let other = own.database(&name);
    let mut connection = PgConnection::connect_with(&other).await.expect("it exists");
    let mut before = Migrator::DEFAULT;
    let migrations = migrations().await;
    let released = migrations
        .iter()
        .filter(|migration| migration.version <= LAST_MIGRATION);
    before.migrations = released.cloned().collect::<Vec<_>>().into();
    let migrated = async {
        before.run(&mut connection).await?;
        let insert = "insert into tasks (title, status, settled_at) values ('old', 'completed', now())";
        sqlx::raw_sql(insert).execute(&mut connection).await?;
        migrations.run(&mut connection).await?;
        sqlx::raw_sql(&roles()).execute(&mut connection).await?;
        anyhow::Ok(())
    };
    migrated
        .await
        .unwrap_or_else(|error| panic!("a database with tasks cannot be migrated: {error:#}"));
    let mut get_task = environment
        .function("get-task")
        .with("DATABASE_URL", other.to_url_lossy().as_str())
        .start()
        .await;
    let old = get_task.call(&events::task("GET", 1, "")).await;
    drop(get_task);
    connection.close().await.expect("closed");
    environment
        .execute(&format!(r#"drop database "{name}" with (force)"#))
        .await;
    assert_eq!(old.json()["priority"], "normal", "a task from before the migration");

    // The previous version's statements, with the roles of its functions.
    environment
        .execute(
            "begin;
             set local role writer;
             insert into tasks (title, description, created_by) values ('t', null, 'alice');
             update tasks set enqueued_at = now() where id = 1;
             commit;
             begin;
             set local role processor;
             update tasks
             set status = 'processing', result = null, attempts = attempts + 1, fencing_token = fencing_token + 1,
                 lease_expires_at = now() + interval '1 s', requested_at = requested_at, started_at = now(),
                 settled_at = null, version = version + 1, updated_at = now()
             where id = 1;
             update tasks
             set status = 'completed', result = 'r', lease_expires_at = null, settled_at = now(), version = version + 1,
                 updated_at = now()
             where id = 1;
             commit",
        )
        .await;
    let mut get_task = environment.function("get-task").start().await;
    let new = get_task.call(&by_alice(events::task("GET", 1, ""))).await;
    assert_eq!(
        (&new.json()["priority"], &new.json()["status"]),
        (&json!("normal"), &json!("completed")),
        "a task that the previous version created and completed: {}",
        new.body
    );
    // A key that it stored: the fingerprint of title and description.
    environment
        .execute(
            r#"insert into idempotency_keys (key, fingerprint, task_id, expires_at)
               select 'order-1"alice', sha256(convert_to(jsonb_build_array('t', 'd')::text, 'UTF8')), 7, now() + interval '1 h'"#,
        )
        .await;
    let mut create_task = environment.function("create-task").start().await;
    let repeated = events::with_header(
        post(&json!({"title": "t", "description": "d"})),
        "Idempotency-Key",
        "order-1",
    );
    let repeated = create_task.call(&repeated).await;
    assert_eq!(
        (repeated.status, repeated.header("idempotent-replayed")),
        (201, "true"),
        "a request first served by the previous version: {}",
        repeated.body
    );
    assert_eq!(
        (&repeated.json()["id"], &repeated.json()["priority"]),
        (&json!(7), &json!("normal"))
    );
}

fn number(value: &Value) -> u64 {
    let text = value.as_str().and_then(|text| text.parse().ok());
    value.as_u64().or(text).unwrap_or_default()
}

fn list(value: &Value) -> Vec<&Value> {
    value
        .as_array()
        .map_or_else(|| vec![value], |list| list.iter().collect())
}

/// The actions that a function's role allows on a resource.
fn allowed(template: &Template, function: &str, resource: &str) -> Vec<String> {
    let role = template.resource(&format!("{function}Role"));
    let policies = role["Properties"]["Policies"].as_array().into_iter().flatten();
    let statements = policies.flat_map(|policy| list(&policy["PolicyDocument"]["Statement"]));
    let statements = statements.filter(|statement| mentions(&statement["Resource"], resource));
    let actions = statements.flat_map(|statement| list(&statement["Action"]));
    actions
        .filter_map(|action| action.as_str().map(str::to_owned))
        .collect()
}

fn read(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).expect("JSON")
}

#[tokio::test]
async fn second_queue_is_complete_and_openapi_has_the_priority() {
    let templates = std::env::var("TEMPLATES").expect("make grade sets it");
    let capacity = read(&Path::new(&templates).join("sandbox.json"))["Mappings"]["Capacity"].clone();
    for environment in ["sandbox", "prod"] {
        let template = &Template::of(environment);
        let name = &high_queue(template);
        let properties = |name: &str| &template.resource(name)["Properties"];
        let (queue, first) = (properties(name), properties(TASK_QUEUE));
        let encrypted = queue["SqsManagedSseEnabled"] == true || !queue["KmsMasterKeyId"].is_null();
        assert!(encrypted, "{name} is not encrypted");
        assert!(
            number(&queue["VisibilityTimeout"]) >= number(&first["VisibilityTimeout"]),
            "messages of {name} are redelivered while they are processed"
        );
        let redrive = &queue["RedrivePolicy"];
        assert_eq!(number(&redrive["maxReceiveCount"]), 5, "maxReceiveCount of {name}");
        let mut queues = template.resources("AWS::SQS::Queue").into_keys();
        let dead_letters = queues.find(|queue| mentions(&redrive["deadLetterTargetArn"], queue));
        let dead_letters = dead_letters.unwrap_or_else(|| panic!("{name} has no dead-letter queue"));
        let sources = &properties(dead_letters)["RedriveAllowPolicy"];
        let taken = if dead_letters == "TaskDeadLetterQueue" { 2 } else { 1 };
        let lets_in = sources["redrivePermission"] != "byQueue" || list(&sources["sourceQueueArns"]).len() >= taken;
        assert!(lets_in, "{dead_letters} accepts no messages of {name}");

        let mapping = second_mapping(template);
        assert!(
            list(&mapping["FunctionResponseTypes"]).contains(&&json!("ReportBatchItemFailures")),
            "one failed record of {name} redelivers its whole batch"
        );
        // Lambda deletes what no filter matches, and the messages say nothing of a priority.
        assert!(
            mapping["FilterCriteria"].is_null(),
            "a filter deletes messages of {name} that the processor has not seen"
        );
        let is_off = mapping["Enabled"] == false || mapping["Enabled"] == "false";
        assert!(!is_off, "no message of {name} is processed: its mapping is not enabled");
        let concurrency = |mapping: &Value| number(&mapping["ScalingConfig"]["MaximumConcurrency"]);
        assert!(concurrency(mapping) >= 2, "the concurrency of {name} is not bounded");
        let limits = &properties("ApiStage")["MethodSettings"][0];
        let most = number(&limits["ThrottlingBurstLimit"])
            + 6 * number(&limits["ThrottlingRateLimit"])
            + concurrency(mapping)
            + concurrency(template.trigger(TASK_QUEUE, "task-processor"))
            + 2;
        let available = number(&capacity[environment]["MaxConnections"]);
        assert!(
            most <= available,
            "{environment} needs {most} connections and has {available}"
        );

        for (function, actions) in [
            ("CreateTaskFunction", &["sqs:SendMessage"][..]),
            ("ProcessTaskFunction", &["sqs:SendMessage"]),
            ("TaskReconcilerFunction", &["sqs:SendMessage"]),
            ("AdminRedriveFunction", &["sqs:SendMessage"]),
            (
                "TaskProcessorFunction",
                &[
                    "sqs:ReceiveMessage",
                    "sqs:DeleteMessage",
                    "sqs:GetQueueAttributes",
                    "sqs:ChangeMessageVisibility",
                ],
            ),
        ] {
            let allowed = allowed(template, function, name);
            for action in actions {
                assert!(
                    allowed.iter().any(|known| known == action),
                    "{function} may not {action} on {name}"
                );
            }
            assert!(
                !allowed.iter().any(|action| action.contains('*')),
                "{function} may {allowed:?} on {name}"
            );
        }
        for role in template.resources("AWS::IAM::Role").into_keys() {
            let Some(function) = role.strip_suffix("Role") else {
                continue;
            };
            let known = allowed(template, function, TASK_QUEUE);
            let more = allowed(template, function, name);
            let more: Vec<&String> = more.iter().filter(|action| !known.contains(action)).collect();
            assert!(
                more.is_empty(),
                "{function} may {more:?} on {name}, and not on {TASK_QUEUE}"
            );
        }
        assert!(
            mentions(&properties("QueuePolicy")["Queues"], name),
            "{name} may be used without TLS"
        );
        let endpoint = &properties("QueueEndpoint")["PolicyDocument"];
        assert!(
            mentions(endpoint, name),
            "the functions cannot reach {name} through QueueEndpoint"
        );
        let mut alarms = template.resources("AWS::CloudWatch::Alarm").into_values();
        let alarm = alarms.find(|alarm| {
            let alarm = &alarm["Properties"];
            alarm["MetricName"] == "ApproximateAgeOfOldestMessage" && mentions(&alarm["Dimensions"], name)
        });
        let alarm = alarm.unwrap_or_else(|| panic!("no alarm monitors the age of {name}'s messages"));
        assert!(
            mentions(&alarm["Properties"]["AlarmActions"], "AlarmTopic"),
            "that alarm notifies no one"
        );
    }

    let document = read(Path::new("../../openapi.json"));
    let task = document["components"]["schemas"]["Task"]["properties"]["priority"].is_object();
    assert!(task, "openapi.json has no priority of a task");
    let parameters = document["paths"]["/tasks"]["get"]["parameters"]
        .as_array()
        .into_iter()
        .flatten();
    let mut names = parameters.map(|parameter| &parameter["name"]);
    assert!(
        names.any(|name| name == "priority"),
        "openapi.json has no parameter priority of GET /tasks"
    );
}
