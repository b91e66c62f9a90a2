//! The test harness: runs a function's `bootstrap` under a stub of the Lambda runtime API, for
//! tests, `make bench` and graders.

pub mod events;
mod eventually;
mod host;
mod http;
pub mod instructions;
mod proxy;
mod runtime_api;

pub use eventually::eventually;
pub use host::{AMPLE_TIME, Failure, Function, LambdaHost, Response};
pub use http::{serve, serve_after};
pub use hyper::{Request, Response as HttpResponse, body::Bytes};
pub use proxy::Proxy;
