//! Works through the task queue: `claim` the tasks of a batch, [`perform`] them concurrently, `settle` them.
//!
//! Delivery is at least once, in any order, sometimes twice at the same time (Amazon SQS Developer Guide,
//! "At-least-once delivery"). The claim makes that harmless: it hands each task to one worker at a time.
//! Every record is answered for on its own (`ReportBatchItemFailures`): what is done is acknowledged, what
//! failed comes back after its visibility timeout, and what keeps failing ends in the dead-letter queue.

mod batch;
mod perform;

use confique::Config;

pub use batch::{BatchError, process};
pub use perform::{TaskError, perform};

/// What the processor must be told.
#[derive(Config)]
pub struct Settings {
    /// The queue's maxReceiveCount: after this many receives a message goes to the dead-letter queue.
    #[config(env = "MAX_RECEIVE_COUNT")]
    pub max_receive_count: u32,
}
