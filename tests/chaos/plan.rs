//! What happens when: all of it follows from the seed.

use std::collections::BTreeSet;

/// Something that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL to every task-processor while one of them claims a batch.
    KillProcessors,
    /// Postgres is stopped in order, and started again.
    RestartPostgres,
    /// Postgres is killed, and recovers from its log.
    CrashPostgres,
    /// Postgres does not answer for some seconds.
    PausePostgres,
    /// The task queue is gone for some seconds, and comes back empty.
    LoseQueue,
}

impl Fault {
    /// What a person reads.
    pub fn name(self) -> &'static str {
        match self {
            Self::KillProcessors => "task-processors killed",
            Self::RestartPostgres => "Postgres restarted",
            Self::CrashPostgres => "Postgres crashed",
            Self::PausePostgres => "Postgres paused",
            Self::LoseQueue => "queue gone, its messages lost",
        }
    }
}

/// A fault, and how many tasks have been created when it happens.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub at: usize,
    pub fault: Fault,
}

/// What happens in a run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub tasks: usize,
    /// In the order in which they happen.
    pub faults: Vec<Step>,
    /// The tasks after which their message is sent once more, at once.
    pub duplicates: BTreeSet<usize>,
    /// The tasks after which the messages of the last five are sent once more, the newest first.
    pub out_of_order: BTreeSet<usize>,
    /// The tasks after which a message is sent that is none.
    pub poison: BTreeSet<usize>,
}

impl Plan {
    pub fn new(seed: u64, tasks: usize, postgres: bool) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let rounds = (tasks / 700).max(1);
        let mut faults = Vec::new();
        for _ in 0..rounds {
            faults.extend([Fault::KillProcessors, Fault::KillProcessors, Fault::LoseQueue]);
            if postgres {
                faults.extend([Fault::RestartPostgres, Fault::CrashPostgres, Fault::PausePostgres]);
            }
        }
        random.shuffle(&mut faults);
        // Spread over the run, each somewhere in its own part of it. The first and the last tasks are left in peace.
        let part = tasks / (faults.len() + 1);
        let steps = faults.into_iter().enumerate().map(|(number, fault)| Step {
            at: part / 2 + number * part + random.usize(0..part),
            fault,
        });
        let faults = steps.collect();
        let mut some =
            |share: usize| -> BTreeSet<usize> { (0..tasks / share).map(|_| random.usize(0..tasks)).collect() };
        let (duplicates, out_of_order, mut poison) = (some(10), some(50), some(100));
        // One that no loss of the queue can take away.
        poison.insert(tasks - 1);
        Self {
            tasks,
            faults,
            duplicates,
            out_of_order,
            poison,
        }
    }

    pub fn describe_messages(&self) -> String {
        format!(
            "{} duplicates, {} times five out of order, {} poison",
            self.duplicates.len(),
            self.out_of_order.len(),
            self.poison.len()
        )
    }
}
