//! The Lambda function for `GET /admin/dashboard`.

use shared::telemetry;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    telemetry::init();
    shared::http::serve(admin_dashboard::handle).await
}
