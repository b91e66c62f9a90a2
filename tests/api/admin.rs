//! `GET /admin/status`, `GET /admin/tasks/{id}`, `GET /admin/failures`, `POST /admin/redrive`,
//! `GET /admin/actions`, `GET /admin/dashboard`

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use shared::domain::Status;
use sqlx::PgPool;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::support::{
    App, Gateway, Proxy, Response, client_config, execute, hanging_sqs, refusing_sqs, row, scripted_sqs, store_status,
    task,
};

/// The expected counts: these, and 0 for every other status. Without the age of the oldest task.
fn counts(expected: &[(Status, i64)]) -> Value {
    let total: i64 = expected.iter().map(|(_, count)| count).sum();
    let mut counts = json!({"total": total, "oldest_pending_seconds": null});
    for status in Status::ALL {
        let found = expected.iter().find(|(other, _)| *other == status);
        counts[status.as_str()] = json!(found.map_or(0, |(_, count)| *count));
    }
    counts
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn status_without_tasks_is_complete(pool: PgPool) {
    let response = App::new(&pool).get("/admin/status").await;
    assert_eq!(response.status(), 200);
    let mut status = response.json();
    let generated = status["generated_at"].take();
    OffsetDateTime::parse(generated.as_str().expect("a time"), &Rfc3339).expect("RFC 3339");
    let throughput = status["throughput"].take();
    let throughput = throughput.as_array().expect("a list");
    assert_eq!(throughput.len(), 30);
    let is_zero =
        |minute: &Value| minute["created"] == 0 && minute["completed"] == 0 && minute["p99_seconds"].is_null();
    assert!(throughput.iter().all(is_zero), "{throughput:?}");
    let empty = json!({"visible": 0, "in_flight": 0, "delayed": 0});
    assert_eq!(
        status,
        json!({
            "generated_at": null,
            "tasks": counts(&[]),
            "throughput": null,
            "queue": empty,
            "dead_letter_queue": empty,
            "paused": null,
            "problems": [],
            "recent_tasks": [],
            "recent_failures": [],
        })
    );
}

/// In the response, each of these characters has 7 bytes.
#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn status_with_longest_tasks_fits_into_response(pool: PgPool) {
    execute(
        &pool,
        "insert into tasks (title, description, status, result, settled_at)
         select repeat(chr(1), 255), repeat(chr(1), 10000), 'failed', repeat(chr(1), 10000), now()
         from generate_series(1, 20)",
    )
    .await;
    let response = App::new(&pool).get("/admin/status").await;
    let listed = |name: &str| response.json()[name].as_array().map(Vec::len);
    assert_eq!(
        (listed("recent_tasks"), listed("recent_failures")),
        (Some(10), Some(10))
    );
    let bytes = json!({"body": response.text()}).to_string().len();
    assert!(bytes < 6_000_000, "{bytes}");
}

