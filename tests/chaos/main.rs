//! Fault tests: tasks are created while everything they need fails in turn. Afterwards every task that got a 201
//! must be completed or failed, and none completed twice.
//!
//! The faults come in a random order that a seed repeats, between tasks whose numbers the seed chooses, too. Each
//! fault must be seen to have happened, or the run fails. `make chaos` runs this at full length, `make test` a
//! short version.

mod audit;
mod clients;
mod faults;
mod plan;

use std::{
    env,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{audit::Audit, clients::Clients, faults::Stack, plan::Plan};

/// How long the system may need to come to rest after the last task was created. The slowest way: a message is
/// lost, counts as lost after 90 s, is found by the next sweep within 60 s, and is lost again.
const TIME_TO_QUIET: Duration = Duration::from_secs(6 * 60);

/// The fewest tasks with which each fault finds some work to disturb.
const FEWEST_TASKS: usize = 100;

#[tokio::main]
async fn main() -> Result<()> {
    let tasks = number("CHAOS_TASKS")?.unwrap_or(200) as usize;
    let seed = match number("CHAOS_SEED")? {
        Some(seed) => seed,
        None => SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs() % 100_000,
    };
    ensure!(
        tasks >= FEWEST_TASKS,
        "at least {FEWEST_TASKS} tasks are needed, to have faults between them"
    );
    let stack = Arc::new(Stack::from_env().await?);
    let plan = Plan::new(seed, tasks, stack.owns_postgres());
    println!("\nchaos: {tasks} tasks, seed {seed} (repeat it with `make chaos TASKS={tasks} SEED={seed}`)");
    if !stack.owns_postgres() {
        println!("  Postgres is not made to fail: DATABASE_URL is not ours to restart");
    }

    let audit = Audit::install(&stack, seed).await?;
    let started = Instant::now();
    let clients = Arc::new(Clients::new(seed, &plan));
    let mut load = tokio::spawn(clients::run(Arc::clone(&clients), Arc::clone(&stack), plan.clone()));
    for step in &plan.faults {
        tokio::select! {
            biased;
            () = clients.reach(step.at) => {}
            // A client that gave up says why; waiting for its tasks would be in vain.
            ended = &mut load => bail!("the clients ended with {:?}", ended?),
        }
        let proof = stack.inject(step.fault, &audit).await;
        let proof = proof.with_context(|| {
            format!(
                "the fault \"{}\" could not be shown to have happened",
                step.fault.name()
            )
        })?;
        println!("  at task {:>5}  {:<30} {proof}", clients.created(), step.fault.name());
    }
    clients.allow(tasks);
    let answers = load.await??;
    println!(
        "  all created after {} s; waiting for quiet",
        started.elapsed().as_secs()
    );

    let waiting = Instant::now();
    audit.wait_for_quiet(TIME_TO_QUIET).await?;
    let report = audit.report(&answers).await?;
    let (missing_poison, dead_poison) = stack.missing_poison().await?;
    print!("\n{report}");
    println!(
        "  {:<16} {:>6}",
        "time to quiet",
        format!("{} s", waiting.elapsed().as_secs())
    );
    println!(
        "  {:<16} {dead_poison:>6}  sent since the queue was last lost, now in the dead-letter queue",
        "poison"
    );
    println!("\n  clients were answered {}", answers.describe());
    println!("  injected messages: {}\n", plan.describe_messages());

    ensure!(
        missing_poison.is_empty(),
        "not in the dead-letter queue: {missing_poison:?}"
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
