//! `make dlq` and `make redrive`: list the dead-letter queue and redrive its messages.

use aws_config::BehaviorVersion;
use aws_sdk_sqs::config::Builder;
use clap::{Parser, Subcommand};
use queue::{DeadLetter, DeadLetterQueue};
use shared::{
    domain::{Access, Status, TaskMessage},
    store::{Database, Login, tasks},
};
use time::{OffsetDateTime, format_description};

#[derive(Parser)]
struct Arguments {
    /// The URL of the dead-letter queue
    #[arg(long, env = "DEAD_LETTER_QUEUE_URL")]
    dead_letter_queue_url: String,
    /// The URL of the task queue, to which messages are redriven
    #[arg(long, env = "QUEUE_URL")]
    queue_url: String,
    /// The database in which to look up the messages' tasks; without it only the messages are shown
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the messages and why their tasks failed
    List,
    /// Move every message back to the task queue: failed tasks are processed again
    Redrive,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    // Not the functions' configuration: an operator's credentials may also be in files.
    let config = aws_config::defaults(BehaviorVersion::latest())
        .http_client(queue::https::client())
        .load()
        .await;
    let queue = DeadLetterQueue::new(
        Builder::from(&config),
        arguments.dead_letter_queue_url,
        arguments.queue_url,
    );
    match arguments.command {
        Command::List => {
            let database = arguments.database_url.as_deref().map(str::parse::<Login>).transpose()?;
            list(&queue, database.map(Database::new)).await
        }
        Command::Redrive => redrive(&queue).await,
    }
}

/// The time in UTC with a fixed width: the RFC 3339 formatter would drop trailing zeros.
fn format_timestamp(sent: OffsetDateTime) -> String {
    let format = "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z";
    let format = format_description::parse_borrowed::<2>(format).expect("a valid format");
    sent.format(&format).unwrap_or_default()
}

async fn list(queue: &DeadLetterQueue, database: Option<Database>) -> anyhow::Result<()> {
    let letters = queue.list().await?;
    if letters.is_empty() {
        println!("The dead-letter queue is empty.");
        return Ok(());
    }
    for letter in &letters {
        let sent = letter.sent_at.map(format_timestamp).unwrap_or_default();
        println!(
            "{sent:<24}  {}\n{:<24}  {}",
            letter.body,
            "",
            reason(letter, database.as_ref()).await
        );
    }
    println!(
        "\n{} in the dead-letter queue. To process again: `make redrive`.",
        messages(letters.len())
    );
    Ok(())
}

/// Why a message was dead-lettered, as far as it can be determined.
async fn reason(letter: &DeadLetter, database: Option<&Database>) -> String {
    let Ok(TaskMessage { task_id }) = serde_json::from_str(&letter.body) else {
        return "malformed message: a redrive will not help".to_owned();
    };
    let Some(database) = database else {
        return format!("task {task_id}: for the reason, GET /tasks/{task_id}");
    };
    let find = tasks::Find {
        id: task_id,
        access: Access::All,
    };
    match database.run(&find).await {
        Ok(Some(task)) => {
            let result = task.result.unwrap_or_default();
            let attempts = match task.attempts {
                1 => "1 attempt".to_owned(),
                many => format!("{many} attempts"),
            };
            if task.status == Status::Failed {
                format!("task {task_id} failed after {attempts}: {result}")
            } else {
                format!("task {task_id} is {} after {attempts}", task.status.as_str())
            }
        }
        Ok(None) => format!("task {task_id} was deleted: nothing to process"),
        Err(error) => format!("task {task_id}: {error}"),
    }
}

async fn redrive(queue: &DeadLetterQueue) -> anyhow::Result<()> {
    let moved = queue
        .redrive(|moved| eprintln!("  … {} so far", messages(moved)))
        .await?;
    match moved {
        0 => println!("The dead-letter queue is empty: nothing to redrive."),
        moved => println!(
            "{} moved back to the task queue. Failed tasks will be processed again.",
            messages(moved)
        ),
    }
    Ok(())
}

fn messages(count: usize) -> String {
    match count {
        1 => "1 message".to_owned(),
        count => format!("{count} messages"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_have_milliseconds() {
        let sent = OffsetDateTime::from_unix_timestamp_nanos(1_795_843_456_020_000_000).expect("a time");
        assert_eq!(format_timestamp(sent), "2026-11-28T05:24:16.020Z");
    }
}
