//! Medians and percentiles of repeated measurements.

use std::time::{Duration, Instant};

use anyhow::Result;

/// The times of a repeated measurement.
#[derive(Default)]
pub struct Times(Vec<Duration>);

impl Times {
    /// Adds a time, unless it belongs to the warm-up.
    pub fn add(&mut self, time: Duration, counts: bool) {
        if counts {
            self.0.push(time);
        }
    }

    pub fn median(&self) -> Duration {
        self.percentile(50)
    }

    /// The nearest-rank percentile.
    pub fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let index = (sorted.len() * percent).div_ceil(100).max(1) - 1;
        sorted[index]
    }
}

/// Measures both alternately, so that other load on the machine affects both; returns the medians.
/// The first tenth of the rounds is warm-up and discarded.
pub async fn alternate(
    rounds: usize,
    mut subject: impl AsyncFnMut() -> Result<Duration>,
    mut reference: impl AsyncFnMut() -> Result<Duration>,
) -> Result<(Duration, Duration)> {
    let (mut subjects, mut references) = (Times::default(), Times::default());
    for round in 0..rounds + rounds / 10 {
        let counts = round >= rounds / 10;
        if round % 2 == 0 {
            subjects.add(subject().await?, counts);
            references.add(reference().await?, counts);
        } else {
            references.add(reference().await?, counts);
            subjects.add(subject().await?, counts);
        }
    }
    Ok((subjects.median(), references.median()))
}

/// Returns how long a future takes, and its output.
pub async fn time<T>(work: impl Future<Output = T>) -> (Duration, T) {
    let started = Instant::now();
    let result = work.await;
    (started.elapsed(), result)
}
