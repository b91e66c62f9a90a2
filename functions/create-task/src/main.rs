//! The Lambda function for `POST /tasks`.

use queue::TaskQueue;
use shared::{config, store::Database, telemetry};
use task_metrics::Metrics;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    telemetry::init();
    let (settings, metrics) = (config::from_env()?, Metrics::from_env()?);
    let (database, queue) = (Database::from_env()?, TaskQueue::from_env()?);
    shared::http::serve(|context| create_task::handle(&database, &queue, &metrics, &settings, context)).await
}
