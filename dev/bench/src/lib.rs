//! Runs a function's `bootstrap` as Lambda does, without Lambda: for `make bench`, for the tests that count instructions
//! and round trips, and for the graders of the exercises.

pub mod events;
mod eventually;
mod function;
pub mod instructions;
mod proxy;
mod runtime_api;

pub use eventually::eventually;
pub use function::{Answer, Failure, Function, Sandbox, TIME};
pub use proxy::Proxy;
