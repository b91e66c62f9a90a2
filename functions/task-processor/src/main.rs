//! The Lambda function triggered by the task queue.

use lambda_runtime::{LambdaEvent, service_fn};
use queue::TaskQueue;
use shared::{config, store::Database, telemetry};
use task_metrics::Metrics;
use task_processor::{Event, handle};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    telemetry::init();
    let (settings, metrics) = (config::from_env()?, &Metrics::from_env()?);
    let (database, queue) = (&Database::from_env()?, &TaskQueue::from_env()?);
    let handler = async |event: LambdaEvent<Event>| {
        let deadline = event.context.deadline();
        handle(database, queue, metrics, settings, event.payload.0, deadline).await
    };
    lambda_runtime::run(service_fn(handler)).await
}
