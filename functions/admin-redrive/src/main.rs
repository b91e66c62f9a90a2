//! The Lambda function for `POST /admin/redrive`.

use queue::DeadLetterQueue;
use shared::telemetry;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    telemetry::init();
    let queue = DeadLetterQueue::from_env()?;
    shared::http::serve(|context| admin_redrive::handle(&queue, context)).await
}
