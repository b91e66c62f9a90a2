//! The Lambda function that the task queue triggers.

use lambda_runtime::{LambdaEvent, service_fn};
use shared::{store::Database, telemetry};
use task_processor::{perform, process};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    telemetry::init();
    let database = &Database::from_env().await?;
    let handler =
        async |event: LambdaEvent<_>| process(database, event.payload, event.context.deadline(), perform).await;
    lambda_runtime::run(service_fn(handler)).await
}
