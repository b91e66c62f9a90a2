//! The task-processor as a worker of `make bench-peers`, with the protocol of
//! dev/bench/peers/protocol.mjs. Lambda receives and deletes the messages, so the batches exist
//! before it begins.

use std::{
    io::{Read, stdin},
    time::{Duration, SystemTime},
};

use anyhow::{Result, ensure};
use aws_lambda_events::sqs::SqsEvent;
use harness::events;
use migrator::MIGRATIONS;
use shared::store::Database;
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use support::settings;
use task_processor::process;

use crate::environment;

/// Runs `fill TASKS` or `work TASKS BATCH STEP`.
pub async fn run(arguments: &[String]) -> Result<()> {
    let url = environment::variable("bench-peers", "DATABASE_URL")?;
    let options: PgConnectOptions = url.parse()?;
    let mut connection = PgConnection::connect_with(&options).await?;
    let numbers: Result<Vec<usize>, _> = arguments[1..].iter().map(|number| number.parse()).collect();
    match (arguments[0].as_str(), numbers?.as_slice()) {
        ("fill", &[tasks]) => fill(&mut connection, tasks).await,
        ("work", &[tasks, batch, step]) => {
            let ids: Vec<i64> = sqlx::query_scalar("select id from tasks order by id limit $1")
                .bind(i64::try_from(tasks)?)
                .fetch_all(&mut connection)
                .await?;
            ensure!(ids.len() == tasks, "there are only {} tasks", ids.len());
            connection.close().await?;
            work(Database::new(options), &ids, batch, step).await
        }
        _ => anyhow::bail!("no such command: {arguments:?}"),
    }
}

async fn fill(connection: &mut PgConnection, tasks: usize) -> Result<()> {
    MIGRATIONS.run(&mut *connection).await?;
    sqlx::query(
        "insert into tasks (title, created_by, enqueued_at)
         select 'Process user data', 'bench', now() from generate_series(1, $1)",
    )
    .bind(i64::try_from(tasks)?)
    .execute(connection)
    .await?;
    Ok(())
}

async fn work(database: Database, ids: &[i64], batch: usize, step: usize) -> Result<()> {
    let batches: Vec<String> = ids.chunks(batch).map(|ids| events::sqs(ids).to_string()).collect();
    println!("ready");
    stdin().read_exact(&mut [0])?;
    let mut performed = 0;
    for event in &batches {
        let event: SqsEvent = serde_json::from_str(event)?;
        let deadline = SystemTime::now() + Duration::from_secs(30);
        let no_op = async |_: &_, _: &_| Ok(String::new());
        let processed = process(&database, event, deadline, settings::TASK_PROCESSOR, no_op).await?;
        ensure!(processed.retries.is_empty(), "every task is completed");
        let before = performed;
        performed = (performed + batch).min(ids.len());
        if before / step < performed / step && performed < ids.len() {
            println!("at {performed}");
        }
    }
    println!("stopped {performed}");
    stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
