//! Runs a function's `bootstrap` as Lambda does, without Lambda: for `make bench`, and for the tests that count
//! instructions and round trips.

pub mod events;
mod function;
pub mod instructions;
mod proxy;
mod runtime_api;

pub use function::{Answer, Function, Sandbox};
pub use proxy::Proxy;
