//! Ownership of tasks: on every route, for the owner, for other users, and for an admin.

use serde_json::json;
use shared::domain::{Cursor, TaskId};
use sqlx::PgPool;

use super::list_tasks::{ids, link};
use crate::support::{App, Gateway, Proxy, Request, Response, count, execute, routes::ROUTES, row, task};

/// The app as seen by this user, or by an admin if there is no subject.
fn app_as(app: &App, subject: Option<&str>) -> App {
    subject.map_or_else(|| app.as_admin(), |subject| app.as_user(subject))
}

/// Every request about a task, with conditions that are met and conditions that are not.
fn requests(app: &App, id: i64) -> Vec<Request> {
    let path = format!("/tasks/{id}");
    let routes = ROUTES.keys().filter_map(|route| route.split_once(' '));
    let without_body =
        routes.filter(|(method, path)| ["GET", "DELETE"].contains(method) && path.starts_with("/tasks/{id}"));
    let mut requests: Vec<Request> = without_body
        .map(|(method, path)| app.request(method, path.replace("{id}", &id.to_string())))
        .collect();
    requests.push(app.post(format!("{path}/process"), None));
    requests.push(app.post(format!("{path}/cancel"), None));
    for tags in ["*", "\"1\"", "\"2\""] {
        requests.push(app.get(&path).header("if-none-match", tags));
        requests.push(app.delete(&path).header("if-match", tags));
        requests.push(app.post(format!("{path}/cancel"), None).header("if-match", tags));
    }
    for body in [json!({}), json!({"title": "new"}), json!({"status": "completed"})] {
        for request in [app.put(&path, body.clone()), app.patch(&path, body)] {
            requests.push(request.clone());
            for tags in ["*", "\"1\"", "\"2\""] {
                requests.push(request.clone().header("if-match", tags));
            }
        }
    }
    requests
}

/// The states of a task, as columns and values.
const STATES: [(&str, &str); 5] = [
    ("status", "'pending'"),
    ("status, lease_expires_at", "'processing', now() + interval '1 h'"),
    ("status, settled_at, result", "'completed', now(), 'secret'"),
    ("status, settled_at, result", "'failed', now(), 'secret'"),
    ("status, settled_at", "'cancelled', now()"),
];

