//! Runs a function's `bootstrap` as Lambda does, without Lambda: for `make bench`, and for the tests that count
//! instructions.

pub mod events;
mod function;
pub mod instructions;
mod runtime_api;

pub use function::{Answer, Function, Sandbox};
