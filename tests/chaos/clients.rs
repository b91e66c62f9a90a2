//! The clients create tasks, and retry each until they receive a 201. They cancel some of them,
//! one by one and in bulk.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{sync::Notify, task::JoinSet};

use crate::{
    faults::Stack,
    plan::{self, Plan},
};

const CLIENTS: usize = 8;

/// How long a client retries to create one task.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long after their creation the scheduled tasks are to run.
const SCHEDULED_IN: Duration = Duration::from_secs(6);

/// The progress of all clients.
pub struct Clients {
    seed: u64,
    next: AtomicUsize,
    created: AtomicUsize,
    changed: Notify,
    /// Clients pause at this number until the fault before it has been injected.
    allowed: AtomicUsize,
    tasks: usize,
}

/// The responses that the clients received.
#[derive(Debug, Default)]
pub struct Responses {
    /// The ids in the 201s, one for each task.
    pub created: Vec<i64>,
    /// The ids of the tasks whose cancellation had a 200.
    pub cancelled: Vec<i64>,
    /// How often each status was received, or no response at all.
    statuses: BTreeMap<String, usize>,
    /// How many of the 201s were replayed for a repeated Idempotency-Key.
    replayed: usize,
}

impl Responses {
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for (status, count) in &self.statuses {
            // Writing to a String cannot fail.
            let _ = write!(text, "{count} x {status}, ");
        }
        let _ = write!(text, "{} replayed", self.replayed);
        text
    }

    fn add(&mut self, other: Self) {
        self.created.extend(other.created);
        self.cancelled.extend(other.cancelled);
        self.replayed += other.replayed;
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
    }
}

impl Clients {
    pub fn new(seed: u64, plan: &Plan) -> Self {
        Self {
            seed,
            next: AtomicUsize::new(0),
            created: AtomicUsize::new(0),
            changed: Notify::new(),
            allowed: AtomicUsize::new(0),
            tasks: plan.tasks,
        }
    }

    /// How many tasks have been created.
    pub fn created(&self) -> usize {
        self.created.load(Ordering::SeqCst)
    }

