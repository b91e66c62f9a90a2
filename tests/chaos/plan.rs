//! The schedule of a run, derived from the seed.

use std::collections::BTreeSet;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL to every task-processor while one of them claims a batch.
    KillProcessors,
    /// Postgres is shut down gracefully and restarted.
    RestartPostgres,
    /// Postgres is killed and recovers from its write-ahead log.
    CrashPostgres,
    /// Postgres does not respond for some seconds.
    PausePostgres,
    /// The task queue is deleted, and recreated empty after some seconds.
    LoseQueue,
    /// An admin pauses processing while tasks are created, and resumes it.
    PauseProcessing,
}

impl Fault {
    pub fn name(self) -> &'static str {
        match self {
            Self::KillProcessors => "task-processors killed",
            Self::RestartPostgres => "Postgres restarted",
            Self::CrashPostgres => "Postgres crashed",
            Self::PausePostgres => "Postgres paused",
            Self::LoseQueue => "queue deleted with messages",
            Self::PauseProcessing => "processing paused",
        }
    }
}

/// A fault, and how many tasks have been created when it is injected.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub at: usize,
    pub fault: Fault,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub tasks: usize,
    /// In the order of injection.
    pub faults: Vec<Step>,
    /// The tasks whose message is immediately sent twice.
    pub duplicates: BTreeSet<usize>,
    /// The tasks after which the messages of the last five are sent twice, newest first.
    pub out_of_order: BTreeSet<usize>,
    /// The tasks that are cancelled right after they were created.
    pub cancelled: BTreeSet<usize>,
    /// The tasks after which all tasks of this set that have not ended are cancelled.
    pub cancelled_in_bulk: BTreeSet<usize>,
    /// The tasks that are to run some seconds later.
    pub scheduled: BTreeSet<usize>,
    /// The tasks after which a malformed message is sent.
    pub poison: BTreeSet<usize>,
}

/// The beginning of all titles of a run.
pub fn titles(seed: u64) -> String {
    format!("chaos {seed} ")
}

/// The beginning of the titles of the tasks that are cancelled in bulk, and of no others.
pub fn titles_in_bulk(seed: u64) -> String {
    format!("chaos {seed} in bulk ")
}

impl Plan {
    /// The title of a task.
    pub fn title(&self, seed: u64, number: usize) -> String {
        match self.cancelled_in_bulk.contains(&number) {
            true => format!("{}{number}", titles_in_bulk(seed)),
            false => format!("{}{number}", titles(seed)),
        }
    }

    pub fn new(seed: u64, tasks: usize, postgres: bool) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let rounds = (tasks / 700).max(1);
        let mut faults = Vec::new();
        for _ in 0..rounds {
            faults.extend([
                Fault::KillProcessors,
                Fault::KillProcessors,
                Fault::LoseQueue,
                Fault::PauseProcessing,
            ]);
            if postgres {
                faults.extend([Fault::RestartPostgres, Fault::CrashPostgres, Fault::PausePostgres]);
            }
        }
        random.shuffle(&mut faults);
        // Spread over the run, each at random within its own part. No fault during the first and
        // the last tasks.
        let part = tasks / (faults.len() + 1);
        let steps = faults.into_iter().enumerate().map(|(number, fault)| Step {
            at: part / 2 + number * part + random.usize(0..part),
            fault,
        });
        let faults = steps.collect();
        let mut some =
            |share: usize| -> BTreeSet<usize> { (0..tasks / share).map(|_| random.usize(0..tasks)).collect() };
        let (duplicates, out_of_order, cancelled, mut poison) = (some(10), some(50), some(10), some(100));
        let cancelled_in_bulk = &some(10) - &cancelled;
        let scheduled = some(5);
        // One after the last deletion of the queue.
        poison.insert(tasks - 1);
        Self {
            tasks,
            faults,
            duplicates,
            out_of_order,
            cancelled,
            cancelled_in_bulk,
            scheduled,
            poison,
        }
    }

    pub fn describe_messages(&self) -> String {
        format!(
            "{} duplicates, {} sequences of five out of order, {} poison",
            self.duplicates.len(),
            self.out_of_order.len(),
            self.poison.len()
        )
    }
}
