//! `make load`: minutes of load, without faults of single processes. Tasks are created, processed
//! and swept by the functions' code, in this process, on a real Postgres and the emulator's
//! SQS. Lambda is left out: the emulator takes 0.1 s for an invocation.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fmt,
    rc::Rc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, bail, ensure};
use aws_lambda_events::sqs::SqsEvent;
use aws_sdk_sqs::{
    Client,
    types::{DeleteMessageBatchRequestEntry, Message, MessageSystemAttributeName, QueueAttributeName},
};
use harness::events;
use queue::TaskQueue;
use serde_json::{Value, json};
use shared::{
    domain::{NewTask, Task},
    store::{
        Database,
        tasks::{Insert, MarkEnqueued},
    },
};
use sqlx::{PgConnection, postgres::PgConnectOptions};
use support::settings;
use task_metrics::Metrics;
use task_processor::{TaskError, perform, process};
use task_reconciler::{Progress, sweep};
use tokio::{
    task::{JoinSet, LocalSet},
    time::{MissedTickBehavior, interval_at, sleep},
};

use crate::{cpu, environment};

const NAME: &str = "load";

/// How many clients create tasks: one waits for two commits for each task, some 10 ms.
const CLIENTS: u32 = 4;

/// How often each of them creates some.
const TICK: Duration = Duration::from_millis(200);

/// How often a second one of them does, so that a rate is a multiple of this.
const TICKS: u32 = CLIENTS * 1000 / TICK.as_millis() as u32;

/// How many workers there are, as many as fit on two cores.
const WORKERS: usize = 4;

/// How long everything fails in a retry storm.
const STORM: Duration = Duration::from_secs(60);

/// How long it may take until the last task is completed: in a retry storm until its fourth receive.
const PATIENCE: Duration = Duration::from_secs(600);

/// template.yaml, `VisibilitySeconds` of prod.
const VISIBILITY: i32 = 180;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scenario {
    /// Everything fails for a minute.
    RetryStorm,
    /// Tasks are processed at half the rate at which they are created.
    SlowConsumer,
    /// Nothing fails.
    Steady,
}

/// What all parts of a run share.
struct Run {
    scenario: Scenario,
    started: Instant,
    /// How long tasks are created.
    duration: Duration,
    /// Tasks a second.
    rate: u32,
    options: PgConnectOptions,
    sqs: Client,
    queue_url: String,
    created: Cell<usize>,
    attempts: Cell<usize>,
    /// How often each task was completed.
    completed: RefCell<HashMap<i64, u32>>,
    /// Messages that the reconciler has sent.
    resent: Cell<usize>,
}

/// Runs the scenario, prints what it took, and fails if a task was lost or completed twice.
pub async fn run() -> Result<()> {
    let variable = |name| environment::variable("load", name);
    let scenario = match variable("SCENARIO")?.as_str() {
        "retry-storm" => Scenario::RetryStorm,
        "slow-consumer" => Scenario::SlowConsumer,
        "steady" => Scenario::Steady,
        other => bail!("SCENARIO={other}: retry-storm, slow-consumer or steady"),
    };
    let minutes: f64 = variable("MINUTES")?.parse().context("MINUTES is a number")?;
    let rate = variable("RATE")?.parse().context("RATE is a number")?;
    ensure!(minutes >= 1.0 && rate >= 20, "at least MINUTES=1 and RATE=20");

    let server: PgConnectOptions = variable("DATABASE_URL")?.parse()?;
    let (options, mut connection) = environment::create_database(&server, NAME).await?;
    let postgres = cpu::parent(environment::backend(&mut connection).await?)?;
    let sqs = Client::from_conf(queue::client_config()?.build());
    let (queue_url, dead_letters_url) = queues(&sqs).await?;

    let run = Rc::new(Run {
        scenario,
        started: Instant::now(),
        duration: Duration::from_secs_f64(minutes * 60.0),
        rate,
        options: options.clone(),
        sqs,
        queue_url,
        created: Cell::new(0),
        attempts: Cell::new(0),
        completed: RefCell::default(),
        resent: Cell::new(0),
    });
    println!("{}: {rate} tasks a second for {minutes} minutes", run.scenario);
    let before = cpu::with_children(postgres)?;
    LocalSet::new().run_until(Rc::clone(&run).parts()).await?;
    let cpu = cpu::with_children(postgres)?.saturating_sub(before);
    run.report(&mut connection, cpu).await?;

    let dead = TaskQueue::new(queue::client_config()?, dead_letters_url.clone())
        .depth()
        .await?
        .visible;
    for url in [&run.queue_url, &dead_letters_url] {
        run.sqs.delete_queue().queue_url(url).send().await?;
    }
    environment::delete_database(&options, connection).await?;
    ensure!(dead == 0, "{dead} messages are in the dead-letter queue");
    run.check()
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RetryStorm => "retry storm, everything fails during the first minute",
            Self::SlowConsumer => "slow consumer, half as fast as tasks are created",
            Self::Steady => "steady load",
        })
    }
}

