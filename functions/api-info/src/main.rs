//! The Lambda function for `GET /` and for all requests that match no other route.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    shared::telemetry::init();
    shared::http::serve(api_info::handle).await
}