    /// Lets the clients continue until that many tasks have been created.
    pub fn allow(&self, count: usize) {
        self.allowed.store(count.min(self.tasks), Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    /// Lets the clients create a few more tasks, because a fault finds no work to disturb.
    pub fn allow_more(&self) {
        self.allow(self.allowed.load(Ordering::SeqCst) + 5);
    }

    /// Waits until that many tasks have been created. The clients may continue a little further, so
    /// that there is work when the fault is injected.
    pub async fn reach(&self, count: usize) {
        self.allow(count + self.tasks / 10);
        self.wait_until(|| self.created() >= count.min(self.tasks)).await;
    }

    async fn wait_until(&self, condition: impl Fn() -> bool) {
        loop {
            let changed = self.changed.notified();
            if condition() {
                return;
            }
            // With a timeout: the condition may become true between the check and the wait.
            let _ = tokio::time::timeout(Duration::from_millis(100), changed).await;
        }
    }
}

/// Creates all tasks of the plan.
pub async fn run(clients: Arc<Clients>, stack: Arc<Stack>, plan: Plan) -> Result<Responses> {
    let mut running = JoinSet::new();
    let plan = Arc::new(plan);
    for _ in 0..CLIENTS {
        let (clients, stack, plan) = (Arc::clone(&clients), Arc::clone(&stack), Arc::clone(&plan));
        running.spawn(async move { create_tasks(&clients, &stack, &plan).await });
    }
    let mut all = Responses::default();
    while let Some(responses) = running.join_next().await {
        all.add(responses??);
    }
    Ok(all)
}

async fn create_tasks(clients: &Clients, stack: &Stack, plan: &Plan) -> Result<Responses> {
    let http = reqwest::Client::builder().timeout(Duration::from_secs(10)).build()?;
    let mut responses = Responses::default();
    loop {
        let number = clients.next.fetch_add(1, Ordering::SeqCst);
        if number >= plan.tasks {
            return Ok(responses);
        }
        clients
            .wait_until(|| number < clients.allowed.load(Ordering::SeqCst))
            .await;
        let run_in = plan.scheduled.contains(&number).then_some(SCHEDULED_IN);
        let title = plan.title(clients.seed, number);
        let id = create(&http, number, title, run_in, &mut responses).await?;
        responses.created.push(id);
        clients.created.fetch_add(1, Ordering::SeqCst);
        clients.changed.notify_waiters();

        if plan.cancelled.contains(&number) && cancel(&http, id, &mut responses).await? {
            responses.cancelled.push(id);
        }
        if plan.cancelled_in_bulk.contains(&number) {
            cancel_in_bulk(&http, &plan::titles_in_bulk(clients.seed), &mut responses).await?;
        }
        if plan.duplicates.contains(&number) {
            stack.send(json!({"task_id": id}).to_string()).await?;
        }
        if plan.out_of_order.contains(&number) {
            for id in responses.created.iter().rev().take(5) {
                stack.send(json!({"task_id": id}).to_string()).await?;
            }
        }
        if plan.poison.contains(&number) {
            stack.send_poison(format!("poison {}-{number}", clients.seed)).await?;
        }
    }
}

/// Creates one task with an Idempotency-Key, so that retries create no second one.
async fn create(
    http: &reqwest::Client,
    number: usize,
    title: String,
    run_in: Option<Duration>,
    responses: &mut Responses,
) -> Result<i64> {
    let begun = Instant::now();
    let mut body = json!({"title": title, "description": "one two three"});
    if let Some(run_in) = run_in {
        body["run_at"] = json!((OffsetDateTime::now_utc() + run_in).format(&Rfc3339)?);
    }
    loop {
        let request = http.post(format!("{}/tasks", crate::faults::env("API_URL")?));
        let request = request.header("idempotency-key", title.replace(' ', "-"));
        let received = match request.json(&body).send().await {
            Ok(response) if response.status() == 201 => {
                let replayed = response.headers().contains_key("idempotent-replayed");
                responses.replayed += usize::from(replayed);
                *responses.statuses.entry("201".to_owned()).or_default() += 1;
                let task: Value = response.json().await?;
                return task["id"].as_i64().context("a task has an id");
            }
            Ok(response) => {
                let status = response.status().as_u16();
                let text = response.text().await.unwrap_or_default();
                // 409: the first request is still running. 502 and 504: the function crashed or
                // timed out.
                ensure!(
                    [409, 502, 503, 504].contains(&status),
                    "unexpected response to task {number}: {status} {text}"
                );
                status.to_string()
            }
            Err(error) => {
                ensure!(
                    error.is_timeout() || error.is_request() || error.is_connect(),
                    "{error}"
                );
                "no response".to_owned()
            }
        };
        *responses.statuses.entry(received).or_default() += 1;
        ensure!(
            begun.elapsed() < PATIENCE,
            "task {number} could not be created within {PATIENCE:?}"
        );
        // Shorter than Retry-After, to save time.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Cancels a task. Returns false if it had ended before.
async fn cancel(http: &reqwest::Client, id: i64, responses: &mut Responses) -> Result<bool> {
    let (status, _) = post(
        http,
        &format!("/tasks/{id}/cancel"),
        &Value::Null,
        &[200, 409],
        responses,
    )
    .await?;
    Ok(status == 200)
}

/// Cancels all tasks with this text in their title, in as many steps as it takes.
async fn cancel_in_bulk(http: &reqwest::Client, text: &str, responses: &mut Responses) -> Result<()> {
    let request = json!({"action": "cancel", "q": text, "dry_run": false});
    let (_, mut action) = post(http, "/admin/actions", &request, &[202], responses).await?;
    while action["is_complete"] != true {
        let path = format!("/admin/actions/{}/continue", action["id"]);
        (_, action) = post(http, &path, &Value::Null, &[200], responses).await?;
    }
    Ok(())
}

/// Sends a request until its response has one of these statuses, and returns it with the body.
async fn post(
    http: &reqwest::Client,
    path: &str,
    body: &Value,
    expected: &[u16],
    responses: &mut Responses,
) -> Result<(u16, Value)> {
    let begun = Instant::now();
    // The action, `cancel` for example, not the id.
    let name = path.rsplit('/').next().unwrap_or_default();
    loop {
        let mut request = http.post(format!("{}{path}", crate::faults::env("API_URL")?));
        if !body.is_null() {
            request = request.json(body);
        }
        let (received, text) = match request.send().await {
            Ok(response) => (response.status().as_u16(), response.text().await.unwrap_or_default()),
            Err(_) => (0, String::new()),
        };
        let counted = match received {
            0 => "no response".to_owned(),
            status => format!("{status} to {name}"),
        };
        *responses.statuses.entry(counted).or_default() += 1;
        if expected.contains(&received) {
            return Ok((received, serde_json::from_str(&text)?));
        }
        ensure!(
            [0, 502, 503, 504].contains(&received),
            "unexpected response to {path}: {received} {text}"
        );
        ensure!(begun.elapsed() < PATIENCE, "{path} had no response within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
