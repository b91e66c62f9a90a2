//! Whose tasks are whose: on every route, for their owner, for others, and for an admin.

use create_task::Settings;
use queue::TaskQueue;
use serde_json::{Value, json};
use shared::{
    domain::{Cursor, TaskId},
    store::Database,
};
use sqlx::PgPool;

use super::list_tasks::{ids, link};
use crate::support::{Answer, Call, Gateway, NO_METRICS, Proxy, TestQueue, count, database, execute, row, task};

const SETTINGS: Settings = Settings {
    idempotency_key_seconds: 60,
};

/// What the functions work with.
struct Functions {
    database: Database,
    queue: TaskQueue,
}

impl Functions {
    async fn new(database: Database, queue: &TestQueue) -> Self {
        let queue = queue.sender();
        Self { database, queue }
    }

    async fn create(&self, call: Call) -> Answer {
        call.send(|request| create_task::handle(&self.database, &self.queue, &NO_METRICS, &SETTINGS, request))
            .await
    }

    async fn list(&self, call: Call) -> Answer {
        call.send(|request| list_tasks::handle(&self.database, request)).await
    }

    /// The answer of the function behind `/tasks/{id}` and this method.
    async fn about_a_task(&self, (method, call): (&str, Call)) -> Answer {
        match method {
            "GET" => call.send(|request| get_task::handle(&self.database, request)).await,
            "PUT" | "PATCH" => call.send(|request| update_task::handle(&self.database, request)).await,
            "DELETE" => call.send(|request| delete_task::handle(&self.database, request)).await,
            _ => {
                call.send(|request| process_task::handle(&self.database, &self.queue, request))
                    .await
            }
        }
    }
}

/// By this subject; by an admin if there is none.
fn by(subject: Option<&str>, call: Call) -> Call {
    subject.iter().fold(call, |call, subject| call.by(subject))
}

/// Everything that can be asked about a task, and by which method; under conditions that hold and that do not.
fn requests(id: i64) -> Vec<(&'static str, Call)> {
    let call = |method| Call::task(method, id, "");
    let mut requests = vec![
        ("GET", call("GET")),
        ("DELETE", call("DELETE")),
        ("POST", Call::task("POST", id, "/process")),
    ];
    for tags in ["*", "\"1\"", "\"2\""] {
        requests.push(("GET", call("GET").header("if-none-match", tags)));
        requests.push(("DELETE", call("DELETE").header("if-match", tags)));
    }
    for body in [json!({}), json!({"title": "new"}), json!({"status": "completed"})] {
        for method in ["PUT", "PATCH"] {
            requests.push((method, call(method).json(&body)));
            for tags in ["*", "\"1\"", "\"2\""] {
                requests.push((method, call(method).json(&body).header("if-match", tags)));
            }
        }
    }
    requests
}

/// What a task can be, as columns and values.
const STATES: [(&str, &str); 4] = [
    ("status", "'pending'"),
    ("status, lease_expires_at", "'processing', now() + interval '1 h'"),
    ("status, settled_at, result", "'completed', now(), 'secret'"),
    ("status, settled_at, result", "'failed', now(), 'secret'"),
];

