//! A function that does nothing, behind API Gateway: what Lambda, HTTP and Rust cost by themselves.

use lambda_http::{Error, Request, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    lambda_http::run(service_fn(async |_: Request| Ok::<_, Error>("ok"))).await
}
