//! The Lambda function for `GET /admin/actions`.

use shared::{store::Database, telemetry};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    telemetry::init();
    let database = Database::from_env()?;
    shared::http::serve(|context| admin_actions::handle(&database, context)).await
}
