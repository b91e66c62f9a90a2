//! `POST /admin/actions`, `POST /admin/actions/{id}/continue`

use std::time::Duration;

use serde_json::{Value, json};
use shared::domain::Status;
use sqlx::PgPool;

use crate::support::{App, execute, row, store_status, task};

/// The ids of the tasks that satisfy the SQL condition, in ascending order.
async fn ids(pool: &PgPool, condition: &str) -> Vec<i64> {
    let select = format!("select id from tasks where {condition} order by id");
    sqlx::query_scalar(&select).fetch_all(pool).await.expect("ids")
}

/// The response to a dry run of this body: its count, and whether it is exact.
async fn count(app: &App, body: &Value) -> (i64, bool) {
    let response = app.post("/admin/actions", body.clone()).await;
    assert_eq!(response.status(), 200, "{}", response.text());
    let dry_run = response.json();
    assert_eq!(dry_run.as_object().map(|members| members.len()), Some(2), "{dry_run}");
    (
        dry_run["count"].as_i64().expect("a number"),
        dry_run["is_exact"].as_bool().expect("a truth value"),
    )
}

/// Carries out the action, and returns it after its first step.
async fn start(app: &App, body: &Value) -> Value {
    let mut body = body.clone();
    body["dry_run"] = json!(false);
    let response = app.post("/admin/actions", body).await;
    assert_eq!(response.status(), 202, "{}", response.text());
    response.json()
}

async fn resume(app: &App, action: &Value) -> Value {
    let response = app
        .post(format!("/admin/actions/{}/continue", action["id"]), None)
        .await;
    assert_eq!(response.status(), 200, "{}", response.text());
    response.json()
}

/// Carries out the action with all its steps.
async fn carry_out(app: &App, body: &Value) -> Value {
    let mut action = start(app, body).await;
    while action["is_complete"] == false {
        action = resume(app, &action).await;
    }
    action
}

