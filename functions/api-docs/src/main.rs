//! The Lambda function for `GET /openapi.json`, `/docs`, `/docs/{asset}` and `/redoc`.

use shared::telemetry;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    telemetry::init();
    shared::http::serve(api_docs::handle).await
}
