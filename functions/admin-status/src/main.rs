//! The Lambda function for `GET /admin/status`.

use queue::{EventSourceMapping, TaskQueue};
use shared::{store::Database, telemetry};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    telemetry::init();
    let (database, config) = (Database::from_env()?, queue::client_config()?);
    let queue = TaskQueue::new(config.clone(), queue::task_queue_url()?);
    let queue = queue.with_mapping(EventSourceMapping::from_env()?);
    let dead_letter_queue = TaskQueue::new(config, queue::dead_letter_queue_url()?);
    shared::http::serve(|context| admin_status::handle(&database, &queue, &dead_letter_queue, context)).await
}