/// Creates a task queue and its dead-letter queue, as in template.yaml.
async fn queues(sqs: &Client) -> Result<(String, String)> {
    let created = sqs
        .create_queue()
        .queue_name(format!("{NAME}-dead-letters"))
        .send()
        .await?;
    let dead_letters = created.queue_url.context("a queue has a URL")?;
    let attributes = sqs.get_queue_attributes().queue_url(&dead_letters);
    let attributes = attributes.attribute_names(QueueAttributeName::QueueArn).send().await?;
    let arn = attributes.attributes.unwrap_or_default();
    let arn = arn.get(&QueueAttributeName::QueueArn).context("a queue has an ARN")?;
    let redrive = json!({"deadLetterTargetArn": arn, "maxReceiveCount": settings::TASK_PROCESSOR.max_receive_count});
    let created = sqs
        .create_queue()
        .queue_name(NAME)
        .attributes(QueueAttributeName::VisibilityTimeout, VISIBILITY.to_string())
        .attributes(QueueAttributeName::RedrivePolicy, redrive.to_string())
        .send()
        .await?;
    Ok((created.queue_url.context("a queue has a URL")?, dead_letters))
}

impl Run {
    /// Runs clients, workers and reconciler until every task is completed.
    async fn parts(self: Rc<Self>) -> Result<()> {
        let mut parts = JoinSet::new();
        for client in 0..CLIENTS {
            let run = Rc::clone(&self);
            parts.spawn_local(async move { run.create(client).await });
        }
        for worker in 0..WORKERS {
            let run = Rc::clone(&self);
            parts.spawn_local(async move { run.work(worker).await });
        }
        let run = Rc::clone(&self);
        parts.spawn_local(async move { run.reconcile().await });
        while let Some(part) = parts.join_next().await {
            part??;
        }
        Ok(())
    }

    fn creates(&self) -> bool {
        self.started.elapsed() < self.duration
    }

    /// True once every task is completed, and a duplicate would have been received.
    fn is_done(&self) -> Result<bool> {
        ensure!(
            self.started.elapsed() < self.duration + PATIENCE,
            "only {} of {} tasks were completed in time",
            self.completed.borrow().len(),
            self.created.get()
        );
        Ok(!self.creates() && self.completed.borrow().len() == self.created.get())
    }

    fn queue(&self) -> Result<TaskQueue> {
        Ok(TaskQueue::new(queue::client_config()?, self.queue_url.clone()))
    }

