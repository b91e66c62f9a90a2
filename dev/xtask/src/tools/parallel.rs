//! Work on several threads.

use std::{
    sync::{Mutex, OnceLock, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};

use crate::tools::process;

/// A value that one thread provides and others wait for.
pub struct Handover<T>(OnceLock<T>);

impl<T> Default for Handover<T> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<T> Handover<T> {
    /// Provides the value.
    pub fn provide(&self, value: T) {
        // Called once.
        let _ = self.0.set(value);
    }

    /// Waits for the value. Fails if a thread of [`side_by_side`] has failed, because the value may
    /// then never be provided.
    pub fn wait(&self) -> Result<&T> {
        loop {
            if let Some(value) = self.0.get() {
                return Ok(value);
            }
            ensure!(!process::are_terminated(), "canceled, because another step failed");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Runs closures in parallel. If one fails, the programs that the others run are terminated, and
/// the first error is returned.
pub fn side_by_side<const N: usize>(work: [&mut (dyn FnMut() -> Result<()> + Send); N]) -> Result<()> {
    let first = Mutex::new(None);
    thread::scope(|scope| {
        for work in work {
            let first = &first;
            scope.spawn(move || {
                if let Err(error) = work() {
                    first
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .get_or_insert(error);
                    process::terminate();
                }
            });
        }
    });
    match first.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Runs closures in parallel and returns their results, in the same order.
pub fn all<T: Send>(work: impl Iterator<Item = impl FnOnce() -> T + Send>) -> Vec<T> {
    thread::scope(|scope| {
        let threads: Vec<_> = work.map(|work| scope.spawn(work)).collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined
            .map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}
