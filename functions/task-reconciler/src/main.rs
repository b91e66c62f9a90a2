//! The scheduled Lambda function that re-sends lost messages.

use lambda_runtime::{LambdaEvent, service_fn};
use queue::{EventSourceMapping, TaskQueue};
use shared::{config, invocation::time_until, store::Database, telemetry, trace::TraceHeader};
use task_metrics::Metrics;
use task_reconciler::{Progress, Settings, sweep};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    telemetry::init();
    let (settings, metrics): (&Settings, _) = (&config::from_env()?, &Metrics::from_env()?);
    let progress = &Progress::default();
    let queue = &TaskQueue::from_env()?.with_mapping(EventSourceMapping::from_env()?);
    let database = &Database::from_env()?;
    let handler = async |event: LambdaEvent<serde_json::Value>| {
        let trace = TraceHeader::of(&event.context);
        let time = time_until(event.context.deadline());
        sweep(database, queue, metrics, settings, progress, time, trace.as_ref()).await
    };
    lambda_runtime::run(service_fn(handler)).await
}
