//! Runs a function's `bootstrap` as Lambda does, without Lambda: for `make bench`, for the tests that count instructions
//! and round trips, and for the graders of the exercises.

pub mod events;
mod function;
pub mod instructions;
mod proxy;
mod runtime_api;

pub use function::{Answer, Failure, Function, Sandbox, TIME};
pub use proxy::Proxy;
