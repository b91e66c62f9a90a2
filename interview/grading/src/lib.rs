//! The library of the exercises' graders: a [`TestEnvironment`], which tests functions from outside.
//! A grader tests only what an exercise's brief promises: events go in; responses, rows, messages,
//! log lines and HTTP calls come out. The functions run as processes, with the environment from
//! template.yaml, so any code that compiles can be graded, and none of it runs in the checks' own
//! process. `make grade` builds them, starts the services that they need and passes the addresses in
//! environment variables.
//!
//! ```no_run
//! # use grading::{TASK_QUEUE, TestEnvironment, events};
//! # async fn check() {
//! let environment = TestEnvironment::new().await;
//! let id = environment.task("Process user data", "Count the words of this").await;
//! environment.send(TASK_QUEUE, &format!(r#"{{"task_id":{id}}}"#)).await;
//! let mut processor = environment.function("task-processor").start().await;
//! let delivered = environment.deliver(&mut processor, 1).await;
//! assert!(delivered.redelivered.is_empty(), "the message was not acknowledged");
//! assert_eq!(environment.row(id).await["status"], "completed", "the task's status");
//! # }
//! ```
//! Everything here panics on failure, which ends the check; the report shows the message.

mod environment;
mod function;
mod queues;
mod template;
mod webhooks;

pub use environment::{TestEnvironment, migrations, roles};
pub use function::{Function, Response, Starting};
pub use harness::{Proxy, events, eventually};
pub use queues::{DEAD_LETTER_QUEUE, Delivered, Depth, Message, TASK_QUEUE};
pub use template::Template;
pub use webhooks::{Call, Reply, Webhooks};

/// A variable that `make grade` sets.
fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run the checks with `make grade`"))
}