/// One task for each status, of a failed one the reason `no connection`.
async fn one_of_each(pool: &PgPool) {
    for status in Status::ALL {
        store_status(pool, task(pool, status.as_str()).await, status).await;
    }
    execute(
        pool,
        "update tasks set result = 'no connection' where status = 'failed'",
    )
    .await;
    execute(pool, "update tasks set enqueued_at = now()").await;
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn dry_run_changes_nothing(pool: PgPool) {
    one_of_each(&pool).await;
    let app = App::new(&pool);
    let everything = "select jsonb_agg(to_jsonb(tasks) order by id) from tasks";
    let before: Value = sqlx::query_scalar(everything).fetch_one(&pool).await.expect("tasks");
    let all = json!({"created_after": "2020-01-01T00:00:00Z"});
    for (action, expected) in [("retry", 1), ("cancel", 2), ("delete", 6)] {
        for dry_run in [Value::Null, json!(true)] {
            let mut body = all.clone();
            body["action"] = json!(action);
            if dry_run == true {
                body["dry_run"] = dry_run;
            }
            assert_eq!(count(&app, &body).await, (expected, true), "{action}");
        }
    }
    let after: Value = sqlx::query_scalar(everything).fetch_one(&pool).await.expect("tasks");
    assert_eq!(after, before);
    assert_eq!(app.get("/admin/actions").await.json(), json!([]));
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn retried_tasks_are_sent_by_next_sweep(pool: PgPool) {
    one_of_each(&pool).await;
    let app = App::new(&pool);
    let failed = ids(&pool, "status = 'failed'").await;
    let action = carry_out(&app, &json!({"action": "retry", "q": "fail"})).await;
    assert_eq!(
        (&action["count"], &action["is_complete"], &action["filter"]),
        (&json!(1), &json!(true), &json!({"status": "failed", "q": "fail"}))
    );
    assert_eq!(
        (&action["operator"], &action["action"], &action["task_id"]),
        (&json!("tester"), &json!("retry"), &Value::Null)
    );
    assert_eq!(app.get("/admin/actions").await.json(), json!([action]));
    let retried = row(&pool, failed[0]).await;
    for (column, value) in [
        ("status", json!("pending")),
        ("result", Value::Null),
        ("attempts", json!(0)),
        ("enqueued_at", Value::Null),
        ("settled_at", Value::Null),
    ] {
        assert_eq!(retried[column], value, "{column}");
    }
    assert_eq!(ids(&pool, "enqueued_at is null").await, failed);
    execute(&pool, "update tasks set updated_at = now() - interval '1 min'").await;
    app.sweep(None).await.expect("a sweep");
    assert_eq!(app.messages().await, [json!({"task_id": failed[0]}).to_string()]);

    // Completed and cancelled tasks only on request.
    for status in ["completed", "cancelled"] {
        let action = carry_out(&app, &json!({"action": "retry", "status": status})).await;
        assert_eq!(action["count"], 1);
    }
    assert_eq!(ids(&pool, "settled_at is not null").await, [0; 0]);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn cancelled_tasks_are_as_if_cancelled_one_by_one(pool: PgPool) {
    let app = App::new(&pool);
    let (one, other) = (task(&pool, "t").await, task(&pool, "t").await);
    execute(
        &pool,
        "update tasks set enqueued_at = '2026-01-01', attempts = 1, fencing_token = 1, started_at = '2026-01-01', lease_expires_at = now() + interval '1 min'",
    )
    .await;
    assert_eq!(app.post(format!("/tasks/{one}/cancel"), None).await.status(), 200);
    let action = carry_out(&app, &json!({"action": "cancel", "status": "processing"})).await;
    assert_eq!(
        (&action["count"], &action["filter"]),
        (&json!(1), &json!({"status": "processing"}))
    );
    let without_times = async |id| {
        let mut row = row(&pool, id).await;
        let columns = row.as_object_mut().expect("a row");
        for column in [
            "id",
            "created_at",
            "requested_at",
            "updated_at",
            "settled_at",
            "earlier_attempts",
        ] {
            columns.remove(column).expect("a column");
        }
        row
    };
    assert_eq!(without_times(other).await, without_times(one).await);
    assert_eq!(row(&pool, other).await["earlier_attempts"][0]["outcome"], "discarded");
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn deleted_tasks_are_gone_with_their_titles(pool: PgPool) {
    one_of_each(&pool).await;
    let app = App::new(&pool);
    let action = carry_out(&app, &json!({"action": "delete", "q": "PRO"})).await;
    assert_eq!(action["count"], 1);
    assert_eq!(ids(&pool, "title = 'processing'").await, [0; 0]);
    assert_eq!(ids(&pool, "true").await.len(), 5);
    let titles: i64 = sqlx::query_scalar("select count(*) from task_titles")
        .fetch_one(&pool)
        .await
        .expect("a number");
    assert_eq!(titles, 5);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn every_criterion_must_match(pool: PgPool) {
    let app = App::new(&pool);
    execute(
        &pool,
        "insert into tasks (title, created_by, status, result, created_at, settled_at)
         select 'Mail ' || n, case n % 2 when 0 then 'bob' end, status::task_status,
                case status when 'failed' then 'HTTP 50' || n || ' from 10.0.0.' || n || ':80' end,
                '2026-01-01'::timestamptz + n * interval '1 day',
                case when status <> 'pending' then '2026-01-02'::timestamptz + n * interval '1 day' end
         from unnest(array['failed', 'pending', 'completed', 'failed', 'cancelled', 'failed']) with ordinality as t (status, n)",
    )
    .await;
    execute(
        &pool,
        "insert into tasks (title, status, result, settled_at)
         select 'Other', 'failed', result, now()
         from unnest(array['HTTP 503 from the cache', 'http 501 from 10.0.0.1:80', null]) as t (result)",
    )
    .await;
    for (filter, expected) in [
        (json!({"status": "failed"}), &[1, 4, 6, 7, 8, 9][..]),
        (json!({"status": "processing"}), &[]),
        (json!({"status": "pending", "q": "m"}), &[2]),
        (json!({"q": "MAIL"}), &[1, 2, 3, 4, 5, 6]),
        (json!({"q": "mail 3"}), &[3]),
        (json!({"q": "%"}), &[]),
        (json!({"created_by": "bob"}), &[2, 4, 6]),
        (json!({"created_by": "bob", "status": "failed"}), &[4, 6]),
        (json!({"created_by": "bob", "status": "completed"}), &[]),
        (json!({"created_by": "alice"}), &[]),
        (
            json!({"created_after": "2026-01-04T00:00:00Z", "q": "mail"}),
            &[3, 4, 5, 6],
        ),
        (
            json!({"created_after": "2026-01-04T00:00:00Z", "created_before": "2026-01-06T00:00:00Z"}),
            &[3, 4],
        ),
        (json!({"ended_before": "2026-01-06T00:00:00Z"}), &[1, 3]),
        (
            json!({"ended_after": "2026-01-06T00:00:00Z", "ended_before": "2026-01-08T00:00:00Z"}),
            &[4, 5],
        ),
        // Ids, numbers and addresses do not count.
        (json!({"error": "HTTP 599 from 192.168.0.77:8080"}), &[1, 4, 6]),
        (json!({"error": "HTTP # from #"}), &[1, 4, 6]),
        (json!({"error": "HTTP # from #", "q": "6"}), &[6]),
        (json!({"error": "HTTP 503"}), &[]),
        (json!({"error": "HTTP 1 from the cache"}), &[7]),
    ] {
        let mut body = filter.clone();
        body["action"] = json!("delete");
        assert_eq!(count(&app, &body).await, (expected.len() as i64, true), "{filter}");
        let before = ids(&pool, "true").await;
        execute(&pool, "create table kept as select * from tasks").await;
        let action = carry_out(&app, &body).await;
        assert_eq!(action["count"], expected.len(), "{filter}");
        let left = ids(&pool, "true").await;
        let deleted: Vec<i64> = before.into_iter().filter(|id| !left.contains(id)).collect();
        assert_eq!(deleted, expected, "{filter}");
        execute(&pool, "delete from tasks").await;
        execute(&pool, "insert into tasks overriding system value select * from kept").await;
        execute(&pool, "drop table kept").await;
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn repeated_request_continues_where_last_step_ended(pool: PgPool) {
    execute(
        &pool,
        "insert into tasks (title, status, settled_at) select 't', 'failed', now() from generate_series(1, 2500)",
    )
    .await;
    let app = App::new(&pool);
    let body = json!({"action": "retry", "status": "failed"});
    assert_eq!(count(&app, &body).await, (2500, true));
    let first = start(&app, &body).await;
    assert_eq!((&first["count"], &first["is_complete"]), (&json!(1000), &json!(false)));
    // Newest first.
    assert_eq!(
        ids(&pool, "status = 'pending'").await,
        (1501..=2500).collect::<Vec<_>>()
    );
    assert_eq!(app.get("/admin/actions").await.json(), json!([first]));

    // A task that fails again, and one that is new, are not changed by this action.
    execute(
        &pool,
        "update tasks set status = 'failed', settled_at = now() where id = 2000",
    )
    .await;
    execute(
        &pool,
        "insert into tasks (title, status, settled_at) values ('new', 'failed', now())",
    )
    .await;
    let second = resume(&app, &first).await;
    assert_eq!(
        (&second["count"], &second["is_complete"]),
        (&json!(2000), &json!(false))
    );
    let third = resume(&app, &second).await;
    assert_eq!((&third["count"], &third["is_complete"]), (&json!(2500), &json!(true)));
    assert_eq!(ids(&pool, "status = 'failed'").await, [2000, 2501]);
    assert_eq!(resume(&app, &third).await, third);
    assert_eq!(ids(&pool, "status = 'failed'").await, [2000, 2501]);
    assert_eq!(app.get("/admin/actions").await.json(), json!([third]));
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn concurrent_steps_change_each_task_once(pool: PgPool) {
    execute(
        &pool,
        "insert into tasks (title) select 't' from generate_series(1, 3500)",
    )
    .await;
    let app = App::new(&pool);
    let first = start(&app, &json!({"action": "cancel", "q": "t"})).await;
    let environments = [0; 4].map(|_| app.another_environment(&pool));
    let steps = environments.iter().map(|environment| resume(environment, &first));
    futures::future::join_all(steps).await;
    let action = resume(&app, &first).await;
    assert_eq!((&action["count"], &action["is_complete"]), (&json!(3500), &json!(true)));
    let once = "status = 'cancelled' and version = 2";
    assert_eq!(ids(&pool, once).await.len(), 3500);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn more_tasks_than_a_step_examines_are_estimated(pool: PgPool) {
    execute(
        &pool,
        "insert into tasks (title, created_by)
         select case when n <= 300 then 'rare' else 'frequent' end, 'user ' || n % 2 from generate_series(1, 24000) as n",
    )
    .await;
    let app = App::new(&pool);
    let about = async |filter: Value| {
        let mut body = filter;
        body["action"] = json!("cancel");
        let (count, is_exact) = count(&app, &body).await;
        assert!(!is_exact);
        count
    };
    let all = about(json!({"status": "pending"})).await;
    assert!((23_000..=25_000).contains(&all), "{all}");
    let own = about(json!({"created_by": "user 1"})).await;
    assert!((11_000..=13_000).contains(&own), "{own}");
    let rare = about(json!({"q": "rare"})).await;
    assert!((150..=450).contains(&rare), "{rare}");

    // The tasks of a rare title are the last that are examined.
    let action = start(&app, &json!({"action": "cancel", "q": "rare"})).await;
    assert_eq!((&action["count"], &action["is_complete"]), (&json!(0), &json!(false)));
    let action = carry_out(&app, &json!({"action": "cancel", "q": "rare"})).await;
    assert_eq!(action["count"], 300);
    assert_eq!(ids(&pool, "status = 'cancelled'").await, (1..=300).collect::<Vec<_>>());
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn locked_task_is_waited_for(pool: PgPool) {
    let id = task(&pool, "t").await;
    let app = App::new(&pool);
    let mut transaction = pool.begin().await.expect("a transaction");
    sqlx::query("select from tasks for update")
        .execute(&mut *transaction)
        .await
        .expect("locked");
    let response = app
        .post(
            "/admin/actions",
            json!({"action": "cancel", "q": "t", "dry_run": false}),
        )
        .await;
    response.assert_problem(503, "Service Unavailable");
    transaction.rollback().await.expect("rolled back");
    let unfinished = app.get("/admin/actions").await.json()[0].clone();
    assert_eq!(
        (&unfinished["count"], &unfinished["is_complete"]),
        (&json!(0), &json!(false))
    );
    assert_eq!(row(&pool, id).await["status"], "pending");
    let action = resume(&app, &unfinished).await;
    assert_eq!((&action["count"], &action["is_complete"]), (&json!(1), &json!(true)));
    assert_eq!(row(&pool, id).await["status"], "cancelled");
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn actions_about_many_tasks_are_for_admins(pool: PgPool) {
    let id = task(&pool, "t").await;
    let app = App::new(&pool);
    let first = start(&app, &json!({"action": "retry", "status": "failed"})).await;
    let path = format!("/admin/actions/{}/continue", first["id"]);
    let before = row(&pool, id).await;
    for caller in [app.as_user("bob"), app.as_viewer()] {
        for dry_run in [false, true] {
            let body = json!({"action": "cancel", "q": "t", "dry_run": dry_run});
            caller
                .post("/admin/actions", body)
                .await
                .assert_problem(403, "Forbidden");
        }
        caller.post(&path, None).await.assert_problem(403, "Forbidden");
    }
    assert_eq!(row(&pool, id).await, before);
    assert_eq!(app.get("/admin/actions").await.json(), json!([first]));
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn only_actions_about_many_tasks_continue(pool: PgPool) {
    let app = App::new(&pool);
    let id = task(&pool, "t").await;
    app.post(format!("/tasks/{id}/cancel"), None).await;
    let recorded = app.get("/admin/actions").await.json()[0]["id"].clone();
    for id in [recorded, json!(99)] {
        let response = app.post(format!("/admin/actions/{id}/continue"), None).await;
        response.assert_problem(404, "Not Found");
    }
    for id in ["0", "x", "+1"] {
        let response = app.post(format!("/admin/actions/{id}/continue"), None).await;
        assert_eq!(
            (response.status(), response.pointers()),
            (422, vec!["#/path/id".to_owned()])
        );
    }
    let response = app
        .post("/admin/actions", json!({"action": "delete", "dry_run": false}))
        .await;
    assert_eq!((response.status(), response.pointers()), (422, vec!["#".to_owned()]));
    assert_eq!(app.get("/tasks").await.json()[0]["status"], "cancelled");
}

#[tokio::test]
async fn action_without_database_is_503() {
    let app = App::without_database();
    let started = std::time::Instant::now();
    for path in ["/admin/actions", "/admin/actions/1/continue"] {
        let response = app
            .post(path, json!({"action": "delete", "q": "t", "dry_run": false}))
            .await;
        response.assert_problem(503, "Service Unavailable");
    }
    assert!(started.elapsed() < Duration::from_secs(10));
}
