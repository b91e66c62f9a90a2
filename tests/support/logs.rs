//! The log of what a test calls.

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
    /// Those of this thread, from now on and until the guard is dropped.
    pub fn start() -> (Self, DefaultGuard) {
        // Never used, only there: while there is but one subscriber, tracing takes a line for switched off for good if
        // another test's thread, which has none, comes to it first.
        static SECOND: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(telemetry::subscriber(None, io::sink)));
        LazyLock::force(&SECOND);
        let lines = Self::default();
        let writer = lines.clone();
        let guard = tracing::subscriber::set_default(telemetry::subscriber(None, move || writer.clone()));
        (lines, guard)
    }

    /// The lines since the last time.
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
