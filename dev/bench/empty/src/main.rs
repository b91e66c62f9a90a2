//! A function that does nothing, behind API Gateway, with the log that `cargo lambda new --http` gives it: what Lambda, HTTP
//! and Rust cost by themselves.

use lambda_http::{Error, Request, service_fn, tracing};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    tracing::init_default_subscriber();
    lambda_http::run(service_fn(async |_: Request| Ok::<_, Error>("ok"))).await
}
