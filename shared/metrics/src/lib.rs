//! The metrics, apart from `shared` so that a function that only reads does not link their writer.
//!
//! They go to standard output, between the lines of the log, in CloudWatch's embedded metric format: CloudWatch makes
//! metrics of such lines by itself (Amazon CloudWatch User Guide, "Specification: Embedded metric format"). They have no
//! dimensions.

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

/// The most values of one metric in one line ("Specification: Embedded metric format", "Target members").
const MAX_VALUES: usize = 100;

/// Where the metrics belong.
#[derive(Config)]
struct MetricsConfig {
    /// The namespace; empty where nobody looks at metrics.
    #[config(env = "METRICS_NAMESPACE", default = "")]
    metrics_namespace: String,
}

/// Where metrics are written to.
pub struct Metrics(Option<Mutex<Target>>);

struct Target {
    format: Emf,
    writer: Box<dyn Write + Send>,
}

/// What came of one batch of messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Its messages (`BatchSize`).
    pub size: usize,
    /// Tasks completed by it (`TasksCompleted`).
    pub completed: usize,
    /// Tasks that it failed for good (`TasksFailed`).
    pub failed: usize,
    /// How long each task was worked on, whatever came of it (`ProcessingTime`).
    pub processing_times: Vec<Duration>,
    /// How long after its message had been sent work on each task began, earlier attempts included (`QueueLatency`).
    pub queue_latencies: Vec<Duration>,
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

/// One line about a batch; the counts are in the first.
#[derive(Entry)]
#[entry(rename_all = "PascalCase")]
struct BatchLine {
    #[entry(flatten)]
    counts: Option<Counts>,
    processing_time: VecDistribution<Duration>,
    queue_latency: VecDistribution<Duration>,
}

impl Metrics {
    /// To standard output, in the namespace that the environment names (`METRICS_NAMESPACE`).
    pub fn from_env() -> Result<Self, ConfigError> {
        let namespace = config::from_env::<MetricsConfig>()?.metrics_namespace;
        Ok(Self::new(namespace, io::stdout()))
    }

    /// Nowhere.
    pub const fn none() -> Self {
        Self(None)
    }

    /// To this writer, which gets each line as a whole. Nowhere if the namespace is empty.
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

    /// A task was created (`TasksCreated`).
    pub fn task_created(&self) {
        self.write(&Created {
            tasks_created: 1.into(),
        });
    }

    /// A batch was worked through.
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

    /// Never fails: a metric is not worth a task.
    fn write(&self, entry: &impl Entry) {
        let Some(target) = &self.0 else { return };
        let Target { format, writer } = &mut *target.lock().unwrap_or_else(PoisonError::into_inner);
        let mut line = Vec::new();
        if let Err(error) = format.format(entry, &mut line) {
            return telemetry::log_error(&error, "a metric is not valid");
        }
        // At once, so that no line of the log comes in between.
        if let Err(error) = writer.write_all(&line) {
            telemetry::log_error(&error, "a metric was not written");
        }
    }
}
