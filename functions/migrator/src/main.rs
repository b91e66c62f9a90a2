//! The Lambda function behind the custom resource `Migrations`.

use lambda_runtime::{LambdaEvent, service_fn};
use migrator::{CONNECT_TIMEOUT, Request, handle, migrate};
use shared::{store::Login, telemetry};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    telemetry::init();
    let handler = async |event: LambdaEvent<Request>| {
        let deadline = event.context.deadline();
        // The environment is read during the invocation, so that CloudFormation gets a response if
        // it is incomplete.
        let work = async || migrate(Login::from_env()?, CONNECT_TIMEOUT).await;
        handle(&event.payload, deadline, work).await
    };
    lambda_runtime::run(service_fn(handler)).await
}
