//! The scheduled Lambda function that re-sends lost messages.

use lambda_runtime::{LambdaEvent, service_fn};
use queue::TaskQueue;
use shared::{config, store::Database, telemetry, trace::TraceHeader};
use task_reconciler::{Settings, sweep};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    telemetry::init();
    let settings: &Settings = &config::from_env()?;
    let (database, queue) = (&Database::from_env()?, &TaskQueue::from_env()?);
    let handler = async |event: LambdaEvent<serde_json::Value>| {
        let trace = TraceHeader::of(&event.context);
        sweep(database, queue, settings, trace.as_ref()).await
    };
    lambda_runtime::run(service_fn(handler)).await
}
