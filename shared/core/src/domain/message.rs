//! Messages of the task queue.

use serde::{Deserialize, Serialize};

use super::TaskId;

/// The body of a message on the task queue: `{"task_id": 7}`.
///
/// The task itself stays in Postgres, so a message that arrives late, twice or out of order cannot
/// carry stale data. Unknown members are ignored, so that an older processor accepts the messages
/// of a newer sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskMessage {
    /// The task to process.
    pub task_id: TaskId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_has_task_id_and_ignores_unknown_members() {
        let message: TaskMessage = serde_json::from_str(r#"{"task_id":7,"priority":1}"#).expect("valid");
        assert_eq!(
            serde_json::to_string(&message).expect("serializable"),
            r#"{"task_id":7}"#
        );
    }

    #[test]
    fn message_without_valid_task_id_is_rejected() {
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
