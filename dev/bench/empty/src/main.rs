//! A function that only returns `ok`, with the log of `cargo lambda new --http`: the cost of
//! Lambda, HTTP and Rust by themselves.

use lambda_http::{Error, Request, service_fn, tracing};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    tracing::init_default_subscriber();
    lambda_http::run(service_fn(async |_: Request| Ok::<_, Error>("ok"))).await
}
