//! The Lambda function for `PUT` and `PATCH /tasks/{id}`.

use shared::{store::Database, telemetry};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    telemetry::init();
    let database = Database::from_env()?;
    shared::http::serve(|context| update_task::handle(&database, context)).await
}
