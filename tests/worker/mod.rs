//! Messages and their consumers: task-processor, task-reconciler, the dead-letter queue.

mod attempts;
mod cancellation;
mod dead_letters;
mod metrics;
mod processor;
mod properties;
mod queue_over_tls;
mod reconciler;
mod scheduled;
mod silent_sqs;
mod trace;
