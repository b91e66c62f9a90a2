//! The migrator: its effect on a database, and that it always responds to CloudFormation.

use std::{
    sync::Mutex,
    time::{Duration, Instant, SystemTime},
};

use harness::{Bytes, HttpResponse, Request as HttpRequest, serve};
use migrator::{MIGRATIONS, MigratorError, Request, ResponseError, handle, migrate, migrate_with};
use serde_json::{Value, json};
use shared::store::Login;
use sqlx::{
    PgPool,
    migrate::{Migration, MigrationType, Migrator},
    postgres::PgConnectOptions,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    time::sleep,
};

use crate::support::{count, eventually, execute, task};

const SECOND: Duration = Duration::from_secs(1);

/// A server in place of S3, which receives the responses to CloudFormation.
struct CloudFormation {
    url: String,
    puts: UnboundedReceiver<(String, Value)>,
}

impl CloudFormation {
    /// Returns these statuses, in turn.
    async fn start(statuses: &'static [u16]) -> Self {
        let (sender, puts) = unbounded_channel();
        let statuses = Mutex::new(statuses.iter());
        let url = serve(move |request: HttpRequest<Bytes>| {
            let next = statuses.lock().expect("not poisoned").next();
            sender.send(put(&request)).expect("the test receives");
            let response = HttpResponse::builder().status(*next.expect("no further request"));
            response.body(String::new()).expect("a response")
        });
        let url = format!("{}/response?X-Amz-Signature=secret", url.await);
        Self { url, puts }
    }

    fn request(&self, request_type: &str) -> Request {
        let request = json!({
            "RequestType": request_type,
            "ResponseURL": self.url,
            "StackId": "arn:aws:cloudformation:eu-central-1:123456789012:stack/tasks/1",
            "RequestId": "request-1",
            "LogicalResourceId": "Migrations",
            "PhysicalResourceId": "migrations",
            "ResourceType": "Custom::Migrations",
            "ServiceToken": "arn:aws:lambda:eu-central-1:123456789012:function:migrator",
            "ResourceProperties": {"Code": "arn:aws:lambda:eu-central-1:123456789012:function:migrator:2"},
        });
        serde_json::from_value(request).expect("an event of CloudFormation")
    }

    /// Sends a request to the migrator, which has a minute to handle it, and returns its response.
    async fn send(&mut self, kind: &str, work: impl AsyncFnOnce() -> Result<String, MigratorError>) -> Value {
        let deadline = SystemTime::now() + 60 * SECOND;
        let outcome = handle(&self.request(kind), deadline, work).await;
        outcome.expect("the response is accepted");
        let (_, response) = self.puts.try_recv().expect("a response");
        response
    }
}

/// A request's head, in lower case, and its body.
fn put(request: &HttpRequest<Bytes>) -> (String, Value) {
    let headers = request.headers();
    assert!(headers.contains_key("content-length"), "S3 requires a length");
    let head = format!(
        "{} {} {:?} {headers:?}",
        request.method(),
        request.uri(),
        request.version()
    );
    let body = serde_json::from_slice(request.body()).expect("JSON");
    (head.to_ascii_lowercase(), body)
}

fn login(pool: &PgPool) -> Login {
    (*pool.connect_options()).clone().into()
}

fn name(pool: &PgPool) -> String {
    pool.connect_options().get_database().expect("a name").to_owned()
}

fn at(port: u16) -> Login {
    let options: PgConnectOptions = "postgres://user@127.0.0.1/none".parse().expect("a URL");
    options.port(port).into()
}

/// The number of migrations that have run.
async fn migrations(pool: &PgPool) -> usize {
    let count = sqlx::query_scalar::<_, i64>("select count(*) from _sqlx_migrations where success");
    count.fetch_one(pool).await.expect("the table exists") as usize
}

#[sqlx::test(migrations = false)]
async fn migrator_creates_schema_and_roles_once(pool: PgPool) {
    let mut stack = CloudFormation::start(&[200; 2]).await;
    let ready = json!({
        "Status": "SUCCESS",
        "PhysicalResourceId": "migrations",
        "StackId": "arn:aws:cloudformation:eu-central-1:123456789012:stack/tasks/1",
        "RequestId": "request-1",
        "LogicalResourceId": "Migrations",
        "Data": {"Database": name(&pool)},
    });
    assert_eq!(
        stack.send("Create", async || migrate(login(&pool), SECOND).await).await,
        ready
    );
    assert_eq!(migrations(&pool).await, MIGRATIONS.iter().count());
    let roles = "select count(*) from pg_roles where rolname in ('reader', 'writer', 'processor') and rolcanlogin";
    let roles: i64 = sqlx::query_scalar(roles).fetch_one(&pool).await.expect("a count");
    assert_eq!(roles, 3);

    task(&pool, "t").await;
    assert_eq!(
        stack.send("Update", async || migrate(login(&pool), SECOND).await).await,
        ready
    );
    assert_eq!(
        (migrations(&pool).await, count(&pool).await),
        (MIGRATIONS.iter().count(), 1)
    );
}