    /// Creates tasks as create-task does, but sends ten messages at a time.
    async fn create(&self, client: u32) -> Result<()> {
        let (database, queue) = (Database::new(self.options.clone()), self.queue()?);
        let new = &NewTask {
            title: "Process user data".to_owned().try_into()?,
            description: None,
            run_at: None,
        };
        let mut ticks = interval_at((Instant::now() + TICK * client / CLIENTS).into(), TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut told = Instant::now();
        while self.creates() {
            ticks.tick().await;
            let mut ids = Vec::new();
            for _ in 0..self.rate / TICKS {
                ids.push(
                    database
                        .run(&Insert {
                            new,
                            created_by: "load",
                        })
                        .await?
                        .id,
                );
            }
            // Before its message is sent: a worker may complete the task at once.
            self.created.set(self.created.get() + ids.len());
            let messages: Vec<_> = ids.iter().map(|id| (*id, 0)).collect();
            let refused = queue.send_all(&messages, None).await;
            for id in ids.iter().filter(|id| !refused.contains(id)) {
                database.run(&MarkEnqueued { id: *id, run_at: None }).await?;
            }
            if client == 0 && told.elapsed() > Duration::from_secs(30) {
                println!(
                    "  {} tasks created, {} completed",
                    self.created.get(),
                    self.completed.borrow().len()
                );
                told = Instant::now();
            }
        }
        Ok(())
    }

    /// Receives and processes messages, as Lambda and the task-processor do.
    async fn work(&self, worker: usize) -> Result<()> {
        let (database, queue) = (Database::new(self.options.clone()), self.queue()?);
        let settings = task_processor::Settings {
            retry_delay_seconds: 20,
            ..settings::TASK_PROCESSOR
        };
        // One worker with pauses, while tasks are created.
        let is_slow = || self.scenario == Scenario::SlowConsumer && self.creates();
        let pause = Duration::from_secs(1) * 10 / (self.rate / 2);
        while !self.is_done()? {
            if is_slow() && worker > 0 {
                sleep(Duration::from_secs(1)).await;
                continue;
            }
            let received = Instant::now();
            let messages = self
                .sqs
                .receive_message()
                .queue_url(&self.queue_url)
                .max_number_of_messages(10)
                .wait_time_seconds(1)
                .message_system_attribute_names(MessageSystemAttributeName::All)
                .send()
                .await?
                .messages
                .unwrap_or_default();
            if messages.is_empty() {
                continue;
            }
            let event: SqsEvent = serde_json::from_value(events::batch(messages.iter().map(record).collect()))?;
            let deadline = SystemTime::now() + Duration::from_secs(30);
            let processed = process(
                &database,
                event,
                deadline,
                settings,
                async |task: &Task, cancellation| self.perform(task, perform(task, cancellation)).await,
            )
            .await?;
            queue.postpone(&processed.retries).await;
            let is_retried = |id: &str| processed.retries.iter().any(|retry| retry.message_id == id);
            self.delete(messages.iter().filter(|message| {
                let id = message.message_id().unwrap_or_default();
                !is_retried(id)
            }))
            .await?;
            if is_slow() {
                sleep(pause.saturating_sub(received.elapsed())).await;
            }
        }
        Ok(())
    }

    async fn perform(
        &self,
        task: &Task,
        performing: impl Future<Output = Result<String, TaskError>>,
    ) -> Result<String, TaskError> {
        self.attempts.set(self.attempts.get() + 1);
        if self.scenario == Scenario::RetryStorm && self.started.elapsed() < STORM {
            return Err(TaskError::Transient("no connection".to_owned()));
        }
        let result = performing.await?;
        *self.completed.borrow_mut().entry(task.id.get()).or_default() += 1;
        Ok(result)
    }

    async fn delete(&self, messages: impl Iterator<Item = &Message>) -> Result<()> {
        let entries = messages
            .enumerate()
            .map(|(number, message)| {
                let entry = DeleteMessageBatchRequestEntry::builder().id(number.to_string());
                entry.set_receipt_handle(message.receipt_handle.clone()).build()
            })
            .collect::<Result<Vec<_>, _>>()?;
        if !entries.is_empty() {
            let delete = self.sqs.delete_message_batch().queue_url(&self.queue_url);
            delete.set_entries(Some(entries)).send().await?;
        }
        Ok(())
    }

    /// Sweeps once a minute.
    async fn reconcile(&self) -> Result<()> {
        let (database, queue) = (Database::new(self.options.clone()), self.queue()?);
        let settings = task_reconciler::Settings {
            lost_after_seconds: 5 * VISIBILITY as u64,
            ..settings::TASK_RECONCILER
        };
        let (metrics, progress) = (Metrics::none(), Progress::default());
        let mut next = Instant::now() + Duration::from_secs(60);
        while !self.is_done()? {
            sleep(Duration::from_secs(1)).await;
            if Instant::now() < next {
                continue;
            }
            next += Duration::from_secs(60);
            let time = Duration::from_secs(30);
            let report = sweep(&database, &queue, &metrics, &settings, &progress, time, None).await?;
            self.resent.set(self.resent.get() + report.sent);
        }
        Ok(())
    }

    async fn report(&self, connection: &mut PgConnection, cpu: Duration) -> Result<()> {
        let took = self.started.elapsed();
        let tasks = self.created.get();
        println!(
            "  {tasks} tasks created, {} completed {} s after the last was created, {} attempts, {} messages re-sent; \
             {:.0} µs of Postgres for each task",
            self.completed.borrow().len(),
            took.saturating_sub(self.duration).as_secs(),
            self.attempts.get(),
            self.resent.get(),
            cpu.as_secs_f64() * 1e6 / tasks as f64
        );
        let fifths: Vec<(i32, f64, f64)> = sqlx::query_as(
            "select fifth,
                    1000 * percentile_cont(0.5) within group (order by seconds),
                    1000 * percentile_cont(0.99) within group (order by seconds)
             from (
                 select ntile(5) over (order by id) as fifth,
                        extract(epoch from settled_at - created_at)::float8 as seconds
                 from tasks
             ) as tasks
             group by fifth order by fifth",
        )
        .fetch_all(connection)
        .await?;
        for (fifth, median, late) in fifths {
            println!("  created → completed, fifth {fifth}: p50 {median:.0} ms, p99 {late:.0} ms");
        }
        Ok(())
    }

    /// Fails unless each task was completed once.
    fn check(&self) -> Result<()> {
        let (created, completed) = (self.created.get(), self.completed.borrow());
        ensure!(
            completed.len() == created,
            "{} of {created} tasks were completed",
            completed.len()
        );
        let twice = completed.values().filter(|times| **times > 1).count();
        ensure!(twice == 0, "{twice} tasks were completed twice");
        let least = if self.scenario == Scenario::RetryStorm {
            created + 1
        } else {
            created
        };
        ensure!(
            self.attempts.get() >= least,
            "{} attempts for {created} tasks",
            self.attempts.get()
        );
        println!("  no task was lost, none was completed twice");
        let wanted = f64::from(self.rate / TICKS * TICKS) * self.duration.as_secs_f64();
        ensure!(
            created as f64 >= 0.9 * wanted,
            "only {created} of {wanted} tasks were created: this machine is too slow, or busy; set a lower RATE"
        );
        Ok(())
    }
}

/// A received message as Lambda passes it on.
fn record(message: &Message) -> Value {
    let attribute = |name| message.attributes.as_ref().and_then(|attributes| attributes.get(&name));
    let receives = attribute(MessageSystemAttributeName::ApproximateReceiveCount);
    let receives = receives.and_then(|receives| receives.parse().ok()).unwrap_or(1);
    let id = message.message_id().unwrap_or_default();
    let mut record = events::record(id, message.body().unwrap_or_default(), receives);
    record["receiptHandle"] = json!(message.receipt_handle());
    if let Some(sent_at) = attribute(MessageSystemAttributeName::SentTimestamp) {
        record["attributes"]["SentTimestamp"] = json!(sent_at);
    }
    record
}
