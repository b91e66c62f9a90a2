//! Captures metrics.

use std::{
    io,
    sync::{Arc, Mutex},
    time::SystemTime,
};

use serde_json::Value;
use task_metrics::Metrics;

/// The lines in which metrics are written.
#[derive(Clone, Default)]
pub struct MetricLines(Arc<Mutex<Vec<Value>>>);

impl MetricLines {
    /// Metrics in this namespace.
    pub fn metrics(&self, namespace: &str) -> Metrics {
        Metrics::new(namespace.to_owned(), self.clone())
    }

    /// The lines since the last call, without their `Timestamp`, which must be recent.
    pub fn take(&self) -> Vec<Value> {
        let mut lines = std::mem::take(&mut *self.0.lock().expect("not poisoned"));
        for line in &mut lines {
            let metadata = line["_aws"].as_object_mut().expect("metadata");
            let written_at = metadata.remove("Timestamp").and_then(|time| time.as_u64());
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let age = now.expect("after 1970").as_millis() as u64 - written_at.expect("milliseconds since 1970");
            assert!(age < 60_000, "{line} is {age} ms old");
        }
        lines
    }
}

impl io::Write for MetricLines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = std::str::from_utf8(bytes).expect("UTF-8");
        let line = text.strip_suffix('\n').expect("a whole line at once");
        assert!(!line.contains('\n'), "more than one line: {line}");
        self.0
            .lock()
            .expect("not poisoned")
            .push(serde_json::from_str(line).expect("JSON"));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