#[sqlx::test(migrations = false)]
async fn missing_database_is_created(pool: PgPool) {
    let mut stack = CloudFormation::start(&[200]).await;
    let missing = format!("migrator \"{}\"", std::process::id());
    let login = login(&pool).to_database(&missing);
    let response = stack.send("Create", async || migrate(login, SECOND).await).await;
    assert_eq!(
        (&response["Status"], &response["Data"]["Database"]),
        (&json!("SUCCESS"), &json!(missing))
    );
    let drop = format!("drop database \"{}\" with (force)", missing.replace('"', "\"\""));
    execute(&pool, &drop).await;
}

/// Search ignores case, and normalizes.
#[sqlx::test(migrations = false)]
async fn database_with_only_ascii_letters_is_refused(pool: PgPool) {
    for (encoding, reported) in [
        ("UTF8", "the encoding UTF8 and the locale C,"),
        ("SQL_ASCII", "the encoding SQL_ASCII and"),
    ] {
        let mut stack = CloudFormation::start(&[200]).await;
        let name = format!("ascii_{}_{}", encoding.to_lowercase(), std::process::id());
        let create = format!("create database {name} template template0 encoding '{encoding}' locale 'C'");
        execute(&pool, &create).await;
        let login = login(&pool).to_database(&name);
        let response = stack.send("Create", async || migrate(login, SECOND).await).await;
        execute(&pool, &format!("drop database {name} with (force)")).await;
        let reason = response["Reason"].as_str().expect("a reason");
        assert_eq!(response["Status"], "FAILED");
        for part in [reported, "create it with encoding UTF8 and a locale like C.UTF-8"] {
            assert!(reason.contains(part), "{reason}");
        }
    }
}

/// The search index of titles that were stored before.
#[sqlx::test(migrations = false)]
async fn decomposed_title_is_indexed_by_migration(pool: PgPool) {
    let before = sqlx::migrate::Migrator {
        migrations: MIGRATIONS
            .iter()
            .filter(|migration| migration.version < 11)
            .cloned()
            .collect(),
        ..sqlx::migrate::Migrator::DEFAULT
    };
    before.run(&pool).await.expect("an older schema");
    let (decomposed, composed) = ("o\u{308}n", "\u{f6}n");
    for title in [decomposed, composed, "on"] {
        task(&pool, title).await;
    }
    let rows = "select jsonb_agg(to_jsonb(tasks) order by id) from tasks";
    let old: Value = sqlx::query_scalar(rows).fetch_one(&pool).await.expect("rows");
    migrate(login(&pool), SECOND).await.expect("migrated");
    let mut new: Value = sqlx::query_scalar(rows).fetch_one(&pool).await.expect("rows");
    for row in new.as_array_mut().expect("rows") {
        // Later migrations have added them.
        for column in ["earlier_attempts", "run_at"] {
            row.as_object_mut().expect("a row").remove(column);
        }
    }
    assert_eq!(new, old);
    let mut connection = pool.acquire().await.expect("a connection");
    let by_index = "set enable_seqscan = off";
    sqlx::raw_sql(by_index).execute(&mut *connection).await.expect("set");
    for query in [decomposed, composed] {
        let found = "select array_agg(task_id order by task_id)
                     from task_titles
                     where title_parts(title) collate \"C\" @> search_parts($1)";
        let found: Vec<i64> = sqlx::query_scalar(found)
            .bind(query)
            .fetch_one(&mut *connection)
            .await
            .expect("ids");
        assert_eq!(found, [1, 2], "{query:?}");
    }
}

