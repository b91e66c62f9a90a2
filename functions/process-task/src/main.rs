//! The Lambda function for `POST /tasks/{id}/process`.

use queue::TaskQueue;
use shared::{store::Database, telemetry};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    telemetry::init();
    let (database, queue) = (Database::from_env()?, TaskQueue::from_env()?);
    shared::http::serve(|context| process_task::handle(&database, &queue, context)).await
}
