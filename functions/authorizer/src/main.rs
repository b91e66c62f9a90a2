//! The Lambda authorizer of the API.

use authorizer::{Authorizer, handle, now};
use lambda_runtime::{LambdaEvent, service_fn};
use shared::telemetry;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    telemetry::init();
    let authorizer = &Authorizer::from_env()?;
    let handler = async |event: LambdaEvent<_>| handle(authorizer, &event.payload, now()).await;
    lambda_runtime::run(service_fn(handler)).await
}