#[sqlx::test(migrations = false)]
async fn failed_migration_is_rolled_back_with_reason(pool: PgPool) {
    let mut stack = CloudFormation::start(&[200]).await;
    execute(&pool, "create table tasks ()").await;
    let response = stack.send("Update", async || migrate(login(&pool), SECOND).await).await;
    assert_eq!(
        (&response["Status"], &response["PhysicalResourceId"]),
        (&json!("FAILED"), &json!("migrations"))
    );
    let reason = response["Reason"].as_str().expect("a reason");
    assert!(
        reason.contains(r#"migration 1: "#) && reason.contains(r#"relation "tasks" already exists"#),
        "{reason}"
    );
    // The type that the failed migration created first.
    let left: i64 = sqlx::query_scalar("select count(*) from pg_type where typname = 'task_status'")
        .fetch_one(&pool)
        .await
        .expect("a count");
    assert_eq!((left, migrations(&pool).await), (0, 0));
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn changed_migration_is_refused(pool: PgPool) {
    let mut stack = CloudFormation::start(&[200]).await;
    execute(
        &pool,
        "update _sqlx_migrations set checksum = '\\x00' where version = 2",
    )
    .await;
    let response = stack.send("Update", async || migrate(login(&pool), SECOND).await).await;
    let reason = response["Reason"].as_str().expect("a reason");
    assert_eq!(response["Status"], "FAILED");
    assert!(
        reason.contains("migration 2 was previously applied but has been modified"),
        "{reason}"
    );
}

/// As when a deployment is rolled back after its migration: CloudFormation invokes the previous
/// version again.
#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn newer_database_is_left_unchanged(pool: PgPool) {
    let mut stack = CloudFormation::start(&[200]).await;
    execute(
        &pool,
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
         values (9999, 'of the next version', true, '\\x00', 0)",
    )
    .await;
    let response = stack.send("Update", async || migrate(login(&pool), SECOND).await).await;
    assert_eq!(
        (&response["Status"], &response["Reason"]),
        (&json!("SUCCESS"), &json!(null))
    );
    assert_eq!(migrations(&pool).await, MIGRATIONS.iter().count() + 1);
}

#[sqlx::test(migrations = false)]
async fn concurrent_migrators_migrate_once(pool: PgPool) {
    let (first, second) = tokio::join!(migrate(login(&pool), SECOND), migrate(login(&pool), SECOND));
    assert_eq!(first.expect("the first succeeds"), second.expect("the second succeeds"));
    assert_eq!(migrations(&pool).await, MIGRATIONS.iter().count());
}

/// All migrations, and one more, which runs without a transaction.
fn followed_by(statement: &str) -> Migrator {
    let sql = format!("-- no-transaction\n{statement}");
    let last = Migration::new(9999, "an index".into(), MigrationType::Simple, sql.into(), true);
    Migrator {
        migrations: MIGRATIONS.iter().cloned().chain([last]).collect(),
        ..Migrator::DEFAULT
    }
}

/// For each index of this name, whether it is valid.
async fn is_valid(pool: &PgPool, index: &str) -> Vec<bool> {
    let sql = "select indisvalid from pg_index join pg_class on pg_class.oid = indexrelid where relname = $1";
    let valid = sqlx::query_scalar(sql).bind(index).fetch_all(pool).await;
    valid.expect("the query is valid")
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn concurrent_migrators_build_one_valid_index(pool: PgPool) {
    let migrations = followed_by("create index concurrently tasks_title on tasks (title)");
    // The build waits for this transaction: by its end, the other migrator is waiting as well.
    let mut writer = pool.begin().await.expect("a transaction");
    let insert = sqlx::query("insert into tasks (title) values ('t')");
    insert.execute(&mut *writer).await.expect("inserted");
    let finish = async {
        eventually(10, "one migrator builds, the other waits", async || {
            let both = "select exists (select from pg_stat_progress_create_index where datname = current_database())
                           and exists (select from pg_stat_activity
                                       where datname = current_database() and query like 'SELECT pg_advisory_lock%')";
            let both: bool = sqlx::query_scalar(both).fetch_one(&pool).await.expect("valid");
            both.then_some(())
        })
        .await;
        writer.commit().await.expect("committed");
    };
    let (one, two, ()) = tokio::join!(
        migrate_with(&migrations, login(&pool), SECOND),
        migrate_with(&migrations, login(&pool), SECOND),
        finish
    );
    assert_eq!(one.expect("migrated"), two.expect("waited, and found nothing to do"));
    assert_eq!(is_valid(&pool, "tasks_title").await, [true]);
    assert_eq!(self::migrations(&pool).await, MIGRATIONS.iter().count() + 1);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn failed_build_leaves_no_invalid_index(pool: PgPool) {
    for _ in 0..2 {
        task(&pool, "same").await;
    }
    let build = "create unique index concurrently tasks_title on tasks (title)";
    let failed = migrate_with(&followed_by(build), login(&pool), SECOND).await;
    let error = failed.expect_err("the titles are not unique").to_string();
    assert!(error.contains("could not create unique index"), "{error}");
    assert_eq!(is_valid(&pool, "tasks_title").await, [false; 0]);

    // As if the migrator had been terminated during the build.
    let killed = sqlx::raw_sql(build).execute(&pool).await;
    killed.expect_err("the titles are not unique");
    assert_eq!(is_valid(&pool, "tasks_title").await, [false]);
    execute(&pool, "delete from tasks where id = 1").await;
    let idempotent = "create unique index concurrently if not exists tasks_title on tasks (title)";
    let built = migrate_with(&followed_by(idempotent), login(&pool), SECOND).await;
    built.expect("the index is built anew");
    assert_eq!(is_valid(&pool, "tasks_title").await, [true]);
}

/// As since Postgres 17, where they do not find what is in `public` without its whole name.
#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn maintenance_works_without_search_path(pool: PgPool) {
    task(&pool, "Überweisung").await;
    let mut connection = pool.acquire().await.expect("a connection");
    let tables = "select format('%I.%I', schemaname, tablename) from pg_tables where schemaname = 'public'";
    let tables: Vec<String> = sqlx::query_scalar(tables)
        .fetch_all(&mut *connection)
        .await
        .expect("the query is valid");
    let narrowed = sqlx::raw_sql("set search_path = pg_catalog, pg_temp");
    narrowed.execute(&mut *connection).await.expect("it is a setting");
    for table in tables {
        for maintenance in ["analyze", "vacuum", "reindex table"] {
            let done = sqlx::raw_sql(&format!("{maintenance} {table}"))
                .execute(&mut *connection)
                .await;
            done.unwrap_or_else(|error| panic!("{maintenance} {table}: {error}"));
        }
    }
}

/// As on RDS, where the master user is not a superuser.
#[sqlx::test(migrations = false)]
async fn database_owner_with_createrole_can_migrate(pool: PgPool) {
    let master = format!("master_{}", std::process::id());
    execute(&pool, &format!("create role {master} login createrole createdb")).await;
    // The functions' roles belong to the server: another test's superuser may have created them. On RDS the master did,
    // and may therefore change them; since Postgres 16, `createrole` alone does not allow that.
    execute(
        &pool,
        &format!(
            "do $$ declare role text; begin
                 foreach role in array array['reader', 'writer', 'processor'] loop
                     begin
                         execute format('create role %I login', role);
                     exception when duplicate_object or unique_violation then null;
                     end;
                     execute format('grant %I to {master} with admin option', role);
                 end loop;
             end $$"
        ),
    )
    .await;
    execute(&pool, &format!("alter database \"{}\" owner to {master}", name(&pool))).await;
    // Before Postgres 15, the schema does not belong to the database's owner by default.
    execute(&pool, &format!("alter schema public owner to {master}")).await;
    let login = Login::from((*pool.connect_options()).clone().username(&master));
    for _ in 0..2 {
        migrate(login.clone(), SECOND).await.expect("nothing needs a superuser");
    }
    let reader = Login::from((*pool.connect_options()).clone().username("reader"));
    let mut reader = reader.connect().await.expect("a reader may log in");
    sqlx::query("select from tasks")
        .fetch_all(&mut reader)
        .await
        .expect("a reader may read");
    drop(reader);
    execute(&pool, &format!("reassign owned by {master} to current_user")).await;
    execute(&pool, &format!("drop owned by {master}")).await;
    execute(&pool, &format!("drop role {master}")).await;
}

#[tokio::test]
async fn panic_is_reported_to_cloudformation() {
    let mut stack = CloudFormation::start(&[200]).await;
    let response = stack.send("Create", async || panic!("a bug")).await;
    assert_eq!(
        (&response["Status"], &response["Reason"], &response["Data"]),
        (
            &json!("FAILED"),
            &json!("the migrator panicked: see its log"),
            &json!({})
        )
    );
}

#[sqlx::test(migrations = false)]
async fn slow_migration_is_reported_before_timeout(pool: PgPool) {
    let mut stack = CloudFormation::start(&[200]).await;
    // Another migrator holds the lock and does not finish.
    let mut other = pool.acquire().await.expect("a connection");
    sqlx::migrate::Migrate::lock(&mut *other)
        .await
        .expect("the lock of all migrators");
    let (started, deadline) = (Instant::now(), SystemTime::now() + 17 * SECOND);
    let outcome = handle(&stack.request("Update"), deadline, async || {
        migrate(login(&pool), SECOND).await
    })
    .await;
    outcome.expect("the response is accepted");
    assert!(started.elapsed() < 4 * SECOND, "{:?}", started.elapsed());
    let (_, response) = stack.puts.try_recv().expect("a response");
    assert_eq!(
        (&response["Status"], &response["Reason"]),
        (
            &json!("FAILED"),
            &json!("the migration exceeded the migrator's time limit")
        )
    );
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn abandoned_migration_session_is_terminated(pool: PgPool) {
    // An empty schema: the first migration waits for a transaction that is creating the same type.
    execute(&pool, "drop schema public cascade").await;
    execute(&pool, "create schema public").await;
    let mut blocker = pool.begin().await.expect("a transaction");
    sqlx::query("create type task_status as enum ()")
        .execute(&mut *blocker)
        .await
        .expect("the type is locked");
    let timed_out = tokio::time::timeout(SECOND, migrate(login(&pool), SECOND)).await;
    assert!(timed_out.is_err(), "{timed_out:?}");
    crate::support::eventually(5, "the migration's session has ended", async || {
        let waiting = "select count(*) from pg_stat_activity
                       where datname = current_database() and wait_event_type = 'Lock'";
        let waiting: i64 = sqlx::query_scalar(waiting).fetch_one(&pool).await.expect("a count");
        (waiting == 0).then_some(())
    })
    .await;
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn stack_deletion_preserves_data(pool: PgPool) {
    let mut stack = CloudFormation::start(&[200]).await;
    task(&pool, "t").await;
    let response = stack
        .send("Delete", async || unreachable!("there is nothing to do"))
        .await;
    assert_eq!(
        (&response["Status"], &response["PhysicalResourceId"]),
        (&json!("SUCCESS"), &json!("migrations"))
    );
    assert_eq!(count(&pool).await, 1);
}

#[tokio::test]
async fn unreachable_database_is_reported() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let silent = silent
        .local_addr()
        .map(|address| (silent, address.port()))
        .expect("an address");
    for (port, reason) in [(1, "Connection refused"), (silent.1, "no response")] {
        let mut stack = CloudFormation::start(&[200]).await;
        let response = stack.send("Create", async || migrate(at(port), 2 * SECOND).await).await;
        let reported = response["Reason"].as_str().expect("a reason");
        assert_eq!(response["Status"], "FAILED");
        assert!(
            reported.starts_with("no connection to the database: ") && reported.contains(reason),
            "{reported}"
        );
    }
}

#[sqlx::test(migrations = false)]
async fn migrator_waits_for_database_to_resume(pool: PgPool) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    let options = (*pool.connect_options()).clone();
    let upstream = (options.get_host().to_owned(), options.get_port());
    tokio::spawn(async move {
        sleep(2 * SECOND).await;
        let listener = TcpListener::bind(("127.0.0.1", port))
            .await
            .expect("the port is still free");
        let (mut client, _) = listener.accept().await.expect("a client");
        let mut server = TcpStream::connect(upstream).await.expect("Postgres is running");
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    });
    let database = migrate(options.host("127.0.0.1").port(port).into(), 10 * SECOND).await;
    assert_eq!(database.expect("the database has resumed"), name(&pool));
}

#[tokio::test]
async fn response_is_put_to_s3_and_retried() {
    let mut stack = CloudFormation::start(&[503, 503, 200]).await;
    let response = stack
        .send("Delete", async || unreachable!("there is nothing to do"))
        .await;
    let (head, second) = stack.puts.try_recv().expect("a second request");
    let (_, third) = stack.puts.try_recv().expect("a third request");
    assert_eq!((&response, &response), (&second, &third));
    assert!(
        head.starts_with("put /response?x-amz-signature=secret http/1.1"),
        "{head}"
    );
    // The signature covers the content type: there is none.
    assert!(
        !head.contains("content-type") && !head.contains("transfer-encoding"),
        "{head}"
    );

    let refusing = CloudFormation::start(&[403; 3]).await;
    let deadline = SystemTime::now() + 60 * SECOND;
    let outcome = handle(&refusing.request("Delete"), deadline, async || {
        unreachable!("there is nothing to do")
    })
    .await;
    assert!(
        matches!(&outcome, Err(ResponseError::Refused(status)) if *status == 403),
        "{outcome:?}"
    );
}
