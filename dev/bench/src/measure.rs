//! How times become one number.

use std::time::{Duration, Instant};

use anyhow::Result;

/// The times of something that was done many times.
#[derive(Default)]
pub struct Times(Vec<Duration>);

impl Times {
    /// Adds one, unless it does not count: then it has warmed up.
    pub fn add(&mut self, time: Duration, counts: bool) {
        if counts {
            self.0.push(time);
        }
    }

    /// The time that half of them do not exceed.
    pub fn median(&self) -> Duration {
        self.percentile(50)
    }

    /// The time that this part of them, in percent, does not exceed.
    pub fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let index = (sorted.len() * percent).div_ceil(100).max(1) - 1;
        sorted[index]
    }
}

/// Does both in turns, so that whatever else the machine does is in both; returns the medians. The first tenth of the
/// rounds warms up and does not count.
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

/// How long something takes, with its result.
pub async fn time<T>(work: impl Future<Output = T>) -> (Duration, T) {
    let started = Instant::now();
    let result = work.await;
    (started.elapsed(), result)
}