/// A task that somebody has created, or nobody knows who.
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
async fn a_task_of_somebody_else_is_404_just_as_one_that_does_not_exist(pool: PgPool) {
    // So that an id is no part of any other number.
    execute(&pool, "alter table tasks alter column id restart with 7000000").await;
    let queue = TestQueue::create().await;
    let functions = Functions::new(database(&pool), &queue).await;
    let missing = 7_999_999;
    for state in STATES {
        for created_by in [Some("alice"), None] {
            let id = insert(&pool, state, created_by).await;
            let before = row(&pool, id).await;
            for (request, same) in requests(id).into_iter().zip(requests(missing)) {
                for subject in ["bob", "Alice", "alice2", "null"] {
                    let by_them = |(method, call): (&'static str, Call)| (method, call.by(subject));
                    let answer = functions.about_a_task(by_them(request.clone())).await;
                    answer.assert_problem(404, "Not Found");
                    let unknown = functions.about_a_task(by_them(same.clone())).await;
                    assert_eq!(
                        format!("{answer:?}").replace(&id.to_string(), "{id}"),
                        format!("{unknown:?}").replace(&missing.to_string(), "{id}"),
                    );
                }
                assert_eq!(row(&pool, id).await, before, "{}", request.0);
            }
        }
    }
    assert_eq!(queue.bodies().await, [""; 0]);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn an_owner_and_an_admin_do_everything_with_a_task(pool: PgPool) {
    let queue = TestQueue::create().await;
    let functions = Functions::new(database(&pool), &queue).await;
    for (subject, created_by) in [(Some("alice"), Some("alice")), (None, Some("alice")), (None, None)] {
        let id = insert(&pool, STATES[0], created_by).await;
        let send = async |method, below: &str, headers: &[(&str, &str)], body: Option<Value>| {
            let call = by(subject, Call::task(method, id, below));
            let call = headers
                .iter()
                .fold(call, |call, (name, value)| call.header(name, value));
            let call = body.iter().fold(call, Call::json);
            functions.about_a_task((method, call)).await
        };
        let got = send("GET", "", &[], None).await;
        assert_eq!((got.status, &got.json()["title"]), (200, &json!("secret")));
        let known = send("GET", "", &[("if-none-match", "\"1\"")], None).await;
        assert_eq!(known.status, 304);
        for body in [json!({}), json!({"title": "new"})] {
            let stale = send("PATCH", "", &[("if-match", "\"9\"")], Some(body)).await;
            assert_eq!(stale.status, 412);
        }
        let changed = send("PUT", "", &[("if-match", "\"1\"")], Some(json!({"title": "new"}))).await;
        assert_eq!((changed.status, &changed.json()["title"]), (200, &json!("new")));
        let unchanged = send("PATCH", "", &[], Some(json!({}))).await;
        assert_eq!((unchanged.status, unchanged.text()), (200, changed.text()));

        assert_eq!(send("POST", "/process", &[], None).await.status, 202);
        assert_eq!(queue.bodies().await, [json!({"task_id": id}).to_string()]);
        execute(
            &pool,
            "update tasks set status = 'processing', lease_expires_at = now() + interval '1 h'",
        )
        .await;
        assert_eq!(send("POST", "/process", &[], None).await.status, 409);
        assert_eq!(
            row(&pool, id).await["created_by"],
            json!(created_by),
            "whoever changes it"
        );

        assert_eq!(send("DELETE", "", &[("if-match", "\"9\"")], None).await.status, 412);
        assert_eq!(send("DELETE", "", &[], None).await.status, 200);
        assert_eq!(count(&pool).await, 0);
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn a_task_is_its_creators_as_the_authorizer_names_them(pool: PgPool) {
    let queue = TestQueue::create().await;
    let functions = Functions::new(database(&pool), &queue).await;
    let longest = "x".repeat(255);
    let post = || Call::new("POST", "/tasks").json(&json!({"title": "t"}));
    for subject in ["alice", "auth0|5f7c8ec7", "with \"quotes\" and spaces", &longest] {
        let keyed = post().header("idempotency-key", &longest);
        for call in [post(), keyed] {
            let answer = functions.create(call.by(subject)).await;
            assert_eq!((answer.status, answer.json().get("created_by")), (201, None));
            let id = answer.json()["id"].as_i64().expect("an id");
            assert_eq!(row(&pool, id).await["created_by"], subject);
            let got = functions
                .about_a_task(("GET", Call::task("GET", id, "").by(subject)))
                .await;
            assert_eq!(got.text(), answer.text());
        }
    }

    // An admin's are the admin's; where there is no authorizer, everybody is the same.
    for (gateway, subject) in [(Gateway::Rest, "tester"), (Gateway::Http, "anonymous")] {
        let answer = post()
            .send_via(gateway, |request| {
                create_task::handle(&functions.database, &functions.queue, &NO_METRICS, &SETTINGS, request)
            })
            .await;
        let id = answer.json()["id"].as_i64().expect("an id");
        assert_eq!(row(&pool, id).await["created_by"], subject);
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn a_body_that_names_a_creator_is_422(pool: PgPool) {
    let functions = Functions::new(database(&pool), &TestQueue::create().await).await;
    let id = insert(&pool, STATES[0], Some("alice")).await;
    let before = row(&pool, id).await;
    let body = json!({"title": "t", "created_by": "bob"});
    let create = functions
        .create(Call::new("POST", "/tasks").json(&body).by("alice"))
        .await;
    let update = Call::task("PATCH", id, "").json(&body).by("alice");
    for answer in [create, functions.about_a_task(("PATCH", update)).await] {
        answer.assert_problem(422, "Unprocessable Entity");
        assert_eq!(answer.pointers(), ["#/created_by"]);
    }
    assert_eq!((row(&pool, id).await, count(&pool).await), (before, 1));
}

/// A list's ids, read along the `next` links to its end, and again along the `prev` links from there.
async fn read_there_and_back(list: impl AsyncFn(Vec<(String, String)>) -> Answer, query: &[(&str, &str)]) -> Vec<i64> {
    let first: Vec<_> = query
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let mut answer = list(first).await;
    let mut there = ids(&answer);
    while let Some(next) = link(&answer, "next") {
        answer = list(next).await;
        there.extend(ids(&answer));
    }
    let mut back = ids(&answer);
    while let Some(previous) = link(&answer, "prev") {
        answer = list(previous).await;
        back.splice(0..0, ids(&answer));
    }
    assert_eq!(back, there, "{query:?}");
    there
}

/// Whether a filter lets the task with an id through.
type Matches = fn(i64) -> bool;

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn a_list_has_ones_own_tasks_only_and_an_admins_has_all(pool: PgPool) {
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
    let functions = Functions::new(database(&pool), &TestQueue::create().await).await;
    for (subject, remainders) in [
        (Some("alice"), &[0, 4][..]),
        (Some("bob"), &[1]),
        (Some("carol"), &[]),
        (None, &[0, 1, 2, 3, 4]),
    ] {
        let call = || by(subject, Call::new("GET", "/tasks"));
        let list = async |query: Vec<(String, String)>| {
            let call = query.iter().fold(call(), |call, (name, value)| call.query(name, value));
            let answer = functions.list(call).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            answer
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
                let answer = list(query.map(|(name, value)| ((*name).into(), (*value).into())).collect()).await;
                assert_eq!(ids(&answer), expected.get(2..).unwrap_or_default());
                assert_eq!(answer.header("x-total-count"), total, "{subject:?} {filter:?}");
                expected.reverse();
            }
        }
        // A cursor is a place, whoever's the task beside it is, or was.
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
async fn the_same_idempotency_key_of_two_callers_is_two_requests(pool: PgPool) {
    let queue = TestQueue::create().await;
    let functions = Functions::new(database(&pool), &queue).await;
    let post = async |subject: &str, key: &str, title: &str| {
        let call = Call::new("POST", "/tasks").json(&json!({"title": title}));
        functions.create(call.header("idempotency-key", key).by(subject)).await
    };
    // Also two whose key and subject are the same text when put together.
    let callers = [("alice", "key"), ("bob", "key"), ("ob", "key"), ("b", "keyo")];
    let mut firsts = Vec::new();
    for (subject, key) in callers {
        let first = post(subject, key, "t").await;
        assert_eq!(
            (first.status, first.header("idempotent-replayed")),
            (201, ""),
            "{subject} {key}"
        );
        let id = first.json()["id"].as_i64().expect("an id");
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
    assert_eq!((count(&pool).await, queue.bodies().await.len()), (tasks as i64, tasks));

    // Another's body and another's request in progress are nothing to them, either.
    assert_eq!(post("carol", "key", "another").await.status, 201);
    let mut in_progress = pool.begin().await.expect("a transaction");
    let insert = r#"insert into idempotency_keys (key, fingerprint, task_id, expires_at)
                    values ('new"alice', '', 1, now() + interval '1 min')"#;
    sqlx::query(insert).execute(&mut *in_progress).await.expect("inserted");
    assert_eq!(post("bob", "new", "t").await.status, 201);
    post("alice", "new", "t").await.assert_problem(409, "Conflict");
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn what_the_previous_version_has_stored_belongs_to_nobody(pool: PgPool) {
    let functions = Functions::new(database(&pool), &TestQueue::create().await).await;
    // As it does, also after the migration.
    let id = task(&pool, "t").await;
    let remember = "insert into idempotency_keys (key, fingerprint, task_id, expires_at)
                    select 'key', sha256(convert_to(jsonb_build_array('t'::text, null)::text, 'UTF8')), $1,
                           now() + interval '1 min'";
    sqlx::query(remember).bind(id).execute(&pool).await.expect("stored");

    for subject in [Some("alice"), None] {
        let call = Call::new("POST", "/tasks").json(&json!({"title": "t"}));
        let answer = functions
            .create(by(subject, call.header("idempotency-key", "key")))
            .await;
        assert_eq!((answer.status, answer.header("idempotent-replayed")), (201, ""));
        assert_ne!(answer.json()["id"], id);
        let seen = functions
            .about_a_task(("GET", by(subject, Call::task("GET", id, ""))))
            .await;
        assert_eq!(seen.status, if subject.is_none() { 200 } else { 404 });
        let listed = ids(&functions.list(by(subject, Call::new("GET", "/tasks"))).await);
        assert_eq!(listed.contains(&id), subject.is_none());
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn others_do_not_notice_that_a_task_is_locked(pool: PgPool) {
    let functions = Functions::new(database(&pool), &TestQueue::create().await).await;
    let id = insert(&pool, STATES[0], Some("alice")).await;
    let mut lock = pool.begin().await.expect("a transaction");
    sqlx::query("update tasks set title = 'locked'")
        .execute(&mut *lock)
        .await
        .expect("the row is locked");
    for (method, call) in requests(id) {
        let answer = functions.about_a_task((method, call.by("bob"))).await;
        answer.assert_problem(404, "Not Found");
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn whose_a_task_is_costs_no_round_trip(pool: PgPool) {
    let proxy = Proxy::start(&pool).await;
    let functions = Functions::new(proxy.database(&pool), &TestQueue::create().await).await;
    let id = insert(&pool, STATES[0], Some("alice")).await;
    let change = || Call::task("PATCH", id, "").json(&json!({"title": "new"}));
    for subject in ["alice", "bob"] {
        for (request, round_trips) in [
            (("GET", Call::task("GET", id, "")), 1),
            (("PATCH", change()), 1),
            (("PATCH", Call::task("PATCH", id, "").json(&json!({}))), 1),
            // The second says why nothing was changed.
            (("PATCH", change().header("if-match", "\"0\"")), 2),
        ] {
            let (method, call) = request;
            // The first time, the statements are prepared, too.
            let mut used = 0;
            for _ in 0..2 {
                let before = proxy.round_trips();
                functions.about_a_task((method, call.clone().by(subject))).await;
                used = proxy.round_trips() - before;
            }
            assert_eq!(used, round_trips, "{method} by {subject}");
        }
        let mut used = 0;
        for _ in 0..2 {
            let before = proxy.round_trips();
            functions.list(Call::new("GET", "/tasks").by(subject)).await;
            used = proxy.round_trips() - before;
        }
        assert_eq!(used, 1, "GET /tasks by {subject}");
    }
}
