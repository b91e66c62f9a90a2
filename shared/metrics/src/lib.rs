//! Metrics, in a crate separate from `shared` so that functions without metrics do not link their
//! writer.
//!
//! They are written to standard output, between the lines of the log, in CloudWatch's embedded
//! metric format, from which CloudWatch extracts metrics (Amazon CloudWatch User Guide,
//! "Specification: Embedded metric format"). They have no dimensions.

use std::{
    io::{self, Write},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use confique::Config;
use metrique_writer::{Entry, format::Format, unit::AsCount, value::VecDistribution};
use metrique_writer_format_emf::Emf;
use shared::{
    config::{self, ConfigError},
    telemetry,
};

/// The maximum number of values of a metric per line ("Specification: Embedded metric format",
/// "Target members").
const MAX_VALUES: usize = 100;

#[derive(Config)]
struct MetricsConfig {
    /// The namespace; empty to disable metrics.
    #[config(env = "METRICS_NAMESPACE", default = "")]
    metrics_namespace: String,
}

/// A writer of metrics.
pub struct Metrics(Option<Mutex<Target>>);

struct Target {
    format: Emf,
    writer: Box<dyn Write + Send>,
}

/// The outcomes of one batch of messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Messages in the batch (`BatchSize`).
    pub size: usize,
    /// Tasks completed (`TasksCompleted`).
    pub completed: usize,
    /// Tasks failed permanently (`TasksFailed`).
    pub failed: usize,
    /// The duration of each attempt, whatever its outcome (`ProcessingTime`).
    pub processing_times: Vec<Duration>,
    /// The time from sending each message to the start of this attempt, including earlier attempts
    /// (`QueueLatency`).
    pub queue_latencies: Vec<Duration>,
}

/// The results of a sweep of the task-reconciler.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Messages sent (`MessagesResent`).
    pub sent: usize,
    /// Tasks whose message is still missing (`MessagesMissing`).
    pub missing: usize,
    /// Tasks discarded after too many attempts (`TasksDiscarded`).
    pub discarded: usize,
    /// Idempotency keys deleted (`KeysDeleted`).
    pub deleted_keys: usize,
    /// Expired idempotency keys that are still stored (`KeysLeft`).
    pub keys_left: usize,
    /// Old tasks deleted (`TasksDeleted`).
    pub deleted_tasks: usize,
    /// Tasks older than the retention period that are still stored (`OldTasksLeft`).
    pub old_tasks_left: usize,
}

#[derive(Entry)]
#[entry(rename_all = "PascalCase")]
struct SweepLine {
    messages_resent: AsCount<usize>,
    messages_missing: AsCount<usize>,
    tasks_discarded: AsCount<usize>,
    keys_deleted: AsCount<usize>,
    keys_left: AsCount<usize>,
    tasks_deleted: AsCount<usize>,
    old_tasks_left: AsCount<usize>,
}

#[derive(Entry)]
#[entry(rename_all = "PascalCase")]
struct Created {
    tasks_created: AsCount<u64>,
}

#[derive(Entry)]
#[entry(rename_all = "PascalCase")]
struct Counts {
    batch_size: AsCount<usize>,
    tasks_completed: AsCount<usize>,
    tasks_failed: AsCount<usize>,
}

/// One line of the metrics of a batch. Only the first has the counts.
#[derive(Entry)]
#[entry(rename_all = "PascalCase")]
struct BatchLine {
    #[entry(flatten)]
    counts: Option<Counts>,
    processing_time: VecDistribution<Duration>,
    queue_latency: VecDistribution<Duration>,
}

impl Metrics {
    /// Writes to standard output, in the namespace of the environment (`METRICS_NAMESPACE`).
    pub fn from_env() -> Result<Self, ConfigError> {
        let namespace = config::from_env::<MetricsConfig>()?.metrics_namespace;
        Ok(Self::new(namespace, io::stdout()))
    }

    /// Writes nothing.
    pub const fn none() -> Self {
        Self(None)
    }

    /// Writes to this writer, one call per line. Writes nothing if the namespace is empty.
    pub fn new(namespace: String, writer: impl Write + Send + 'static) -> Self {
        if namespace.is_empty() {
            return Self::none();
        }
        let no_dimensions = vec![vec![]];
        Self(Some(Mutex::new(Target {
            format: Emf::all_validations(namespace, no_dimensions),
            writer: Box::new(writer),
        })))
    }

    /// Records that a task was created (`TasksCreated`).
    pub fn task_created(&self) {
        self.write(&Created {
            tasks_created: 1.into(),
        });
    }

    /// Records the outcomes of a batch.
    pub fn batch(&self, batch: &Batch) {
        let mut counts = Some(Counts {
            batch_size: batch.size.into(),
            tasks_completed: batch.completed.into(),
            tasks_failed: batch.failed.into(),
        });
        let mut processing_times = batch.processing_times.chunks(MAX_VALUES);
        let mut queue_latencies = batch.queue_latencies.chunks(MAX_VALUES);
        while counts.is_some() || processing_times.len() > 0 || queue_latencies.len() > 0 {
            self.write(&BatchLine {
                counts: counts.take(),
                processing_time: processing_times.next().into_iter().flatten().copied().collect(),
                queue_latency: queue_latencies.next().into_iter().flatten().copied().collect(),
            });
        }
    }

    /// Records the results of a sweep.
    pub fn sweep(&self, sweep: &Sweep) {
        self.write(&SweepLine {
            messages_resent: sweep.sent.into(),
            messages_missing: sweep.missing.into(),
            tasks_discarded: sweep.discarded.into(),
            keys_deleted: sweep.deleted_keys.into(),
            keys_left: sweep.keys_left.into(),
            tasks_deleted: sweep.deleted_tasks.into(),
            old_tasks_left: sweep.old_tasks_left.into(),
        });
    }

    /// Never fails: a lost metric must not fail a task.
    fn write(&self, entry: &impl Entry) {
        let Some(target) = &self.0 else { return };
        let Target { format, writer } = &mut *target.lock().unwrap_or_else(PoisonError::into_inner);
        let mut line = Vec::new();
        if let Err(error) = format.format(entry, &mut line) {
            return telemetry::log_error(&error, "formatting a metric failed");
        }
        // In one call, so that no log line is written in between.
        if let Err(error) = writer.write_all(&line) {
            telemetry::log_error(&error, "writing a metric failed");
        }
    }
}
