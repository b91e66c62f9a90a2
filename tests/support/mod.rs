//! Fixtures and helpers that the tests share.

mod app;
mod browser;
mod certificates;
pub mod documents;
pub mod functions;
pub mod issuer;
mod logs;
pub mod mapping;
mod metrics;
mod plans;
mod queues;
mod recorder;
mod response;
pub mod routes;
pub mod settings;

pub use app::{App, Gateway, Request};
pub use browser::Browser;
pub use certificates::make_certificates;
pub use harness::{Proxy, events, eventually};
pub use logs::LogLines;
pub use metrics::MetricLines;
pub use plans::{plan_nodes, statements};
pub use queues::{TestQueue, client_config, hanging_sqs, refusing_queue, refusing_sqs, scripted_sqs, sqs, sqs_stub};
pub use recorder::Recorder;
pub use response::Response;

use std::{path::Path, time::Duration};

use local_issuer::LocalIssuer;
use serde_json::Value;
use shared::{
    domain::Status,
    store::{Database, Login, SESSION},
};
use sqlx::{Connection, PgConnection, PgPool};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// The Python of the SAM CLI.
pub const SAM_PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.local/tools/sam/bin/python");

/// A variable that `make test` sets.
pub fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run the tests with `make test`"))
}

/// A token for the stack with authentication, valid for a minute.
pub fn token(subject: &str, scope: &str) -> String {
    let issuer = LocalIssuer::open(Path::new(&env("ISSUER_KEY"))).expect("the stack's key");
    issuer.token(subject, scope, Duration::from_secs(60))
}

/// A connection to the test's own database with the settings of the functions' sessions.
pub async fn session(pool: &PgPool) -> PgConnection {
    let options = (*pool.connect_options()).clone().options(SESSION);
    PgConnection::connect_with(&options).await.expect("a connection")
}

/// The test's own database, as the functions use it.
pub fn database(pool: &PgPool) -> Database {
    Database::new((*pool.connect_options()).clone())
}

/// A database that refuses connections.
pub fn database_that_is_down() -> Database {
    Database::new(
        "postgres://postgres@127.0.0.1:1/none"
            .parse::<Login>()
            .expect("a valid URL"),
    )
}

/// Inserts a pending task and returns its id.
pub async fn task(pool: &PgPool, title: &str) -> i64 {
    sqlx::query_scalar("insert into tasks (title, enqueued_at) values ($1, now()) returning id")
        .bind(title)
        .fetch_one(pool)
        .await
        .expect("the task is inserted")
}

/// Stores a status that the task is shown with, whatever leads to it.
pub async fn store_status(pool: &PgPool, id: i64, status: Status) {
    let (stored, lease) = match status {
        Status::Processing => (Status::Pending, "now() + interval '1 min'"),
        status => (status, "null"),
    };
    let settled_at = match status {
        Status::Completed | Status::Failed | Status::Cancelled => "now()",
        _ => "null",
    };
    let run_at = match status {
        Status::Scheduled => "now() + interval '1 h'",
        _ => "null",
    };
    let store = format!(
        "update tasks set status = '{}', lease_expires_at = {lease}, settled_at = {settled_at}, run_at = {run_at}
         where id = {id}",
        stored.as_str()
    );
    execute(pool, &store).await;
}

/// The time in this many seconds, as clients send it and the API returns it.
pub fn in_seconds(seconds: i64) -> String {
    let time = OffsetDateTime::now_utc() + time::Duration::seconds(seconds);
    let time = time.replace_nanosecond(time.nanosecond() / 1000 * 1000);
    time.ok().and_then(|time| time.format(&Rfc3339).ok()).expect("a time")
}

/// The task's row as JSON, with the status that clients see, or null.
pub async fn row(pool: &PgPool, id: i64) -> Value {
    sqlx::query_scalar::<_, Value>(
        "select to_jsonb(tasks) || jsonb_build_object('status', shown_status(status, lease_expires_at))
         from tasks where id = $1",
    )
    .bind(id)
    .fetch_optional(pool)
    .await
    .expect("the query is valid")
    .unwrap_or_default()
}

/// The number of tasks.
pub async fn count(pool: &PgPool) -> i64 {
    sqlx::query_scalar("select count(*) from tasks")
        .fetch_one(pool)
        .await
        .expect("the query is valid")
}

/// Executes a statement in the test's database.
pub async fn execute(pool: &PgPool, sql: &str) {
    sqlx::query(sql).execute(pool).await.expect("the statement is valid");
}
