//! Chaos tests: faults are injected while clients create tasks. Afterwards every task with a 201
//! must be completed, failed or, on request, cancelled, and none completed twice or before its time.
//!
//! A seed determines the order of the faults and the tasks after which they are injected. The run
//! fails unless each fault is confirmed to have happened. `make chaos` runs at full length,
//! `make test` a short version.

mod audit;
mod clients;
mod faults;
mod plan;

use std::{
    env,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{audit::Audit, clients::Clients, faults::Stack, plan::Plan};

/// How long it may take until all tasks are settled after the last one was created. In the worst
/// case a message is lost, counts as lost after 90 s, is re-sent by the next sweep within 60 s, and
/// is lost again.
const DRAIN_TIME: Duration = Duration::from_secs(6 * 60);

/// With fewer, some fault may find no work to disturb.
const MIN_TASKS: usize = 100;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not as `Debug`, whose backtrace would hide the cause.
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let tasks = number("CHAOS_TASKS")?.unwrap_or(200) as usize;
    let seed = match number("CHAOS_SEED")? {
        Some(seed) => seed,
        None => SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs() % 100_000,
    };
    ensure!(tasks >= MIN_TASKS, "at least {MIN_TASKS} tasks are needed");
    let stack = Arc::new(Stack::from_env().await?);
    let plan = Plan::new(seed, tasks, stack.owns_postgres());
    println!("\nchaos: {tasks} tasks, seed {seed} (repeat with `make chaos TASKS={tasks} SEED={seed}`)");
    if !stack.owns_postgres() {
        println!("  no Postgres faults: the server of DATABASE_URL is not started by make");
    }

    let audit = Audit::install(&stack, seed).await?;
    let started = Instant::now();
    let clients = Arc::new(Clients::new(seed, &plan));
    let mut load = tokio::spawn(clients::run(Arc::clone(&clients), Arc::clone(&stack), plan.clone()));
    for step in &plan.faults {
        tokio::select! {
            biased;
            () = clients.reach(step.at) => {}
            // The clients end early only if one of them failed.
            ended = &mut load => bail!("the clients ended early: {:?}", ended?),
        }
        let proof = stack.inject(step.fault, &audit, &clients).await;
        let proof =
            proof.with_context(|| format!("cannot confirm that the fault \"{}\" happened", step.fault.name()))?;
        println!("  at task {:>5}  {:<30} {proof}", clients.created(), step.fault.name());
    }
    clients.allow(tasks);
    let responses = load.await??;
    println!(
        "  all tasks created after {} s; waiting until they are settled and the queue is empty",
        started.elapsed().as_secs()
    );

    let waiting = Instant::now();
    audit.wait_until_settled(DRAIN_TIME).await?;
    let report = audit.report(&responses).await?;
    let (missing_poison, dead_poison) = stack.missing_poison().await?;
    print!("\n{report}");
    println!(
        "  {:<16} {:>6}",
        "settled after",
        format!("{} s", waiting.elapsed().as_secs())
    );
    println!(
        "  {:<16} {dead_poison:>6}  dead-lettered since the task queue was last deleted",
        "poison"
    );
    println!("\n  responses: {}", responses.describe());
    println!("  injected messages: {}\n", plan.describe_messages());

    ensure!(
        missing_poison.is_empty(),
        "missing from the dead-letter queue: {missing_poison:?}"
    );
    ensure!(dead_poison > 0, "no poison message was injected");
    report.check(tasks)
}

fn number(variable: &str) -> Result<Option<u64>> {
    match env::var(variable) {
        Ok(text) => {
            Ok(Some(text.parse().with_context(|| {
                format!("{variable} must be a number, not {text:?}")
            })?))
        }
        Err(_) => Ok(None),
    }
}
