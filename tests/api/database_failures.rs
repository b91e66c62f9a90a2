//! How functions respond while the database is unavailable, and how they recover.

use std::time::{Duration, Instant};

use serde_json::json;
use shared::{
    domain::{Access, TaskId},
    store::{
        Database, Statement,
        tasks::{Find, MarkEnqueued},
    },
};
use sqlx::{PgConnection, PgPool};
use tokio::{net::TcpListener, time::sleep};

use crate::support::{App, Proxy, Response, count, database, execute, row, task};

async fn get(app: &App, id: i64) -> Response {
    app.get(format!("/tasks/{id}")).await
}

async fn put(app: &App, id: i64) -> Response {
    app.put(format!("/tasks/{id}"), json!({"title": "new"})).await
}

async fn post(app: &App) -> Response {
    app.post("/tasks", json!({"title": "t"})).await
}

/// Asserts a 503 with `retry-after`, well before the function's timeout.
async fn assert_unavailable(response: impl Future<Output = Response>) {
    let started = Instant::now();
    let response = response.await;
    response.assert_problem(503, "Service Unavailable");
    assert_eq!(response.header("retry-after"), "2");
    assert!(
        started.elapsed() < Duration::from_millis(2500),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn unreachable_database_is_503_with_retry_after() {
    let app = App::without_database();
    for request in [
        app.get("/tasks/1"),
        app.get("/tasks"),
        app.delete("/tasks/1"),
        app.put("/tasks/1", json!({"title": "t"})),
    ] {
        let response = request.await;
        response.assert_problem(503, "Service Unavailable");
        assert_eq!(response.header("retry-after"), "2");
        assert!(
            !response.json().to_string().contains("127.0.0.1"),
            "{response:?} reveals internals"
        );
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn blocked_statement_is_503_in_time(pool: PgPool) {
    let app = App::new(&pool);
    let id = task(&pool, "t").await;
    let mut blocker = pool.begin().await.expect("a transaction");
    sqlx::query("update tasks set title = 'locked'")
        .execute(&mut *blocker)
        .await
        .expect("the row is locked");
    let started = std::time::Instant::now();
    let response = app.put(format!("/tasks/{id}"), json!({"title": "t"})).await;
    response.assert_problem(503, "Service Unavailable");
    assert!(started.elapsed().as_secs_f64() < 2.5, "{:?}", started.elapsed());
    blocker.rollback().await.expect("the lock is released");

    let response = app.put(format!("/tasks/{id}"), json!({"title": "after"})).await;
    assert_eq!((response.status(), &response.json()["title"]), (200, &json!("after")));
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn bug_is_500_without_internals(pool: PgPool) {
    let app = App::new(&pool);
    execute(&pool, "alter table tasks rename column title to name").await;
    let response = app.get("/tasks/1").await;
    response.assert_problem(500, "Internal Server Error");
    assert_eq!(response.json()["detail"], "An unexpected error occurred.");
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn terminated_session_is_replaced(pool: PgPool) {
    let app = App::new(&pool);
    let id = task(&pool, "t").await;
    let end_sessions = "select pg_terminate_backend(pid) from pg_stat_activity
                        where datname = current_database() and pid <> pg_backend_pid()";
    for round in 0..3 {
        // Even a write is repeated: Postgres reports that it closed the session before the
        // statement arrived.
        let body = json!({"title": format!("round {round}")});
        let response = app.request("PUT", format!("/tasks/{id}")).json(&body).await;
        assert_eq!((response.status(), &response.json()["title"]), (200, &body["title"]));
        execute(&pool, end_sessions).await;
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn paused_or_stopped_postgres_is_503_until_it_recovers(pool: PgPool) {
    let proxy = Proxy::start(&pool).await;
    let app = App::with_database(proxy.database(&pool));
    let id = task(&pool, "t").await;
    for paused in [true, false] {
        assert_eq!(get(&app, id).await.status(), 200);
        if paused {
            proxy.freeze();
        } else {
            proxy.take_down().await;
        }
        assert_unavailable(get(&app, id)).await;
        assert_unavailable(put(&app, id)).await;
        assert_unavailable(post(&app)).await;
        proxy.open();
        assert_eq!(post(&app).await.status(), 201);
        assert_eq!(put(&app, id).await.status(), 200);
        assert_eq!(get(&app, id).await.status(), 200);
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn broken_connection_is_replaced_if_retry_is_safe(pool: PgPool) {
    let proxy = Proxy::start(&pool).await;
    let app = App::with_database(proxy.database(&pool));
    let id = task(&pool, "t").await;
    let break_it = async || {
        assert_eq!(get(&app, id).await.status(), 200);
        proxy.take_down().await;
        proxy.open();
    };
    break_it().await;
    assert_eq!(get(&app, id).await.status(), 200);
    break_it().await;
    assert_eq!(put(&app, id).await.status(), 200);
    break_it().await;
    let keyed = app
        .post("/tasks", json!({"title": "t"}))
        .header("idempotency-key", "key");
    assert_eq!(keyed.await.status(), 201);
    break_it().await;
    // Without a key the task may have been stored already: only the client can decide to retry.
    let before = count(&pool).await;
    assert_unavailable(post(&app)).await;
    assert_eq!(count(&pool).await, before);
    assert_eq!(post(&app).await.status(), 201);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn ping_detects_vanished_peer_of_idle_connection(pool: PgPool) {
    let proxy = Proxy::start(&pool).await;
    let app = App::with_database(proxy.database(&pool).ping_after(Duration::ZERO));
    let id = task(&pool, "t").await;
    for _ in 0..2 {
        assert_eq!(get(&app, id).await.status(), 200);
        proxy.strand();
        let started = Instant::now();
        // Not safe to repeat, so it must not be sent on the dead connection.
        assert_eq!(post(&app).await.status(), 201);
        assert!(
            started.elapsed() < Duration::from_millis(1900),
            "{:?}",
            started.elapsed()
        );
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn connection_started_during_init_is_used(pool: PgPool) {
    let id = task(&pool, "t").await;
    let round_trips = async |ahead: bool| {
        let proxy = Proxy::start(&pool).await;
        let database = proxy.database(&pool);
        let app = App::with_database(if ahead { database.connect_ahead() } else { database });
        for _ in 0..2 {
            assert_eq!(get(&app, id).await.status(), 200);
        }
        proxy.round_trips()
    };
    assert_eq!(round_trips(true).await, round_trips(false).await);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn stalled_init_connection_does_not_delay_first_request(pool: PgPool) {
    let id = task(&pool, "t").await;
    let proxy = Proxy::start(&pool).await;
    // As if the execution environment were frozen while it connects.
    proxy.freeze();
    let app = App::with_database(proxy.database(&pool).connect_ahead());
    tokio::time::sleep(Duration::from_millis(2100)).await;
    proxy.strand();
    proxy.open();
    let started = Instant::now();
    assert_eq!(get(&app, id).await.status(), 200);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn database_down_during_init_is_retried(pool: PgPool) {
    let id = task(&pool, "t").await;
    let proxy = Proxy::start(&pool).await;
    proxy.take_down().await;
    let app = App::with_database(proxy.database(&pool).connect_ahead());
    assert_unavailable(get(&app, id)).await;
    proxy.open();
    assert_eq!(get(&app, id).await.status(), 200);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn hanging_postgres_is_503(pool: PgPool) {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = silent.local_addr().expect("an address").port();
    let app = App::with_database(Database::new(
        (*pool.connect_options()).clone().host("127.0.0.1").port(port),
    ));
    assert_unavailable(get(&app, 1)).await;
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn read_only_database_is_503_for_writers(pool: PgPool) {
    let app = App::new(&pool);
    let id = task(&pool, "t").await;
    let name: String = sqlx::query_scalar("select current_database()")
        .fetch_one(&pool)
        .await
        .expect("a name");
    let set = async |value: &str| {
        let alter = format!(r#"alter database "{name}" set default_transaction_read_only = {value}"#);
        // In one session: others of the pool may be read-only.
        let mut session = pool.acquire().await.expect("a session");
        for statement in ["set default_transaction_read_only = off", &alter] {
            let done = sqlx::query(statement).execute(&mut *session).await;
            done.expect("the statement is valid");
        }
    };
    // Applies to new sessions, as after a failover.
    set("on").await;
    assert_unavailable(put(&app, id)).await;
    assert_unavailable(post(&app)).await;
    assert_eq!(get(&app, id).await.status(), 200);
    set("off").await;
    // The session of the last read is still read-only and must be replaced.
    assert_eq!(put(&app, id).await.status(), 200);
    assert_eq!(post(&app).await.status(), 201);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn too_many_connections_are_503(pool: PgPool) {
    let id = task(&pool, "t").await;
    let role = format!("limited_{}", std::process::id());
    execute(&pool, &format!("create role {role} login connection limit 1")).await;
    execute(&pool, &format!("grant all on all tables in schema public to {role}")).await;
    let options = (*pool.connect_options()).clone().username(&role);
    let [first, second] = [options.clone(), options].map(|options| App::with_database(Database::new(options)));
    assert_eq!(get(&first, id).await.status(), 200);
    assert_unavailable(get(&second, id)).await;
    drop(first);
    // Postgres releases a closed connection's slot asynchronously.
    crate::support::eventually(10, "the connection slot is free again", async || {
        (get(&second, id).await.status() == 200).then_some(())
    })
    .await;
    drop(second);
    execute(&pool, &format!("drop owned by {role}")).await;
    execute(&pool, &format!("drop role {role}")).await;
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn changed_column_type_does_not_fail_warm_functions(pool: PgPool) {
    let id = task(&pool, "t").await;
    // It depends on the columns; a migration would create it anew.
    execute(&pool, "drop function task_document").await;
    let types = ["varchar", "text"].into_iter().cycle();
    for (request, column_type) in (0..5).zip(types) {
        let app = App::new(&pool);
        for is_warm in [false, true] {
            if is_warm {
                for column in ["result", "description"] {
                    let alter = format!("alter table tasks alter column {column} type {column_type}");
                    execute(&pool, &alter).await;
                }
            }
            let response = match request {
                0 => get(&app, id).await,
                1 => put(&app, id).await,
                // Not repeatable, but Postgres has not run it.
                2 => post(&app).await,
                3 => app.get("/tasks").await,
                _ => app.get(format!("/admin/tasks/{id}")).await,
            };
            assert!(response.status() < 300, "{request}: {response:?}");
        }
    }
    assert_eq!((count(&pool).await, &row(&pool, id).await["version"]), (3, &json!(3)));
}

/// Statements that change the session.
struct Sql(&'static [&'static str]);

impl Statement for Sql {
    type Output = ();

    async fn run(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        for statement in self.0 {
            sqlx::query(statement).execute(&mut *connection).await?;
        }
        Ok(())
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn mixed_up_prepared_statements_are_replaced(pool: PgPool) {
    let id = TaskId::try_from(task(&pool, "t").await).expect("an id");
    let find = Find {
        id,
        access: Access::All,
    };
    // As behind a proxy that has switched the session: it does not know the statement (26000); the
    // name is taken (42P05), or belongs to a statement with other parameters (08P01).
    for (mix_up, reason) in [
        (&["deallocate all"][..], "26000"),
        (
            &["do $$ begin
                 for n in 2..99 loop
                     begin execute format('prepare sqlx_s_%s as select 1', n);
                     exception when duplicate_prepared_statement then null; end;
                 end loop;
             end $$"],
            "42P05",
        ),
        (&["deallocate all", "prepare sqlx_s_1 as select 1"], "08P01"),
    ] {
        let database = database(&pool);
        database.run(&find).await.expect("found");
        database.run(&Sql(mix_up)).await.expect("mixed up");
        database.run(&MarkEnqueued { id, run_at: None }).await.expect(reason);
        assert!(database.run(&find).await.expect(reason).is_some(), "{reason}");
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn refused_login_is_retried_and_then_503(pool: PgPool) {
    let id = task(&pool, "t").await;
    let role = format!("refused_{}", std::process::id());
    execute(&pool, &format!("create role {role} nologin")).await;
    execute(&pool, &format!("grant all on all tables in schema public to {role}")).await;
    let options = (*pool.connect_options()).clone().username(&role);
    let app = || App::with_database(Database::new(options.clone()));
    assert_unavailable(get(&app(), id)).await;

    let allow = async {
        sleep(Duration::from_millis(200)).await;
        execute(&pool, &format!("alter role {role} login")).await;
    };
    let admitted = app();
    let (response, ()) = tokio::join!(get(&admitted, id), allow);
    assert_eq!(response.status(), 200);
    drop(admitted);
    execute(&pool, &format!("drop owned by {role}")).await;
    execute(&pool, &format!("drop role {role}")).await;
}

/// Reads a setting of the session.
struct Show(&'static str);

impl Statement for Show {
    type Output = String;

    async fn run(&self, connection: &mut PgConnection) -> Result<String, sqlx::Error> {
        let query = sqlx::query_scalar("select current_setting($1)").bind(self.0);
        query.fetch_one(connection).await
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn session_has_timeouts_and_no_jit(pool: PgPool) {
    let database = database(&pool);
    for (setting, value) in [
        ("jit", "off"),
        ("statement_timeout", "1800ms"),
        ("lock_timeout", "1s"),
        ("idle_in_transaction_session_timeout", "5s"),
    ] {
        assert_eq!(database.run(&Show(setting)).await.expect("set"), value, "{setting}");
    }
}
