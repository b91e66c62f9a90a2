//! Waiting for what happens elsewhere.

use std::time::{Duration, Instant};

/// Asks until the answer is `Some`, every 50 ms, for at most `seconds`: then it panics and says what was awaited.
pub async fn eventually<T>(seconds: u64, what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {seconds} s: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
