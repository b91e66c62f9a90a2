//! Work on several threads.

use std::{
    sync::{Mutex, OnceLock, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};

use crate::tools::process;
/// Something that one of several threads makes and others wait for.
pub struct Handover<T>(OnceLock<T>);

impl<T> Default for Handover<T> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<T> Handover<T> {
    /// Here it is.
    pub fn give(&self, value: T) {
        // Given once.
        let _ = self.0.set(value);
    }

    /// Waits for it; fails when a thread of [`side_by_side`] has failed, as it may not come then.
    pub fn take(&self) -> Result<&T> {
        loop {
            if let Some(value) = self.0.get() {
                return Ok(value);
            }
            ensure!(!process::are_terminated(), "what this needs was not made");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Does things at the same time. When one fails, the programs that the others run are ended.
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

/// Does all of these at the same time, and returns what came of them.
pub fn all<T: Send>(work: impl Iterator<Item = impl FnOnce() -> T + Send>) -> Vec<T> {
    thread::scope(|scope| {
        let threads: Vec<_> = work.map(|work| scope.spawn(work)).collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined
            .map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}
