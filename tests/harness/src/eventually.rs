//! Polling.

use std::time::{Duration, Instant};

/// Polls every 50 ms until there is `Some`, for at most `seconds`; then it panics and says what was awaited.
pub async fn eventually<T>(seconds: u64, what: &str, poll: impl AsyncFn() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(value) = poll().await {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {seconds} s: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
