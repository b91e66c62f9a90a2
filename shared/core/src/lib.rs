//! The library behind every function of the task API.
//!
//! | module | contents | errors |
//! |---|---|---|
//! | [`domain`] | tasks and the validation of input | [`domain::FieldError`]: a mistake in the input |
//! | [`store`] | the SQL statements and the connection | [`store::StoreError`]: Postgres is unavailable, or a bug |
//! | [`http`] | requests and responses | [`http::ApiError`]: one variant per kind of error response |
//! | [`config`] | environment variables | [`config::ConfigError`]: the function cannot start |
//! | [`telemetry`] | JSON logs | none |
//! | [`trace`] | X-Ray trace headers | none |
//!
//! The SQS client is a separate crate, `queue`, so that functions that do not use SQS do not link
//! it.

pub mod config;
pub mod domain;
pub mod http;
pub mod store;
pub mod telemetry;
pub mod trace;
