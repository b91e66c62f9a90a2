//! What travels through SQS.

use serde::{Deserialize, Serialize};

use super::TaskId;

/// The body of a message on the task queue: `{"task_id": 7}`.
///
/// The task itself stays in Postgres, so a message that arrives late, twice or out of order never carries
/// stale data. Unknown members are ignored: an older processor must cope with a newer sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskMessage {
    /// The task to process.
    pub task_id: TaskId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_carries_the_id_and_ignores_what_it_does_not_know() {
        let message: TaskMessage = serde_json::from_str(r#"{"task_id":7,"priority":1}"#).expect("valid");
        assert_eq!(
            serde_json::to_string(&message).expect("serialisable"),
            r#"{"task_id":7}"#
        );
    }

    #[test]
    fn anything_but_a_positive_integer_id_is_not_a_message() {
        for body in [
            "",
            "{}",
            "[]",
            "7",
            r#"{"task_id":0}"#,
            r#"{"task_id":"7"}"#,
            r#"{"task_id":1.5}"#,
        ] {
            assert!(serde_json::from_str::<TaskMessage>(body).is_err(), "{body}");
        }
    }
}
