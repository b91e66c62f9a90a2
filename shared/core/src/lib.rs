//! What every function of the task API builds on.
//!
//! | module | answers | its errors |
//! |---|---|---|
//! | [`domain`] | what a task is and which input is valid | [`domain::FieldError`]: what a client got wrong |
//! | [`store`] | how tasks are kept in Postgres | [`store::StoreError`]: unreachable, or a bug |
//! | [`http`] | how a request becomes a response | [`http::ApiError`]: one variant per status code |
//! | [`config`] | what the environment must provide | [`config::ConfigError`]: the function cannot start |
//! | [`telemetry`] | how the logs look | none |
//! | [`trace`] | which trace a request or a message belongs to | none |
//!
//! The SQS client is a crate of its own, `queue`, so that a function that only reads does not link it.

pub mod config;
pub mod domain;
pub mod http;
pub mod store;
pub mod telemetry;
pub mod trace;