/// The rules for titles were different once.
#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn stored_invisible_title_is_shown(pool: PgPool) {
    let app = App::new(&pool);
    let id = task(&pool, "\u{200b}").await;
    let status = app.get("/admin/status").await;
    assert_eq!(
        (status.status(), &status.json()["recent_tasks"][0]["title"]),
        (200, &json!("\u{200b}"))
    );
    assert_eq!(app.get(format!("/tasks/{id}")).await.json()["title"], "\u{200b}");
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn status_counts_tasks_and_messages(pool: PgPool) {
    let app = App::new(&pool);
    let (queue, dead) = (app.queue().await, app.dead_letters().await);
    queue.send(&["a".to_owned(), "b".to_owned(), "c".to_owned()]).await;
    queue.receive_as_event(1).await;
    dead.send(&["d".to_owned()]).await;
    // In the last full minute, so that the rows cannot straddle two minutes.
    execute(
        &pool,
        "insert into tasks (title, status, result, attempts, created_at, requested_at, started_at, settled_at)
         select 't' || n, case when n <= 4 then 'completed'::task_status else 'failed' end, 'r', 1, at, at, at,
                at + n * interval '1 s'
         from generate_series(1, 5) as n, (select date_trunc('minute', now()) - interval '1 minute') as start (at)",
    )
    .await;
    execute(
        &pool,
        "insert into tasks (title, status, settled_at, requested_at, created_at)
         values ('long ago', 'completed', now() - interval '31 min', now() - interval '1 h', now() - interval '1 h')",
    )
    .await;
    execute(
        &pool,
        "insert into tasks (title, requested_at) values ('waiting', now() - interval '90 s')",
    )
    .await;
    let leased = "insert into tasks (title, status, lease_expires_at) values ('leased', 'processing', now())";
    execute(&pool, leased).await;

    let status = app.get("/admin/status").await.json();
    let mut tasks = status["tasks"].clone();
    let oldest = tasks["oldest_pending_seconds"].take().as_f64().expect("a number");
    assert!((90.0..120.0).contains(&oldest), "{oldest}");
    let expected = [
        (Status::Pending, 1),
        (Status::Processing, 1),
        (Status::Completed, 5),
        (Status::Failed, 1),
    ];
    assert_eq!(tasks, counts(&expected));
    assert_eq!(status["queue"], json!({"visible": 2, "in_flight": 1, "delayed": 0}));
    assert_eq!(status["dead_letter_queue"]["visible"], 1);
    let throughput = status["throughput"].as_array().expect("a list");
    let busy: Vec<&Value> = throughput.iter().filter(|minute| minute["failed"] != 0).collect();
    assert_eq!(busy.len(), 1, "{throughput:?}");
    assert_eq!((&busy[0]["created"], &busy[0]["completed"]), (&json!(5), &json!(4)));
    assert_eq!(busy[0]["p50_seconds"], 3.0);
    assert!(
        busy[0]["p99_seconds"]
            .as_f64()
            .is_some_and(|p99| (4.9..=5.0).contains(&p99))
    );
    let failures = status["recent_failures"].as_array().expect("a list");
    assert_eq!((failures.len(), &failures[0]["title"]), (1, &json!("t5")));

    // Newest first, each exactly as GET /tasks/{id} shows it.
    let recent = status["recent_tasks"].as_array().expect("a list");
    assert_eq!(recent.len(), 8);
    for task in recent {
        let response = app.get(format!("/tasks/{}", task["id"])).await;
        assert_eq!(*task, response.json());
    }
    assert!(recent.is_sorted_by_key(|task| -task["id"].as_i64().expect("an id")));
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn large_counts_are_labeled_estimates(pool: PgPool) {
    // Created in one minute, which is a full one.
    execute(
        &pool,
        "insert into tasks (title, status, created_at, requested_at, started_at, settled_at)
         select 't', case when n % 9 = 0 then 'failed'::task_status else 'completed' end, at, at, at, at + interval '2 s'
         from generate_series(1, 20000) as n, (select date_trunc('minute', now()) - interval '3 minutes') as start (at)",
    )
    .await;
    execute(
        &pool,
        "insert into tasks (title, requested_at, created_at)
         select 't', now() - interval '1 h', now() - interval '1 h' from generate_series(1, 3000)",
    )
    .await;
    let status = App::new(&pool).get("/admin/status").await.json();
    assert_eq!(
        status["estimates"],
        json!(["tasks.processing", "tasks.completed", "tasks.total", "throughput"]),
        "{status:#}"
    );
    let about = |value: &Value, expected: i64| {
        let value = value.as_i64().expect("a number");
        assert!((value - expected).abs() <= 1024, "{value} instead of {expected}");
    };
    let tasks = &status["tasks"];
    assert_eq!((&tasks["pending"], &tasks["failed"]), (&json!(3000), &json!(2222)));
    about(&tasks["completed"], 17_778);
    about(&tasks["total"], 23_000);
    let minutes = status["throughput"].as_array().expect("a list");
    let busy: Vec<&Value> = minutes.iter().filter(|minute| minute["created"] != 0).collect();
    assert_eq!((minutes.len(), busy.len()), (30, 1), "{minutes:?}");
    about(&busy[0]["created"], 20_000);
    about(&busy[0]["completed"], 17_778);
    about(&busy[0]["failed"], 2_222);
    assert_eq!(busy[0]["p50_seconds"], 2.0);
}

/// More tasks of a status than the sample is read for: their number follows the size of the table.
#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn millions_are_estimated_from_size_of_table(pool: PgPool) {
    // Only the sample of so many.
    execute(
        &pool,
        "insert into tasks (id, title, status, created_at, settled_at) overriding system value
         select n * 512, 't', case when n <= 100 then 'failed'::task_status else 'completed' end, '2020-01-01', '2020-01-01'
         from generate_series(1, 10100) as n",
    )
    .await;
    execute(&pool, "analyze tasks").await;
    let tasks = async || App::new(&pool).get("/admin/status").await.json()["tasks"].take();
    let sampled = tasks().await;
    assert_eq!(
        (&sampled["failed"], &sampled["completed"]),
        (&json!(51_200), &json!(5_120_000))
    );
    execute(
        &pool,
        "update pg_class set reltuples = 20000000 where relname = 'tasks'",
    )
    .await;
    let tasks = tasks().await;
    assert_eq!(
        (&tasks["failed"], &tasks["completed"], &tasks["total"]),
        (&json!(51_200), &json!(19_948_800), &json!(20_000_000))
    );
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn every_status_is_counted_and_filterable(pool: PgPool) {
    let app = App::new(&pool);
    // Another number of tasks for each status.
    let expected: Vec<(Status, i64)> = Status::ALL.into_iter().zip(1..).collect();
    for (status, count) in &expected {
        for _ in 0..*count {
            store_status(&pool, task(&pool, "t").await, *status).await;
        }
    }
    for (status, count) in &expected {
        let path = format!("/tasks?count=true&status={}", status.as_str());
        let response = app.get(path).await;
        assert_eq!(response.header("x-total-count"), count.to_string(), "{status:?}");
    }
    let mut tasks = app.get("/admin/status").await.json()["tasks"].take();
    tasks["oldest_pending_seconds"].take();
    assert_eq!(tasks, counts(&expected));
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn recent_failures_are_sorted_by_failure_time(pool: PgPool) {
    execute(
        &pool,
        "insert into tasks (title, status, settled_at)
         select 'failed ' || n || ' min ago', 'failed', now() - n * interval '1 min' from generate_series(12, 1, -1) as n
         order by n % 5",
    )
    .await;
    let status = App::new(&pool).get("/admin/status").await.json();
    let failures = status["recent_failures"].as_array().expect("a list");
    let titles: Vec<&str> = failures.iter().filter_map(|task| task["title"].as_str()).collect();
    let expected: Vec<String> = (1..=10).map(|minutes| format!("failed {minutes} min ago")).collect();
    assert_eq!(titles, expected);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn manual_completion_has_no_latency(pool: PgPool) {
    execute(
        &pool,
        "insert into tasks (title, status, requested_at, settled_at)
         values ('completed by a client', 'completed', now() - interval '1 day', now())",
    )
    .await;
    let status = App::new(&pool).get("/admin/status").await.json();
    let throughput = status["throughput"].as_array().expect("a list");
    let completed: Vec<&Value> = throughput.iter().filter(|minute| minute["completed"] == 1).collect();
    assert_eq!((completed.len(), &completed[0]["p99_seconds"]), (1, &Value::Null));
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn status_without_sqs_is_partial(pool: PgPool) {
    task(&pool, "t").await;
    for sqs in [hanging_sqs().await, refusing_sqs().await] {
        let app = App::new(&pool).with_sqs(sqs);
        let response = app.get("/admin/status").await;
        let status = response.json();
        assert_eq!((response.status(), &status["tasks"]["total"]), (200, &json!(1)));
        assert_eq!(
            (&status["queue"], &status["dead_letter_queue"]),
            (&Value::Null, &Value::Null)
        );
        assert_eq!(status["problems"].as_array().map(Vec::len), Some(2), "{status}");
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn status_takes_one_round_trip(pool: PgPool) {
    let proxy = Proxy::start(&pool).await;
    let app = App::with_database(proxy.database(&pool));
    let mut used = Vec::new();
    for _ in 0..3 {
        let before = proxy.round_trips();
        app.get("/admin/status").await;
        used.push(proxy.round_trips() - before);
    }
    assert_eq!(used[1..], [1, 1]);
}

#[tokio::test]
async fn status_without_database_is_503() {
    let response = App::without_database().get("/admin/status").await;
    response.assert_problem(503, "Service Unavailable");
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn task_has_timeline(pool: PgPool) {
    let app = App::new(&pool);
    let id = task(&pool, "t").await;
    let get = async |id: i64| app.get(format!("/admin/tasks/{id}")).await;
    execute(
        &pool,
        "update tasks set status = 'failed', result = 'r', created_at = '2026-01-01', enqueued_at = '2026-01-02 00:00:01',
         requested_at = '2026-01-02', started_at = '2026-01-03', settled_at = '2026-01-04'",
    )
    .await;
    let task = get(id).await.json();
    assert_eq!((&task["id"], &task["result"]), (&json!(id), &json!("r")));
    let at = |day: u8, time: &str, event: &str| json!({"at": format!("2026-01-0{day}T{time}Z"), "event": event});
    assert_eq!(
        task["timeline"],
        json!([
            at(1, "00:00:00", "created"),
            at(2, "00:00:00", "requested"),
            at(2, "00:00:01", "enqueued"),
            at(3, "00:00:00", "claimed"),
            at(4, "00:00:00", "failed"),
        ])
    );

    assert_eq!(task["created_by"], Value::Null, "the row is older than the column");

    execute(&pool, "insert into tasks (title, created_by) values ('new', 'bob')").await;
    assert_eq!(get(id + 1).await.json()["created_by"], "bob");
    let events = |response: Response| {
        let timeline = response.json()["timeline"].clone();
        let events = timeline.as_array().expect("a list").iter();
        events
            .map(|entry| entry["event"].as_str().expect("text").to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(events(get(id + 1).await), ["created"]);
    get(id + 2).await.assert_problem(404, "Not Found");
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn failures_are_grouped_without_ids_and_numbers(pool: PgPool) {
    execute(
        &pool,
        "insert into tasks (title, status, result, settled_at)
         select 't', status::task_status, result, date_trunc('hour', now()) - minutes * interval '1 min'
         from (values
             ('failed', 'HTTP 503 after 2.5 s from 10.0.0.7:8080', 10),
             ('failed', 'HTTP 500 after 31 s from db-2.internal:80', 30),
             ('failed', 'HTTP 502 after 0.1 s from 10.0.0.9:8080', 20),
             ('failed', 'no order 3f2a9c1e-0000-4000-8000-00c0ffee0001', 5),
             ('failed', 'no order 7', 15),
             ('failed', null, 1),
             ('failed', 'HTTP 503 after 1 s from 10.0.0.7:8080', 25 * 60),
             ('completed', 'HTTP 503 after 1 s from 10.0.0.7:8080', 2),
             ('failed', 'no order', 3)
         ) as t (status, result, minutes)",
    )
    .await;
    let response = App::new(&pool).get("/admin/failures").await;
    assert_eq!(response.status(), 200);
    let failures = response.json();
    assert_eq!(failures["is_complete"], true);
    let since = OffsetDateTime::parse(failures["since"].as_str().expect("a time"), &Rfc3339).expect("RFC 3339");
    let age = OffsetDateTime::now_utc() - since - Duration::from_secs(24 * 60 * 60);
    assert!(age.unsigned_abs() < Duration::from_secs(60), "{age}");
    let groups = failures["groups"].as_array().expect("a list");
    let shown: Vec<Value> = groups
        .iter()
        .map(|group| {
            json!([
                group["error"],
                group["count"],
                group["example_id"],
                group["example_error"]
            ])
        })
        .collect();
    assert_eq!(
        shown,
        [
            json!([
                "HTTP # after # s from #",
                3,
                1,
                "HTTP 503 after 2.5 s from 10.0.0.7:8080"
            ]),
            json!(["no order #", 2, 4, "no order 3f2a9c1e-0000-4000-8000-00c0ffee0001"]),
            json!(["", 1, 6, null]),
            json!(["no order", 1, 9, "no order"]),
        ]
    );
    let minutes = |from: &str, to: &str| {
        let time = |name: &str| OffsetDateTime::parse(groups[0][name].as_str().expect("a time"), &Rfc3339);
        (time(to).expect("RFC 3339") - time(from).expect("RFC 3339")).whole_minutes()
    };
    assert_eq!(minutes("first_at", "last_at"), 20);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn group_of_failures_is_retried_as_shown(pool: PgPool) {
    execute(
        &pool,
        "insert into tasks (title, status, result, settled_at)
         select 't', 'failed', case n % 2 when 0 then 'HTTP 50' || n else 'no order ' || n end,
                now() - case when n > 4 then interval '25 hours' else interval '1 hour' end
         from generate_series(1, 6) as n",
    )
    .await;
    let app = App::new(&pool);
    let failures = app.get("/admin/failures").await.json();
    let group = failures["groups"].as_array().expect("a list").iter();
    let group = group.filter(|group| group["error"] == "HTTP #").collect::<Vec<_>>();
    assert_eq!((group.len(), &group[0]["count"]), (1, &json!(2)));
    // By the group, or by the reason of any of its tasks.
    for (error, count) in [(&group[0]["error"], 2), (&group[0]["example_error"], 0)] {
        let body = json!({"action": "retry", "error": error, "ended_after": failures["since"], "dry_run": false});
        let action = app.post("/admin/actions", body).await.json();
        assert_eq!(
            (&action["count"], &action["is_complete"]),
            (&json!(count), &json!(true))
        );
    }
    let pending: Vec<i64> = sqlx::query_scalar("select id from tasks where status = 'pending' order by id")
        .fetch_all(&pool)
        .await
        .expect("ids");
    assert_eq!(pending, [2, 4]);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn many_failures_are_grouped_in_part(pool: PgPool) {
    execute(
        &pool,
        "insert into tasks (title, status, result, settled_at)
         select 't', 'failed', repeat('x', 1 + n % 60), now() - n * interval '1 s' from generate_series(1, 10001) as n",
    )
    .await;
    let app = App::new(&pool);
    let read = async || {
        let failures = app.get("/admin/failures").await.json();
        let groups = failures["groups"].as_array().map(Vec::len);
        (failures["is_complete"] == true, groups)
    };
    assert_eq!(read().await, (false, Some(50)));
    execute(&pool, "delete from tasks where id > 10000").await;
    assert_eq!(read().await, (true, Some(50)));
    execute(&pool, "delete from tasks").await;
    assert_eq!(read().await, (true, Some(0)));
    let response = App::without_database().get("/admin/failures").await;
    response.assert_problem(503, "Service Unavailable");
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn redrive_moves_messages(pool: PgPool) {
    let app = App::new(&pool);
    let (source, dead) = (app.queue().await, app.dead_letters().await);
    dead.send(&["a".to_owned(), "b".to_owned()]).await;
    let response = app.post("/admin/redrive", None).await;
    assert_eq!(
        (response.status(), response.json()),
        (202, json!({"message": "2 messages were moved back to the task queue."}))
    );
    assert_eq!((source.bodies().await.len(), dead.bodies().await.len()), (2, 0));
    assert_eq!(actions(&app).await, [json!(["tester", "redrive", null, 2])]);
}

/// The redrive has begun when it is recorded.
#[tokio::test]
async fn redrive_without_database_is_202() {
    let app = App::without_database();
    app.dead_letters().await.send(&["a".to_owned()]).await;
    assert_eq!(app.post("/admin/redrive", None).await.status(), 202);
    assert_eq!(app.queue().await.bodies().await, ["a"]);
}

/// The recorded actions, newest first: operator, action, task, count.
async fn actions(app: &App) -> Vec<Value> {
    let response = app.get("/admin/actions").await;
    assert_eq!(response.status(), 200);
    let actions = response.json();
    let actions = actions.as_array().expect("a list").iter();
    actions
        .map(|action| json!([action["operator"], action["action"], action["task_id"], action["count"]]))
        .collect()
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn change_by_admin_is_recorded(pool: PgPool) {
    let app = App::new(&pool);
    let id = task(&pool, "t").await;
    let path = format!("/tasks/{id}");
    let patched = app.patch(&path, json!({"title": "new"})).await;
    assert_eq!((patched.status(), &patched.json()["title"]), (200, &json!("new")));
    assert_eq!(app.post(format!("{path}/cancel"), None).await.status(), 200);
    assert_eq!(app.post(format!("{path}/process"), None).await.status(), 202);
    assert_eq!(app.delete(&path).await.status(), 200);
    let recorded = |action: &str| json!(["tester", action, id, 1]);
    assert_eq!(
        actions(&app).await,
        ["delete", "process", "cancel", "update"].map(recorded)
    );

    let first = app.get("/admin/actions").await.json()[3].clone();
    let at = OffsetDateTime::parse(first["at"].as_str().expect("a time"), &Rfc3339).expect("RFC 3339");
    assert!((OffsetDateTime::now_utc() - at).unsigned_abs() < Duration::from_secs(60));
    assert_eq!((&first["id"], &first["filter"]), (&json!(1), &Value::Null));
    let members: BTreeSet<&str> = first
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        members,
        BTreeSet::from([
            "action",
            "at",
            "count",
            "filter",
            "id",
            "is_complete",
            "operator",
            "task_id"
        ])
    );
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn request_that_changes_nothing_is_not_recorded(pool: PgPool) {
    let app = App::new(&pool);
    let id = task(&pool, "t").await;
    let path = format!("/tasks/{id}");
    // Refused, unknown, or without effect.
    app.patch(&path, json!({"title": "new"}))
        .header("if-match", "\"9\"")
        .await;
    app.delete(&path).header("if-match", "\"9\"").await;
    app.post(format!("{path}/cancel"), None)
        .header("if-match", "\"9\"")
        .await;
    app.patch(&path, json!({})).await;
    app.get(&path).await;
    for action in ["process", "cancel"] {
        app.post(format!("/tasks/{}/{action}", id + 1), None).await;
    }
    app.delete(format!("/tasks/{}", id + 1)).await;
    store_status(&pool, id, Status::Completed).await;
    app.post(format!("{path}/cancel"), None)
        .await
        .assert_problem(409, "Conflict");
    store_status(&pool, id, Status::Processing).await;
    execute(&pool, "update tasks set lease_expires_at = now() + interval '1 min'").await;
    app.post(format!("{path}/process"), None)
        .await
        .assert_problem(409, "Conflict");
    // Nor is what users do with their own tasks, or the creation of one.
    let created = app.as_user("bob").post("/tasks", json!({"title": "t"})).await;
    let own = format!("/tasks/{}", created.json()["id"]);
    app.as_user("bob").patch(&own, json!({"title": "new"})).await;
    app.as_user("bob").post(format!("{own}/cancel"), None).await;
    app.as_user("bob").post(format!("{own}/process"), None).await;
    assert_eq!(app.as_user("bob").delete(&own).await.status(), 200);
    app.post("/tasks", json!({"title": "t"})).await;
    assert_eq!(actions(&app).await, [Value::Null; 0]);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn older_actions_follow_link(pool: PgPool) {
    execute(
        &pool,
        "insert into operator_actions (operator, action, count)
         select 'alice', 'redrive', n from generate_series(1, 201) as n",
    )
    .await;
    let app = App::new(&pool);
    let mut path = "/admin/actions".to_owned();
    let mut counts = Vec::new();
    for (expected, next) in [(100, Some(102)), (100, Some(2)), (1, None)] {
        let response = app.get(&path).await;
        let page = response.json();
        let page = page.as_array().expect("a list");
        assert_eq!(page.len(), expected);
        counts.extend(page.iter().map(|action| action["count"].as_i64().expect("a number")));
        let link = next.map(|id| format!("<?before={id}>; rel=\"next\""));
        assert_eq!(response.header("link"), link.unwrap_or_default());
        path = format!("/admin/actions?before={}", next.unwrap_or_default());
    }
    assert_eq!(counts, (1..=201).rev().collect::<Vec<_>>());
    for bad in ["before=0", "before=x", "before=1&limit=3", "q=1", "before=+1"] {
        let response = app.get(format!("/admin/actions?{bad}")).await;
        response.assert_problem(422, "Unprocessable Entity");
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn viewer_sees_everything_and_changes_nothing(pool: PgPool) {
    let app = App::new(&pool);
    let id = task(&pool, "t").await;
    execute(&pool, "update tasks set created_by = 'bob'").await;
    app.dead_letters().await.send(&["a".to_owned()]).await;
    let viewer = app.as_viewer();
    for path in ["/admin/status", "/admin/failures", "/admin/actions", "/tasks", "/ready"] {
        assert_eq!(viewer.get(path).await.status(), 200, "{path}");
    }
    for path in [format!("/tasks/{id}"), format!("/admin/tasks/{id}")] {
        assert_eq!(viewer.get(path).await.json()["id"], id);
    }
    assert_eq!(viewer.get("/tasks").await.json()[0]["id"], id);
    let before = row(&pool, id).await;
    let path = format!("/tasks/{id}");
    for request in [
        viewer.post("/tasks", json!({"title": "mine"})),
        viewer.put(&path, json!({"title": "mine"})),
        viewer.patch(&path, json!({"title": "mine"})),
        viewer.post(format!("{path}/process"), None),
        viewer.post(format!("{path}/cancel"), None),
        viewer.delete(&path),
        viewer.post("/admin/redrive", None),
    ] {
        let response = request.await;
        response.assert_problem(403, "Forbidden");
        assert_eq!(
            response.json()["detail"],
            "This request requires the admin scope, or the viewer scope if it only reads."
        );
    }
    assert_eq!(row(&pool, id).await, before);
    assert_eq!(app.get("/tasks").await.json().as_array().map(Vec::len), Some(1));
    assert_eq!(app.dead_letters().await.bodies().await, ["a"]);
    assert_eq!((actions(&app).await.len(), app.messages().await.len()), (0, 0));
}

/// Functions whose SQS refuses to start a redrive, with a last one in this state.
async fn with_last_redrive(database: App, status: &'static str) -> App {
    let (url, _) = scripted_sqs(move |action, _| match action {
        "GetQueueAttributes" => json!({"Attributes": {"QueueArn": "arn:aws:sqs:us-east-1:1:dead"}}),
        "ListMessageMoveTasks" => json!({"Results": [
            {"Status": status, "ApproximateNumberOfMessagesMoved": 7, "FailureReason": "AccessDenied"},
        ]}),
        _ => json!({"__type": "com.amazonaws.sqs#UnsupportedOperation", "message": "already running"}),
    })
    .await;
    database.with_sqs(client_config().endpoint_url(url))
}

#[tokio::test]
async fn redrive_while_one_is_running_is_409() {
    let app = with_last_redrive(App::without_database(), "RUNNING").await;
    let response = app.post("/admin/redrive", None).await;
    response.assert_problem(409, "Conflict");
    let detail = "A redrive is already running. Wait until it has moved its messages.";
    assert_eq!(response.json()["detail"], detail);
    // The list of redrives is unavailable, but the refusal is clear.
    let (url, _) = scripted_sqs(|action, _| match action {
        "GetQueueAttributes" => json!({"Attributes": {"QueueArn": "arn:aws:sqs:us-east-1:1:dead"}}),
        _ => {
            json!({"__type": "com.amazonaws.sqs#InvalidParameterValue", "message": "There is already a task running."})
        }
    })
    .await;
    let app = App::without_database().with_sqs(client_config().endpoint_url(url));
    app.post("/admin/redrive", None).await.assert_problem(409, "Conflict");

    let app = with_last_redrive(App::without_database(), "COMPLETED").await;
    let response = app.post("/admin/redrive", None).await;
    response.assert_problem(503, "Service Unavailable");
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn failed_redrive_is_in_status(pool: PgPool) {
    let failure = json!(["The last redrive failed after 7 messages: AccessDenied."]);
    for (state, problems) in [
        ("FAILED", failure),
        ("COMPLETED", json!([])),
        ("RUNNING", json!([])),
        ("CANCELLED", json!([])),
    ] {
        let app = with_last_redrive(App::new(&pool), state).await;
        let response = app.get("/admin/status").await;
        assert_eq!(
            (response.status(), &response.json()["problems"]),
            (200, &problems),
            "{state}"
        );
    }
}

#[tokio::test]
async fn redrive_without_sqs_is_503() {
    for sqs in [hanging_sqs().await, refusing_sqs().await] {
        let app = App::without_database().with_sqs(sqs);
        let started = Instant::now();
        let response = app.post("/admin/redrive", None).await;
        response.assert_problem(503, "Service Unavailable");
        assert_eq!(response.json()["detail"], "The queue is unavailable. Please try again.");
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    }
}

#[tokio::test]
async fn dashboard_shows_every_status() {
    let response = App::without_database().get("/admin/dashboard").await;
    for status in Status::ALL.map(Status::as_str) {
        for part in [
            format!("<symbol id=\"icon-{status}\""),
            format!("data-status=\"{status}\""),
            format!("data-count=\"{status}\""),
            format!("<option value=\"{status}\">"),
            format!(".status.{status} {{"),
        ] {
            assert!(response.text().contains(&part), "{part}");
        }
    }
}

#[tokio::test]
async fn dashboard_policy_allows_only_its_own_code() {
    for gateway in [Gateway::Rest, Gateway::Http] {
        let response = App::without_database().get("/admin/dashboard").via(gateway).await;
        assert_eq!(
            (response.status(), response.header("content-type")),
            (200, "text/html; charset=utf-8")
        );
        let policy = response.header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"),
            "{policy}"
        );
        for element in ["style", "script"] {
            let (_, rest) = response.text().split_once(&format!("<{element}>")).expect("an element");
            let (content, rest) = rest.split_once(&format!("</{element}>")).expect("its end");
            assert!(
                content.len() > 1000 && !rest.contains(&format!("<{element}")),
                "one {element}"
            );
            let hash = STANDARD.encode(Sha256::digest(content));
            assert!(
                policy.contains(&format!("{element}-src 'sha256-{hash}'")),
                "{element}: {policy}"
            );
        }
        for foreign in ["http://", "https://", " style=\"", " onclick="] {
            assert!(
                !response.text().replace("http://www.w3.org/", "").contains(foreign),
                "{foreign}"
            );
        }
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn admin_route_for_non_admin_is_403(pool: PgPool) {
    let app = App::new(&pool);
    let (source, dead) = (app.queue().await, app.dead_letters().await);
    let id = task(&pool, "t").await;
    dead.send(&["a".to_owned()]).await;
    let user = app.as_user("bob");
    for request in [
        user.get("/admin/status"),
        user.get(format!("/admin/tasks/{id}")),
        user.get("/admin/actions"),
        user.get("/admin/failures"),
        user.post("/admin/redrive", None),
    ] {
        request.await.assert_problem(403, "Forbidden");
    }
    assert_eq!((source.bodies().await.len(), dead.bodies().await.len()), (0, 1));
}
