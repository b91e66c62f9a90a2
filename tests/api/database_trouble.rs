//! What every function that uses the database has in common: how it copes without.

use std::time::{Duration, Instant};

use serde_json::json;
use shared::store::{Database, Statement};
use sqlx::{PgConnection, PgPool};
use tokio::net::TcpListener;

use crate::support::{
    Answer, Call, NO_METRICS, Proxy, TestQueue, count, database, database_that_is_down, execute, task,
};

async fn get(database: &Database, id: i64) -> Answer {
    let call = Call::task("GET", id, "");
    call.send(|request| get_task::handle(database, request)).await
}

async fn put(database: &Database, id: i64) -> Answer {
    let call = Call::task("PUT", id, "").json(&json!({"title": "new"}));
    call.send(|request| update_task::handle(database, request)).await
}

async fn post(database: &Database, call: Call) -> Answer {
    let queue = TestQueue::create().await.sender();
    let settings = create_task::Settings {
        idempotency_key_seconds: 60,
    };
    let call = call.json(&json!({"title": "t"}));
    call.send(|request| create_task::handle(database, &queue, &NO_METRICS, &settings, request))
        .await
}

/// Asserts that the client is told to try again, soon enough for the function to live to tell.
async fn assert_unavailable(answer: impl Future<Output = Answer>) {
    let started = Instant::now();
    let answer = answer.await;
    answer.assert_problem(503, "Service Unavailable");
    assert_eq!(answer.header("retry-after"), "2");
    assert!(
        started.elapsed() < Duration::from_millis(2500),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn without_a_database_every_route_is_503_with_retry_after() {
    let database = database_that_is_down();
    let answers = [
        Call::task("GET", 1, "")
            .send(|request| get_task::handle(&database, request))
            .await,
        Call::new("GET", "/tasks")
            .send(|request| list_tasks::handle(&database, request))
            .await,
        Call::task("DELETE", 1, "")
            .send(|request| delete_task::handle(&database, request))
            .await,
        Call::task("PUT", 1, "")
            .json(&json!({"title": "t"}))
            .send(|request| update_task::handle(&database, request))
            .await,
    ];
    for answer in answers {
        answer.assert_problem(503, "Service Unavailable");
        assert_eq!(answer.header("retry-after"), "2");
        assert!(
            !answer.json().to_string().contains("127.0.0.1"),
            "internals in {answer:?}"
        );
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn a_statement_that_hangs_is_503_within_the_functions_time(pool: PgPool) {
    let database = database(&pool);
    let id = task(&pool, "t").await;
    let mut blocker = pool.begin().await.expect("a transaction");
    sqlx::query("update tasks set title = 'locked'")
        .execute(&mut *blocker)
        .await
        .expect("the row is locked");
    let started = std::time::Instant::now();
    let call = Call::task("PUT", id, "").json(&json!({"title": "t"}));
    let answer = call.send(|request| update_task::handle(&database, request)).await;
    answer.assert_problem(503, "Service Unavailable");
    assert!(started.elapsed().as_secs_f64() < 2.5, "{:?}", started.elapsed());
    blocker.rollback().await.expect("the lock is released");

    let call = Call::task("PUT", id, "").json(&json!({"title": "after"}));
    let answer = call.send(|request| update_task::handle(&database, request)).await;
    assert_eq!((answer.status, &answer.json()["title"]), (200, &json!("after")));
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn a_bug_of_ours_is_500_without_internals(pool: PgPool) {
    let database = database(&pool);
    execute(&pool, "alter table tasks rename column title to name").await;
    let answer = Call::task("GET", 1, "")
        .send(|request| get_task::handle(&database, request))
        .await;
    answer.assert_problem(500, "Internal Server Error");
    assert_eq!(answer.json()["detail"], "Something went wrong on our side.");
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn after_postgres_ends_the_session_the_next_request_succeeds(pool: PgPool) {
    let database = database(&pool);
    let id = task(&pool, "t").await;
    let end_sessions = "select pg_terminate_backend(pid) from pg_stat_activity
                        where datname = current_database() and pid <> pg_backend_pid()";
    for round in 0..3 {
        // A write too: Postgres says that it closed the session before the statement arrived.
        let body = json!({"title": format!("round {round}")});
        let call = Call::task("PUT", id, "").json(&body);
        let answer = call.send(|request| update_task::handle(&database, request)).await;
        assert_eq!((answer.status, &answer.json()["title"]), (200, &body["title"]));
        execute(&pool, end_sessions).await;
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn while_postgres_is_paused_or_gone_it_is_503_and_afterwards_all_is_well(pool: PgPool) {
    let proxy = Proxy::start(&pool).await;
    let database = proxy.database(&pool);
    let id = task(&pool, "t").await;
    for paused in [true, false] {
        assert_eq!(get(&database, id).await.status, 200);
        if paused {
            proxy.freeze();
        } else {
            proxy.take_down().await;
        }
        assert_unavailable(get(&database, id)).await;
        assert_unavailable(put(&database, id)).await;
        assert_unavailable(post(&database, Call::new("POST", "/tasks"))).await;
        proxy.open();
        assert_eq!(post(&database, Call::new("POST", "/tasks")).await.status, 201);
        assert_eq!(put(&database, id).await.status, 200);
        assert_eq!(get(&database, id).await.status, 200);
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn a_connection_that_broke_between_two_requests_is_replaced_where_a_repetition_is_safe(pool: PgPool) {
    let proxy = Proxy::start(&pool).await;
    let database = proxy.database(&pool);
    let id = task(&pool, "t").await;
    let break_it = async || {
        assert_eq!(get(&database, id).await.status, 200);
        proxy.take_down().await;
        proxy.open();
    };
    break_it().await;
    assert_eq!(get(&database, id).await.status, 200);
    break_it().await;
    assert_eq!(put(&database, id).await.status, 200);
    break_it().await;
    let keyed = Call::new("POST", "/tasks").header("idempotency-key", "key");
    assert_eq!(post(&database, keyed).await.status, 201);
    break_it().await;
    // Without a key it might have been stored already: the client must decide.
    let before = count(&pool).await;
    assert_unavailable(post(&database, Call::new("POST", "/tasks"))).await;
    assert_eq!(count(&pool).await, before);
    assert_eq!(post(&database, Call::new("POST", "/tasks")).await.status, 201);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn a_connection_whose_peer_vanished_while_it_was_idle_is_noticed_by_a_ping(pool: PgPool) {
    let proxy = Proxy::start(&pool).await;
    let database = proxy.database(&pool).ping_after(Duration::ZERO);
    let id = task(&pool, "t").await;
    for _ in 0..2 {
        assert_eq!(get(&database, id).await.status, 200);
        proxy.strand();
        let started = Instant::now();
        // Not repeatable: it must not be sent into the void.
        assert_eq!(post(&database, Call::new("POST", "/tasks")).await.status, 201);
        assert!(
            started.elapsed() < Duration::from_millis(1900),
            "{:?}",
            started.elapsed()
        );
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn the_connection_that_was_begun_ahead_is_the_one_that_is_used(pool: PgPool) {
    let id = task(&pool, "t").await;
    let round_trips = async |ahead: bool| {
        let proxy = Proxy::start(&pool).await;
        let database = proxy.database(&pool);
        let database = if ahead { database.connect_ahead() } else { database };
        for _ in 0..2 {
            assert_eq!(get(&database, id).await.status, 200);
        }
        proxy.round_trips()
    };
    assert_eq!(round_trips(true).await, round_trips(false).await);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn a_connection_that_was_begun_ahead_and_never_came_does_not_hold_up_the_first_request(pool: PgPool) {
    let id = task(&pool, "t").await;
    let proxy = Proxy::start(&pool).await;
    // As when the environment is frozen in the middle of it.
    proxy.freeze();
    let database = proxy.database(&pool).connect_ahead();
    tokio::time::sleep(Duration::from_millis(2100)).await;
    proxy.strand();
    proxy.open();
    let started = Instant::now();
    assert_eq!(get(&database, id).await.status, 200);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn a_database_that_was_down_when_the_function_started_is_asked_again(pool: PgPool) {
    let id = task(&pool, "t").await;
    let proxy = Proxy::start(&pool).await;
    proxy.take_down().await;
    let database = proxy.database(&pool).connect_ahead();
    assert_unavailable(get(&database, id)).await;
    proxy.open();
    assert_eq!(get(&database, id).await.status, 200);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn a_postgres_that_accepts_and_never_answers_is_503(pool: PgPool) {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = silent.local_addr().expect("an address").port();
    let database = Database::new((*pool.connect_options()).clone().host("127.0.0.1").port(port));
    assert_unavailable(get(&database, 1)).await;
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn a_read_only_database_is_503_for_writers_until_it_is_writable_again(pool: PgPool) {
    let database = database(&pool);
    let id = task(&pool, "t").await;
    let name: String = sqlx::query_scalar("select current_database()")
        .fetch_one(&pool)
        .await
        .expect("a name");
    let set = async |value: &str| {
        let alter = format!(r#"alter database "{name}" set default_transaction_read_only = {value}"#);
        // On one session: another one of the pool may be read-only.
        let mut session = pool.acquire().await.expect("a session");
        for statement in ["set default_transaction_read_only = off", &alter] {
            let done = sqlx::query(statement).execute(&mut *session).await;
            done.expect("the statement is valid");
        }
    };
    // Holds for new sessions, as after a failover.
    set("on").await;
    assert_unavailable(put(&database, id)).await;
    assert_unavailable(post(&database, Call::new("POST", "/tasks"))).await;
    assert_eq!(get(&database, id).await.status, 200);
    set("off").await;
    // The session that read just now is read-only still, and must be replaced.
    assert_eq!(put(&database, id).await.status, 200);
    assert_eq!(post(&database, Call::new("POST", "/tasks")).await.status, 201);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn too_many_connections_are_503_until_there_are_fewer(pool: PgPool) {
    let id = task(&pool, "t").await;
    let role = format!("limited_{}", std::process::id());
    execute(&pool, &format!("create role {role} login connection limit 1")).await;
    execute(&pool, &format!("grant all on all tables in schema public to {role}")).await;
    let options = (*pool.connect_options()).clone().username(&role);
    let (first, second) = (Database::new(options.clone()), Database::new(options));
    assert_eq!(get(&first, id).await.status, 200);
    assert_unavailable(get(&second, id)).await;
    drop(first);
    // Postgres notices the end of a connection in its own time.
    crate::support::eventually(10, "the place is free again", async || {
        (get(&second, id).await.status == 200).then_some(())
    })
    .await;
    drop(second);
    execute(&pool, &format!("drop owned by {role}")).await;
    execute(&pool, &format!("drop role {role}")).await;
}

/// Asks for a setting of the session.
struct Show(&'static str);

impl Statement for Show {
    type Output = String;

    async fn run(&self, connection: &mut PgConnection) -> Result<String, sqlx::Error> {
        let query = sqlx::query_scalar("select current_setting($1)").bind(self.0);
        query.fetch_one(connection).await
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn a_session_limits_statements_locks_and_idle_transactions(pool: PgPool) {
    let database = database(&pool);
    for (setting, value) in [
        ("statement_timeout", "1800ms"),
        ("lock_timeout", "1s"),
        ("idle_in_transaction_session_timeout", "5s"),
    ] {
        assert_eq!(database.run(&Show(setting)).await.expect("set"), value, "{setting}");
    }
}
