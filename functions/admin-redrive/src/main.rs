//! The Lambda function for `POST /admin/redrive`.

use queue::DeadLetterQueue;
use shared::{store::Database, telemetry};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    telemetry::init();
    let (database, queue) = (Database::from_env()?, DeadLetterQueue::from_env()?);
    shared::http::serve(|context| admin_redrive::handle(&database, &queue, context)).await
}
