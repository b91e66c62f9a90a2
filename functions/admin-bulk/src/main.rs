//! The Lambda function for `POST /admin/actions` and `POST /admin/actions/{id}/continue`.

use shared::{store::Database, telemetry};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    telemetry::init();
    let database = Database::from_env()?;
    shared::http::serve(|context| admin_bulk::handle(&database, context)).await
}
