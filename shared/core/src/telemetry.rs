//! Logs: one JSON object per line, on standard output.
//!
//! ```json
//! {"timestamp":"2026-11-22T15:00:00.123456Z","level":"INFO","message":"task completed","requestId":"…","traceId":"…","taskId":7}
//! ```
//!
//! Lambda reads a line's level and time from the top-level members `level` and `timestamp` (RFC
//! 3339; AWS Lambda Developer Guide, "Configuring JSON and plain text log formats"); without them
//! every line counts as INFO. `requestId` comes from the span that `lambda_runtime` opens for each
//! invocation, so spans are flattened into the line. `traceId`, from the spans of requests and
//! tasks, follows a task through all functions. Bodies and secrets are never logged.

use std::{error::Error, fmt::Write};

use json_subscriber::JsonLayer;
use lambda_http::lambda_runtime::Diagnostic;
use tracing::{Level, Subscriber};
use tracing_subscriber::{
    filter::Targets,
    fmt::{MakeWriter, time::SystemTime},
    layer::SubscriberExt,
    registry::LookupSpan,
};

/// Installs the JSON log of this process. `RUST_LOG` sets its filter (default: `info`).
pub fn init() {
    let directives = std::env::var("RUST_LOG").ok();
    let log = subscriber(directives.as_deref(), std::io::stdout);
    // Not `init`, which would also capture records of the `log` crate whenever a crate in the build
    // enables that feature.
    tracing::subscriber::set_global_default(log).expect("no other subscriber is installed");
}

/// A JSON log to `writer`, filtered by `directives` (default: `info`).
pub fn subscriber<W>(directives: Option<&str>, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    // Not `EnvFilter`, whose regular expressions account for a third of a small function's size.
    let filter: Option<Targets> = directives.and_then(|directives| directives.parse().ok());
    let filter = filter.unwrap_or_else(|| Targets::new().with_default(Level::INFO));
    tracing_subscriber::registry().with(filter).with(json_layer(writer))
}

fn json_layer<S, W>(writer: W) -> JsonLayer<S, W>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + 'static,
{
    let mut layer = JsonLayer::new(writer);
    layer.with_timer("timestamp", SystemTime);
    layer.with_level("level");
    layer.with_target("target");
    layer.with_flattened_event();
    layer.with_top_level_flattened_span_list();
    layer
}

/// Logs an error that is handled and not propagated.
pub fn log_error(error: &dyn Error, message: &str) {
    tracing::error!(error = chain(error), "{message}");
}

/// An error and its causes on one line: "the database is unavailable: connection refused".
pub fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a String cannot fail.
        let _ = write!(line, ": {error}");
        cause = error.source();
    }
    line
}

/// The error and its causes, as reported to Lambda when an invocation fails.
pub fn diagnostic(error_type: &str, error: &dyn Error) -> Diagnostic {
    Diagnostic {
        error_type: error_type.to_owned(),
        error_message: chain(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("not poisoned").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn log_line_has_span_fields_at_top_level() {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = tracing_subscriber::registry().with(json_layer(move || writer.clone()));
        tracing::subscriber::with_default(subscriber, || {
            let invocation = tracing::info_span!("Lambda runtime invoke", requestId = "r-1");
            let _in_invocation = invocation.enter();
            let request = tracing::info_span!("request", taskId = tracing::field::Empty);
            let _in_request = request.enter();
            request.record("taskId", 7);
            tracing::warn!(attempts = 2, "it \"worked\"");
        });

        let bytes = sink.0.lock().expect("not poisoned").clone();
        let text = String::from_utf8(bytes).expect("UTF-8");
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        let mut line: serde_json::Value = serde_json::from_str(&text).expect("one JSON object");
        let timestamp = line["timestamp"].take();
        let timestamp = timestamp.as_str().expect("a string");
        time::OffsetDateTime::parse(timestamp, &time::format_description::well_known::Rfc3339).expect("RFC 3339");
        assert!(timestamp.ends_with('Z'), "{timestamp}");
        assert_eq!(
            line,
            serde_json::json!({
                "timestamp": null,
                "level": "WARN",
                "target": "shared::telemetry::tests",
                "message": "it \"worked\"",
                "attempts": 2,
                "requestId": "r-1",
                "taskId": 7,
                "name": "request",
            })
        );
    }

    #[test]
    fn chain_includes_every_cause() {
        let error = crate::store::StoreError::Unavailable(sqlx::Error::Io(std::io::Error::other("no route")));
        assert_eq!(
            chain(&error),
            "the database is unavailable: error communicating with database: no route: no route"
        );
    }
}
