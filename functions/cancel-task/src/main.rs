//! The Lambda function for `POST /tasks/{id}/cancel`.

use shared::{store::Database, telemetry};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    telemetry::init();
    let database = Database::from_env()?;
    shared::http::serve(|context| cancel_task::handle(&database, context)).await
}