/// Inserts a task with this creator, or with none, like a row that is older than the column.
async fn insert(pool: &PgPool, (columns, values): (&str, &str), created_by: Option<&str>) -> i64 {
    sqlx::query_scalar(&format!(
        "insert into tasks (title, created_by, {columns}) values ('secret', $1, {values}) returning id"
    ))
    .bind(created_by)
    .fetch_one(pool)
    .await
    .expect("the task is inserted")
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn task_of_another_user_is_404_like_unknown_task(pool: PgPool) {
    // So that no other number in a response contains an id.
    execute(&pool, "alter table tasks alter column id restart with 7000000").await;
    let app = App::new(&pool);
    let missing = 7_999_999;
    for state in STATES {
        for created_by in [Some("alice"), None] {
            let id = insert(&pool, state, created_by).await;
            let before = row(&pool, id).await;
            for subject in ["bob", "Alice", "alice2", "null"] {
                let user = app.as_user(subject);
                for (request, control) in requests(&user, id).into_iter().zip(requests(&user, missing)) {
                    let (response, unknown) = (request.await, control.await);
                    response.assert_problem(404, "Not Found");
                    assert_eq!(
                        format!("{response:?}").replace(&id.to_string(), "{id}"),
                        format!("{unknown:?}").replace(&missing.to_string(), "{id}"),
                    );
                    assert_eq!(row(&pool, id).await, before, "{subject}");
                }
            }
        }
    }
    assert_eq!(app.messages().await, [""; 0]);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn owner_and_admin_may_do_everything(pool: PgPool) {
    let app = App::new(&pool);
    for (subject, created_by) in [(Some("alice"), Some("alice")), (None, Some("alice")), (None, None)] {
        let id = insert(&pool, STATES[0], created_by).await;
        let app = app_as(&app, subject);
        let path = format!("/tasks/{id}");
        let new = || json!({"title": "new"});
        let got = app.get(&path).await;
        assert_eq!((got.status(), &got.json()["title"]), (200, &json!("secret")));
        let not_modified = app.get(&path).header("if-none-match", "\"1\"").await;
        assert_eq!(not_modified.status(), 304);
        for body in [json!({}), new()] {
            let stale = app.patch(&path, body).header("if-match", "\"9\"").await;
            assert_eq!(stale.status(), 412);
        }
        let changed = app.put(&path, new()).header("if-match", "\"1\"").await;
        assert_eq!((changed.status(), &changed.json()["title"]), (200, &json!("new")));
        let unchanged = app.patch(&path, json!({})).await;
        assert_eq!((unchanged.status(), unchanged.text()), (200, changed.text()));

        let process = || app.post(format!("{path}/process"), None);
        assert_eq!(process().await.status(), 202);
        assert_eq!(app.messages().await, [json!({"task_id": id}).to_string()]);
        execute(
            &pool,
            "update tasks set status = 'processing', lease_expires_at = now() + interval '1 h'",
        )
        .await;
        assert_eq!(process().await.status(), 409);
        assert_eq!(
            row(&pool, id).await["created_by"],
            json!(created_by),
            "an update changed the owner"
        );

        assert_eq!(app.delete(&path).header("if-match", "\"9\"").await.status(), 412);
        assert_eq!(app.delete(&path).await.status(), 200);
        assert_eq!(count(&pool).await, 0);
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn task_belongs_to_subject_of_token(pool: PgPool) {
    let app = App::new(&pool);
    let longest = "x".repeat(255);
    let new = || json!({"title": "t"});
    for subject in ["alice", "auth0|5f7c8ec7", "with \"quotes\" and spaces", &longest] {
        let user = app.as_user(subject);
        let post = || user.post("/tasks", new());
        for request in [post(), post().header("idempotency-key", &longest)] {
            let response = request.await;
            assert_eq!((response.status(), response.json().get("created_by")), (201, None));
            let id = response.id();
            assert_eq!(row(&pool, id).await["created_by"], subject);
            let got = user.get(format!("/tasks/{id}")).await;
            assert_eq!(got.text(), response.text());
        }
    }

    // An admin owns the tasks that the admin creates; on a stack without authorizer, every caller
    // is `anonymous`.
    for (gateway, subject) in [(Gateway::Rest, "tester"), (Gateway::Http, "anonymous")] {
        let response = app.post("/tasks", new()).via(gateway).await;
        let id = response.id();
        assert_eq!(row(&pool, id).await["created_by"], subject);
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn body_with_creator_is_422(pool: PgPool) {
    let app = App::new(&pool);
    let id = insert(&pool, STATES[0], Some("alice")).await;
    let before = row(&pool, id).await;
    let body = json!({"title": "t", "created_by": "bob"});
    let user = app.as_user("alice");
    for request in [
        user.post("/tasks", body.clone()),
        user.patch(format!("/tasks/{id}"), body),
    ] {
        let response = request.await;
        response.assert_problem(422, "Unprocessable Entity");
        assert_eq!(response.pointers(), ["#/created_by"]);
    }
    assert_eq!((row(&pool, id).await, count(&pool).await), (before, 1));
}

/// A list's ids, read along the `next` links to its end and back along the `prev` links; asserts
/// that both agree.
async fn read_there_and_back(
    list: impl AsyncFn(Vec<(String, String)>) -> Response,
    query: &[(&str, &str)],
) -> Vec<i64> {
    let first: Vec<_> = query
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let mut response = list(first).await;
    let mut there = ids(&response);
    while let Some(next) = link(&response, "next") {
        response = list(next).await;
        there.extend(ids(&response));
    }
    let mut back = ids(&response);
    while let Some(previous) = link(&response, "prev") {
        response = list(previous).await;
        back.splice(0..0, ids(&response));
    }
    assert_eq!(back, there, "{query:?}");
    there
}

/// Whether a filter matches the task with an id.
type Matches = fn(i64) -> bool;

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn list_contains_own_tasks_or_all_for_admin(pool: PgPool) {
    execute(
        &pool,
        "insert into tasks (title, status, settled_at, created_by)
         select case n % 2 when 0 then 'Ship' else 'x' end,
                case n % 3 when 0 then 'failed'::task_status else 'pending' end,
                case n % 3 when 0 then now() end,
                case n % 5 when 0 then 'alice' when 1 then 'bob' when 2 then 'alice2' when 3 then null else 'alice' end
         from generate_series(1, 60) as n",
    )
    .await;
    let app = App::new(&pool);
    for (subject, remainders) in [
        (Some("alice"), &[0, 4][..]),
        (Some("bob"), &[1]),
        (Some("carol"), &[]),
        (None, &[0, 1, 2, 3, 4]),
    ] {
        let app = app_as(&app, subject);
        let list = async |query: Vec<(String, String)>| {
            let request = app.get("/tasks");
            let request = query
                .iter()
                .fold(request, |request, (name, value)| request.query(name, value));
            let response = request.await;
            assert_eq!(response.status(), 200, "{response:?}");
            response
        };
        let own: Vec<i64> = (1..=60).filter(|id| remainders.contains(&(id % 5))).collect();
        let filters: [(&[(&str, &str)], Matches); 6] = [
            (&[], |_| true),
            (&[("status", "failed")], |id| id % 3 == 0),
            (&[("q", "ship")], |id| id % 2 == 0),
            (&[("q", "p")], |id| id % 2 == 0),
            (&[("q", "ship"), ("status", "failed")], |id| id % 6 == 0),
            (&[("q", "ship"), ("status", "pending")], |id| id % 2 == 0 && id % 3 != 0),
        ];
        for (filter, matches) in filters {
            let mut expected: Vec<i64> = own.iter().copied().filter(|id| matches(*id)).collect();
            let total = expected.len().to_string();
            for sort in ["id", "-id"] {
                for limit in ["1", "5", "100"] {
                    let query = [filter, &[("sort", sort), ("limit", limit)]].concat();
                    assert_eq!(
                        read_there_and_back(&list, &query).await,
                        expected,
                        "{subject:?} {query:?}"
                    );
                }
                let skip = [("sort", sort), ("skip", "2"), ("count", "true")];
                let query = filter.iter().chain(&skip);
                let response = list(query.map(|(name, value)| ((*name).into(), (*value).into())).collect()).await;
                assert_eq!(ids(&response), expected.get(2..).unwrap_or_default());
                assert_eq!(response.header("x-total-count"), total, "{subject:?} {filter:?}");
                expected.reverse();
            }
        }
        // A cursor is a position: the task at it may belong to another user, or be deleted.
        for id in 1..=61 {
            let cursor = Cursor(TaskId::try_from(id).expect("an id")).to_string();
            let after = list(vec![("after".to_owned(), cursor.clone())]).await;
            let expected: Vec<i64> = own.iter().copied().filter(|own| *own > id).collect();
            assert_eq!(ids(&after), expected);
            let before = list(vec![("before".to_owned(), cursor)]).await;
            let expected: Vec<i64> = own.iter().copied().filter(|own| *own < id).collect();
            assert_eq!(ids(&before), expected);
        }
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn idempotency_keys_are_per_caller(pool: PgPool) {
    let app = App::new(&pool);
    let post = async |subject: &str, key: &str, title: &str| {
        let request = app.as_user(subject).post("/tasks", json!({"title": title}));
        request.header("idempotency-key", key).await
    };
    // Including two pairs whose key and subject concatenate to the same text.
    let callers = [("alice", "key"), ("bob", "key"), ("ob", "key"), ("b", "keyo")];
    let mut firsts = Vec::new();
    for (subject, key) in callers {
        let first = post(subject, key, "t").await;
        assert_eq!(
            (first.status(), first.header("idempotent-replayed")),
            (201, ""),
            "{subject} {key}"
        );
        let id = first.id();
        assert_eq!(row(&pool, id).await["created_by"], subject);
        firsts.push(first);
    }
    for ((subject, key), first) in callers.into_iter().zip(firsts) {
        let again = post(subject, key, "t").await;
        assert_eq!(
            (again.header("idempotent-replayed"), again.text()),
            ("true", first.text())
        );
        let other = post(subject, key, "another").await;
        assert_eq!(other.pointers(), ["#/header/idempotency-key"]);
    }
    let tasks = callers.len();
    assert_eq!((count(&pool).await, app.messages().await.len()), (tasks as i64, tasks));

    // Nor does another user's body, or another user's request in progress, affect them.
    assert_eq!(post("carol", "key", "another").await.status(), 201);
    let mut in_progress = pool.begin().await.expect("a transaction");
    let insert = r#"insert into idempotency_keys (key, fingerprint, task_id, expires_at)
                    values ('new"alice', '', 1, now() + interval '1 min')"#;
    sqlx::query(insert).execute(&mut *in_progress).await.expect("inserted");
    assert_eq!(post("bob", "new", "t").await.status(), 201);
    post("alice", "new", "t").await.assert_problem(409, "Conflict");
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn rows_of_previous_version_have_no_owner(pool: PgPool) {
    let app = App::new(&pool);
    // Written as the previous version writes rows, even after the migration.
    let id = task(&pool, "t").await;
    let remember = "insert into idempotency_keys (key, fingerprint, task_id, expires_at)
                    select 'key', sha256(convert_to(jsonb_build_array('t'::text, null)::text, 'UTF8')), $1,
                           now() + interval '1 min'";
    sqlx::query(remember).bind(id).execute(&pool).await.expect("stored");

    for subject in [Some("alice"), None] {
        let app = app_as(&app, subject);
        let request = app.post("/tasks", json!({"title": "t"}));
        let response = request.header("idempotency-key", "key").await;
        assert_eq!((response.status(), response.header("idempotent-replayed")), (201, ""));
        assert_ne!(response.json()["id"], id);
        let seen = app.get(format!("/tasks/{id}")).await;
        assert_eq!(seen.status(), if subject.is_none() { 200 } else { 404 });
        let listed = ids(&app.get("/tasks").await);
        assert_eq!(listed.contains(&id), subject.is_none());
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn locked_task_of_another_user_is_404(pool: PgPool) {
    let app = App::new(&pool);
    let id = insert(&pool, STATES[0], Some("alice")).await;
    let mut lock = pool.begin().await.expect("a transaction");
    sqlx::query("update tasks set title = 'locked'")
        .execute(&mut *lock)
        .await
        .expect("the row is locked");
    for request in requests(&app.as_user("bob"), id) {
        let response = request.await;
        response.assert_problem(404, "Not Found");
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn ownership_takes_no_round_trip(pool: PgPool) {
    let proxy = Proxy::start(&pool).await;
    let app = App::with_database(proxy.database(&pool));
    let id = insert(&pool, STATES[0], Some("alice")).await;
    let path = &format!("/tasks/{id}");
    for subject in ["alice", "bob"] {
        let user = app.as_user(subject);
        let change = || user.patch(path, json!({"title": "new"}));
        for (name, request, round_trips) in [
            ("get", user.get(path), 1),
            ("change", change(), 1),
            ("empty change", user.patch(path, json!({})), 1),
            // The second determines why nothing was changed.
            ("conditional change", change().header("if-match", "\"0\""), 2),
            ("list", user.get("/tasks"), 1),
        ] {
            // The first request also prepares the statements.
            let mut used = 0;
            for _ in 0..2 {
                let before = proxy.round_trips();
                request.clone().await;
                used = proxy.round_trips() - before;
            }
            assert_eq!(used, round_trips, "{name} by {subject}");
        }
    }
}
