//! The time that an invocation has.

use std::time::{Duration, SystemTime};

/// The invocation's length if the runtime does not report a deadline (`cargo lambda watch`).
const DEFAULT_TIME: Duration = Duration::from_secs(30);

/// The longest invocation that Lambda allows ("Lambda quotas").
const MAX_TIME: Duration = Duration::from_secs(15 * 60);

/// The remaining time of the invocation; zero if the deadline has passed.
pub fn time_until(deadline: SystemTime) -> Duration {
    // `cargo lambda watch` reports ten minutes as the time since 1970.
    let is_reported = deadline > SystemTime::UNIX_EPOCH + MAX_TIME;
    let time = deadline.duration_since(SystemTime::now()).unwrap_or_default();
    if is_reported && time <= MAX_TIME {
        time
    } else {
        DEFAULT_TIME
    }
}
