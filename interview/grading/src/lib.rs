//! What the graders of the exercises have in common: a [`Stand`] to try functions on, from outside.
//!
//! A grader sees only what an exercise's brief promises: events go in; answers, rows, messages, log lines and HTTP calls
//! come out. The functions run as processes, in the environment that template.yaml gives them, so that whatever compiles
//! can be graded. `make grade` builds them, starts what they need and says where it is, in environment variables.
//!
//! ```no_run
//! # use grading::{Stand, TASK_QUEUE, events};
//! # async fn check() {
//! let stand = Stand::new().await;
//! let id = stand.task("Process user data", "Count the words of this").await;
//! stand.send(TASK_QUEUE, &format!(r#"{{"task_id":{id}}}"#)).await;
//! let mut processor = stand.function("task-processor").start().await;
//! let delivered = stand.deliver(&mut processor, 1).await;
//! assert!(delivered.came_back.is_empty(), "the message was not acknowledged");
//! assert_eq!(stand.row(id).await["status"], "completed", "the task's status");
//! # }
//! ```
//!
//! Everything here panics when it does not get what it needs: a check ends then, and the report shows the text.

mod function;
mod queues;
mod stand;
mod template;
mod webhooks;

pub use function::{Answer, Function, Starting};
pub use harness::{Proxy, events, eventually};
pub use queues::{DEAD_LETTER_QUEUE, Delivered, Depth, Message, TASK_QUEUE};
pub use stand::Stand;
pub use template::Template;
pub use webhooks::{Call, Reply, Webhooks};

/// A variable that `make grade` sets.
fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run the checks with `make grade`"))
}
