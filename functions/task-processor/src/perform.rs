//! The business step: a placeholder for real work.

use shared::domain::{Description, Task};
use tokio_util::sync::CancellationToken;

/// Why a task could not be performed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// A retry may succeed: a service is unavailable, a timeout. The message is redelivered.
    #[error("{0}")]
    Transient(String),
    /// A retry cannot succeed: the task itself is invalid. It becomes `failed`, with this text as
    /// its result.
    #[error("{0}")]
    Permanent(String),
}

/// Performs a task and returns its result: it counts words, in place of real work. To demonstrate
/// failures, a description like `fail: no such user` fails permanently, and one like
/// `retry: no connection` transiently.
///
/// The tasks of a batch are performed concurrently: await, do not block. A task may be performed
/// again if the worker dies before the result is stored: effects outside of Postgres must be
/// idempotent.
///
/// Long work watches the token, `select! { () = cancellation.cancelled() => .., .. }`, and stops
/// early: it is cancelled within seconds after a client has cancelled, changed or deleted the task, or
/// another worker has claimed it. What is returned then is discarded.
pub async fn perform(task: &Task, _cancellation: &CancellationToken) -> Result<String, TaskError> {
    let text = task.description.as_ref().map_or("", Description::as_str);
    match text.split_once(':') {
        Some(("fail", reason)) => return Err(TaskError::Permanent(reason.trim().to_owned())),
        Some(("retry", reason)) => return Err(TaskError::Transient(reason.trim().to_owned())),
        _ => {}
    }
    Ok(format!(
        "Processed \"{}\": {} words, {} characters",
        task.title.as_str(),
        text.split_whitespace().count(),
        text.chars().count(),
    ))
}
