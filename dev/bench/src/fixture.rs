//! The environment of the benchmark: database, queue and functions.

use std::path::PathBuf;

use anyhow::{Context, Result};
use aws_sdk_sqs::Client;
use harness::{AMPLE_TIME, LambdaHost};
use queue::TaskQueue;
use shared::store::Database;
use sqlx::{ConnectOptions, PgConnection, postgres::PgConnectOptions};

use crate::environment;

pub struct Fixture {
    /// How to connect to the benchmark's own database.
    pub options: PgConnectOptions,
    /// The reference's connection.
    pub connection: PgConnection,
    /// The functions' database access.
    pub database: Database,
    /// The reference's client.
    pub sqs: Client,
    /// A queue without consumers.
    pub queue_url: String,
    /// The deployed functions.
    pub functions: LambdaHost,
    /// The empty function.
    pub references: LambdaHost,
    /// The API's URL.
    pub api_url: String,
    /// The stack's database.
    pub stack: PgConnectOptions,
}

impl Fixture {
    /// Creates the database and the queue.
    pub async fn from_env() -> Result<Self> {
        let variable = |name: &str| environment::variable("bench", name);
        let stack: PgConnectOptions = variable("DATABASE_URL")?.parse()?;
        let (options, mut connection) = environment::create_database(&stack, "bench").await?;
        // Not empty: a statement that Postgres plans while the table is empty is planned as a
        // sequential scan.
        sqlx::query(
            "insert into tasks (title, created_by) select 'Process user data', 'bench' from generate_series(1, 10000)",
        )
        .execute(&mut connection)
        .await?;
        sqlx::query("vacuum analyze tasks").execute(&mut connection).await?;

        let sqs = Client::from_conf(queue::client_config()?.build());
        let created = sqs.create_queue().queue_name("bench").send().await?;
        let queue_url = created.queue_url.context("a queue has a URL")?;
        let url = options.to_url_lossy();
        let variables = [
            ("AUTH", "closed"),
            ("AWS_ENDPOINT_URL", &variable("AWS_ENDPOINT_URL")?),
            ("DATABASE_URL", url.as_str()),
            ("QUEUE_URL", &queue_url),
        ];
        let host = |folder: &str| -> Result<LambdaHost> {
            Ok(LambdaHost {
                functions: PathBuf::from(variable(folder)?),
                variables: variables
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .to_vec(),
                time: AMPLE_TIME,
            })
        };
        Ok(Self {
            database: Database::new(options.clone()),
            functions: host("FUNCTIONS")?,
            references: host("REFERENCES")?,
            api_url: variable("API_URL")?,
            options,
            connection,
            sqs,
            queue_url,
            stack,
        })
    }

    /// The queue as the functions use it.
    pub fn queue(&self) -> Result<TaskQueue> {
        Ok(TaskQueue::new(queue::client_config()?, self.queue_url.clone()))
    }

    /// Deletes the queue and the database.
    pub async fn delete(self) -> Result<()> {
        self.sqs.delete_queue().queue_url(self.queue_url).send().await?;
        drop(self.database);
        environment::delete_database(&self.options, self.connection).await
    }
}
