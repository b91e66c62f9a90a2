//! The test environment: a database and queues of its own, and the functions.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

use aws_sdk_sqs::Client;
use harness::Proxy;
use serde_json::Value;
use sqlx::{
    ConnectOptions, PgPool, Postgres,
    migrate::{MigrateDatabase, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::{Starting, Template, env, queues};

/// The graded schema. Read here rather than compiled into the candidate's migrator: nothing of the
/// candidate's runs in the checks' process.
const MIGRATIONS: &str = "../../migrations";

/// The migrations.
pub async fn migrations() -> Migrator {
    let read = Migrator::new(Path::new(MIGRATIONS)).await;
    read.unwrap_or_else(|error| panic!("the migrations cannot be read: {error}"))
}

/// The statements that set up the functions' roles, after the migrations.
pub fn roles() -> String {
    let read = fs::read_to_string(Path::new(MIGRATIONS).join("roles.sql"));
    read.unwrap_or_else(|error| panic!("migrations/roles.sql cannot be read: {error}"))
}

/// A check's test environment. It is exclusive to the check, and deleted when the check ends.
pub struct TestEnvironment {
    /// Its database: migrated and empty.
    pub pool: PgPool,
    /// template.yaml for the environment `local`.
    pub template: Template,
    /// Its database's URL.
    pub database_url: String,
    pub(crate) sqs: Client,
    /// The URL of each queue of the template, by its name there.
    pub(crate) queues: BTreeMap<String, String>,
}

impl TestEnvironment {
    /// Sets it up.
    pub async fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "grading_{}_{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        let server: PgConnectOptions = env("DATABASE_URL").parse().expect("DATABASE_URL is a URL");
        let options = server.database(&name);
        let database_url: String = options.to_url_lossy().into();
        let created = Postgres::create_database(&database_url).await;
        created.expect("the database is created");
        // A function that hangs in a transaction must not hang its check.
        let options = options.options([("statement_timeout", "30s")]);
        let pool = PgPoolOptions::new().max_connections(5).connect_lazy_with(options);
        let sqs = queue::client_config().expect("the environment that `make grade` sets");
        let sqs = Client::from_conf(sqs.build());
        let template = Template::of("local");
        let queues = queues::create(&sqs, &template, &name).await;
        // Before the migrations, so that the database is dropped if they fail.
        let environment = Self {
            database_url,
            pool,
            template,
            sqs,
            queues,
        };
        let migrated = migrations().await.run(&environment.pool).await;
        migrated.unwrap_or_else(|error| panic!("the migrations fail: {error}"));
        let roles = sqlx::raw_sql(&roles()).execute(&environment.pool).await;
        roles.unwrap_or_else(|error| panic!("roles.sql fails: {error}"));
        environment
    }

    /// A function, ready to be started with the template's environment, this database and these
    /// queues. Authentication is on, so a request has the caller that it names.
    pub fn function(&self, name: &str) -> Starting {
        let mut variables = self.template.variables(name, &self.queues);
        variables.extend([
            ("AUTH".to_owned(), "closed".to_owned()),
            ("AWS_ENDPOINT_URL".to_owned(), env("AWS_ENDPOINT_URL")),
            ("DATABASE_URL".to_owned(), self.database_url.clone()),
        ]);
        Starting::new(name, variables)
    }

    /// A counting proxy between functions and this database, for [`Starting::through`].
    pub async fn proxy(&self) -> Proxy {
        Proxy::start(&self.pool).await
    }

    /// Inserts a pending task marked as enqueued; returns its id.
    pub async fn task(&self, title: &str, description: &str) -> i64 {
        let insert = "insert into tasks (title, description, enqueued_at) values ($1, $2, now()) returning id";
        let insert = sqlx::query_scalar(insert).bind(title).bind(description);
        insert.fetch_one(&self.pool).await.expect("the task is inserted")
    }

    /// A task's whole row, or null.
    pub async fn row(&self, id: i64) -> Value {
        let select = sqlx::query_scalar("select to_jsonb(tasks) from tasks where id = $1").bind(id);
        let row = select.fetch_optional(&self.pool).await;
        row.expect("the query is valid").unwrap_or_default()
    }

    /// The rows of a query, as objects.
    pub async fn rows(&self, query: &str) -> Vec<Value> {
        let query = format!("select to_jsonb(asked) from ({query}) as asked");
        let rows = sqlx::query_scalar(&query).fetch_all(&self.pool).await;
        rows.unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    /// Runs statements.
    pub async fn execute(&self, sql: &str) {
        let done = sqlx::raw_sql(sql).execute(&self.pool).await;
        done.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

impl Drop for TestEnvironment {
    fn drop(&mut self) {
        let url = std::mem::take(&mut self.database_url);
        // In a thread with its own runtime: drop cannot await.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(Postgres::force_drop_database(&url))?;
            anyhow::Ok(())
        });
        // A leftover database does no harm.
        let _ = dropped.join();
    }
}
