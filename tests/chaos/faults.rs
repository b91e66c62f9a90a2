//! Injects each fault and confirms that it happened.

use std::{
    collections::HashMap,
    fs,
    process::Command,
    sync::Mutex,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use aws_sdk_sqs::{Client, types::QueueAttributeName};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use queue::{DeadLetterQueue, TaskQueue};
use serde_json::json;
use sqlx::{ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};

use crate::{audit::Audit, clients::Clients, plan::Fault};

/// How long injecting a fault may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// How long Postgres is paused: longer than a function waits for it.
const PAUSE: Duration = Duration::from_secs(4);

/// How long batches take at most that were received before processing was paused: the processor's
/// timeout, and some time to stop receiving.
const LAST_BATCHES: Duration = Duration::from_secs(4);

/// How long the queue is missing, and how long tasks wait while processing is paused.
const OUTAGE: Duration = Duration::from_secs(3);

/// A variable that `make chaos` and `make test` set.
pub fn env(name: &str) -> Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set: run `make chaos`"))
}

/// The deployed stack, with access to inject faults.
pub struct Stack {
    sqs: Client,
    queue: TaskQueue,
    queue_url: String,
    dead_letters: DeadLetterQueue,
    options: PgConnectOptions,
    /// The program that injects faults into Postgres.
    fail_postgres: Option<String>,
    /// The poison messages sent since the queue was last deleted: they must end in the dead-letter
    /// queue.
    poison: Mutex<Vec<String>>,
}

impl Stack {
    pub async fn from_env() -> Result<Self> {
        let config = queue::client_config()?;
        let queue_url = env("QUEUE_URL")?;
        Ok(Self {
            sqs: Client::from_conf(config.clone().build()),
            queue: TaskQueue::new(config.clone(), queue_url.clone()),
            dead_letters: DeadLetterQueue::new(config, env("DEAD_LETTER_QUEUE_URL")?, queue_url.clone()),
            queue_url,
            options: env("DATABASE_URL")?.parse()?,
            fail_postgres: env("FAIL_POSTGRES").ok(),
            poison: Mutex::default(),
        })
    }

    pub fn owns_postgres(&self) -> bool {
        self.fail_postgres.is_some()
    }

    /// A new connection, unaffected by earlier faults.
    pub async fn connect(&self) -> Result<PgConnection> {
        Ok(self.options.connect().await?)
    }

