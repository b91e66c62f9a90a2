//! The Lambda function for `GET /admin/failures`.

use shared::{store::Database, telemetry};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    telemetry::init();
    let database = Database::from_env()?;
    shared::http::serve(|context| admin_failures::handle(&database, context)).await
}
