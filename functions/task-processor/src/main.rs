//! The Lambda function that the task queue triggers.

use lambda_runtime::{LambdaEvent, service_fn};
use shared::{config, store::Database, telemetry};
use task_processor::{Settings, perform, process};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    telemetry::init();
    let Settings { max_receive_count } = config::from_env()?;
    let database = &Database::from_env().await?;
    let handler = async |event: LambdaEvent<_>| {
        let deadline = event.context.deadline();
        process(database, event.payload, deadline, max_receive_count, perform).await
    };
    lambda_runtime::run(service_fn(handler)).await
}
