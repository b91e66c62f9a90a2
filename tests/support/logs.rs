//! Captures the log of the code under test.

use std::{
    io,
    sync::{Arc, LazyLock, Mutex},
};

use serde_json::Value;
use shared::telemetry;
use tracing::{Dispatch, subscriber::DefaultGuard};

/// The lines of the log.
#[derive(Clone, Default)]
pub struct LogLines(Arc<Mutex<Vec<u8>>>);

impl LogLines {
    /// Captures the lines of this thread until the guard is dropped.
    pub fn start() -> (Self, DefaultGuard) {
        // A second subscriber, never used: with only one, tracing permanently disables a log line
        // that a thread without a subscriber, such as that of another test, reaches first.
        static SECOND: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(telemetry::subscriber(None, io::sink)));
        LazyLock::force(&SECOND);
        let lines = Self::default();
        let writer = lines.clone();
        let guard = tracing::subscriber::set_default(telemetry::subscriber(None, move || writer.clone()));
        (lines, guard)
    }

    /// The lines since the last call.
    pub fn take(&self) -> Vec<Value> {
        let bytes = std::mem::take(&mut *self.0.lock().expect("not poisoned"));
        let text = String::from_utf8(bytes).expect("UTF-8");
        text.lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }
}

impl io::Write for LogLines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
