//! Polling with a timeout.

use std::time::{Duration, Instant};

/// Polls every 50 ms until `poll` returns `Some`; panics after `seconds` with the description of
/// the condition.
pub async fn eventually<T>(seconds: u64, condition: &str, poll: impl AsyncFn() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(value) = poll().await {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {seconds} s: {condition}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