    /// Sends a message, retrying while the queue does not exist.
    pub async fn send(&self, body: String) -> Result<()> {
        let begun = Instant::now();
        loop {
            let request = self.sqs.send_message().queue_url(&self.queue_url).message_body(&body);
            match request.send().await {
                Ok(_) => return Ok(()),
                Err(error) => ensure!(begun.elapsed() < DEADLINE, "a message could not be sent: {error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Sends a malformed message.
    pub async fn send_poison(&self, body: String) -> Result<()> {
        self.send(body.clone()).await?;
        self.poison.lock().expect("not poisoned").push(body);
        Ok(())
    }

    /// Injects a fault and returns the evidence that it happened.
    pub async fn inject(&self, fault: Fault, audit: &Audit, clients: &Clients) -> Result<String> {
        match fault {
            Fault::KillProcessors => self.kill_processors(audit, clients).await,
            Fault::RestartPostgres => self.restart_postgres("restart").await,
            Fault::CrashPostgres => self.restart_postgres("crash").await,
            Fault::PausePostgres => self.pause_postgres().await,
            Fault::LoseQueue => self.lose_queue(audit, clients).await,
            Fault::PauseProcessing => self.pause_processing(audit, clients).await,
        }
    }

    /// Kills workers in the middle of a batch: while a claim waits for a lock, which Postgres then
    /// grants although its client is gone. Retries if there was no worker.
    async fn kill_processors(&self, audit: &Audit, clients: &Clients) -> Result<String> {
        let (mut look, mut lock) = (self.connect().await?, self.connect().await?);
        let begun = Instant::now();
        while begun.elapsed() < DEADLINE {
            let mut locked = lock.begin().await?;
            sqlx::raw_sql("lock table tasks in share mode")
                .execute(&mut *locked)
                .await?;
            let held = Instant::now();
            // Shorter than the functions' lock_timeout.
            while self.claims(&mut look).await? == 0 && held.elapsed() < Duration::from_millis(500) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let is_claiming = self.claims(&mut look).await? > 0;
            let processors = if is_claiming { processors() } else { Vec::new() };
            if processors.is_empty() {
                locked.rollback().await?;
                clients.allow_more();
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
            let before = audit.now().await?;
            for processor in &processors {
                // It may have exited in the meantime.
                let _ = kill(*processor, Signal::SIGKILL);
            }
            locked.rollback().await?;
            // Long enough for surviving workers to store their outcomes.
            tokio::time::sleep(Duration::from_secs(2)).await;
            let orphans = audit.claims_without_outcome(before).await?;
            if orphans > 0 {
                return Ok(format!(
                    "{} killed, {orphans} claims without an outcome",
                    processors.len()
                ));
            }
        }
        bail!("no task-processor was killed in the middle of a batch");
    }

    /// How many claims Postgres is running.
    async fn claims(&self, look: &mut PgConnection) -> Result<i64> {
        let claims = "select count(*) from pg_stat_activity
                      where state = 'active' and query like 'with requested as%'";
        Ok(sqlx::query_scalar(claims).fetch_one(look).await?)
    }

    async fn restart_postgres(&self, how: &str) -> Result<String> {
        let started = "select pg_postmaster_start_time()::text";
        let before: String = sqlx::query_scalar(started)
            .fetch_one(&mut self.connect().await?)
            .await?;
        self.fail_postgres(how)?;
        let after: String = sqlx::query_scalar(started)
            .fetch_one(&mut self.connect().await?)
            .await?;
        ensure!(before != after, "Postgres was not restarted: it has run since {before}");
        Ok(format!("running again since {after}"))
    }

    async fn pause_postgres(&self) -> Result<String> {
        let mut look = self.connect().await?;
        self.fail_postgres("pause")?;
        let pong = tokio::time::timeout(PAUSE, look.ping()).await;
        self.fail_postgres("resume")?;
        ensure!(pong.is_err(), "Postgres responded while it was paused");
        // The response to the ping arrives only now.
        drop(look);
        Ok(format!("no response for {} s", PAUSE.as_secs()))
    }

    fn fail_postgres(&self, how: &str) -> Result<()> {
        let program = self.fail_postgres.as_ref().context("FAIL_POSTGRES is not set")?;
        let status = Command::new(program).args(["fail-postgres", how]).status()?;
        ensure!(status.success(), "{program} fail-postgres {how}: {status}");
        Ok(())
    }

    /// Deletes the queue while it has messages, and recreates it.
    async fn lose_queue(&self, audit: &Audit, clients: &Clients) -> Result<String> {
        let begun = Instant::now();
        let mut settings = self.queue_attributes().await?;
        let mut waiting = Instant::now();
        let lost = loop {
            let lost = self.messages_in_queue().await?;
            if lost > 0 {
                break lost;
            }
            ensure!(begun.elapsed() < DEADLINE, "the queue had no message to lose");
            if waiting.elapsed() > Duration::from_millis(200) {
                clients.allow_more();
                waiting = Instant::now();
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        self.sqs.delete_queue().queue_url(&self.queue_url).send().await?;
        self.poison.lock().expect("not poisoned").clear();
        tokio::time::sleep(OUTAGE).await;
        let begun = Instant::now();
        let unsent = loop {
            let unsent = audit.count("enqueued_at is null").await?;
            if unsent > 0 || begun.elapsed() > DEADLINE {
                break unsent;
            }
            clients.allow_more();
            tokio::time::sleep(Duration::from_millis(100)).await;
        };

        settings.retain(|name, _| {
            let configured = [
                QueueAttributeName::VisibilityTimeout,
                QueueAttributeName::RedrivePolicy,
                QueueAttributeName::SqsManagedSseEnabled,
            ];
            configured.contains(name)
        });
        // The two URLs may have different host names.
        let name = |url: &str| url.rsplit('/').next().unwrap_or_default().to_owned();
        let create = self.sqs.create_queue().queue_name(name(&self.queue_url));
        let created = create.set_attributes(Some(settings)).send().await?;
        ensure!(
            created.queue_url().map(name) == Some(name(&self.queue_url)),
            "the recreated queue has another URL: {created:?}"
        );
        ensure!(unsent > 0, "no task was created while the queue was missing");
        Ok(format!(
            "{lost} messages lost, {unsent} tasks created without a message"
        ))
    }

    /// Pauses processing until tasks have waited for a while, and resumes it.
    async fn pause_processing(&self, audit: &Audit, clients: &Clients) -> Result<String> {
        set_paused(true).await?;
        tokio::time::sleep(LAST_BATCHES).await;
        let (paused, begun) = (audit.now().await?, Instant::now());
        let waiting = loop {
            let waiting = audit
                .count("status = 'pending' and fencing_token = 0 and enqueued_at is not null")
                .await?;
            if waiting > 0 || begun.elapsed() > DEADLINE {
                break waiting;
            }
            clients.allow_more();
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        tokio::time::sleep(OUTAGE).await;
        let claims = audit.claims_since(paused).await?;
        set_paused(false).await?;
        ensure!(waiting > 0, "no task was created while processing was paused");
        ensure!(claims == 0, "{claims} tasks were claimed while processing was paused");
        Ok(format!("{waiting} tasks waited, none was claimed"))
    }

    async fn queue_attributes(&self) -> Result<HashMap<QueueAttributeName, String>> {
        let request = self.sqs.get_queue_attributes().queue_url(&self.queue_url);
        let response = request.attribute_names(QueueAttributeName::All).send().await?;
        Ok(response.attributes.unwrap_or_default())
    }

    /// How many messages are in the queue, visible or in flight.
    pub async fn messages_in_queue(&self) -> Result<u64> {
        let depth = self.queue.depth().await?;
        Ok(depth.visible + depth.in_flight)
    }

    /// The poison messages missing from the dead-letter queue, and how many are in it.
    pub async fn missing_poison(&self) -> Result<(Vec<String>, usize)> {
        let letters = self.dead_letters.list().await?;
        let is_dead = |body: &String| letters.iter().any(|letter| letter.body == *body);
        let expected = self.poison.lock().expect("not poisoned").clone();
        let count = expected.len();
        let missing: Vec<String> = expected.into_iter().filter(|body| !is_dead(body)).collect();
        let found = count - missing.len();
        Ok((missing, found))
    }
}

/// As an admin does. Retried, because an earlier fault may still have an effect.
async fn set_paused(paused: bool) -> Result<()> {
    let (url, begun) = (format!("{}/admin/processing", env("API_URL")?), Instant::now());
    loop {
        let request = reqwest::Client::new().put(&url).json(&json!({"paused": paused}));
        let response = request.send().await?;
        if response.status() == 200 {
            return Ok(());
        }
        ensure!(
            begun.elapsed() < DEADLINE,
            "PUT /admin/processing: {} {}",
            response.status(),
            response.text().await?
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The processes of the deployed task-processor, by the function name in their environment.
fn processors() -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let queue = env("QUEUE_URL").unwrap_or_default();
    let is_processor = |pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let mut variables = environment.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        let has = |text: String| variables.clone().any(|variable| variable == text);
        has(format!("QUEUE_URL={queue}"))
            && variables
                .any(|variable| variable.starts_with("AWS_LAMBDA_FUNCTION_NAME=") && variable.contains("TaskProcessor"))
    };
    processes.filter(is_processor).map(Pid::from_raw).collect()
}
