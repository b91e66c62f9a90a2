//! The business step. Put real work here.

use shared::domain::{Description, Task};

/// Why a task could not be performed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// May succeed when tried again: a service that is down, a timeout. The message comes back.
    #[error("{0}")]
    Transient(String),
    /// Will never succeed: the task itself is wrong. It is failed, with this text as its result.
    #[error("{0}")]
    Permanent(String),
}

/// Does what a task asks for and returns its result.
///
/// Tasks of a batch are performed concurrently, so await, do not block. A task may be performed again if
/// the worker dies before the result is stored: effects outside of Postgres must be idempotent.
pub async fn perform(task: &Task) -> Result<String, TaskError> {
    let text = task.description.as_ref().map_or("", Description::as_str);
    Ok(format!(
        "Processed \"{}\": {} words, {} characters",
        task.title.as_str(),
        text.split_whitespace().count(),
        text.chars().count(),
    ))
}
