//! The library behind every function of the task API.
//!
//! | module | contents | errors |
//! |---|---|---|
//! | [`domain`] | tasks and the validation of input | [`domain::FieldError`]: a mistake in the input |
//! | [`store`] | the SQL statements and the connection | [`store::StoreError`]: Postgres is unavailable, or a bug |
//! | [`http`] | requests and responses | [`http::ApiError`]: one variant per kind of error response |
//! | [`config`] | environment variables | [`config::ConfigError`]: the function cannot start |
//! | [`invocation`] | the time that an invocation has | none |
//! | [`signature`] | signatures of requests to AWS | none |
//! | [`telemetry`] | JSON logs | none |
//! | [`trace`] | X-Ray trace headers | none |
//!
//! A function is a handler, and a `main` that passes it to [`http::serve()`]. The handler parses the
//! request with [`http`] into types of [`domain`], runs one of the statements in [`store`] with
//! [`store::Database::run`], and returns a response or an [`http::ApiError`]:
//!
//! ```ignore
//! pub async fn handle(database: &Database, context: Context) -> Result<Response<Body>, ApiError> {
//!     let access = context.caller()?.access();
//!     let id = http::task_id(&context.request)?;
//!     let task = database.run(&tasks::Find { id, access }).await?;
//!     let task = task.ok_or(ApiError::NoSuchTask(id))?;
//!     Ok(http::task(StatusCode::OK, &task))
//! }
//! ```
//!
//! The SQS client is a separate crate, `queue`, so that functions that do not use SQS do not link
//! it.

pub mod config;
pub mod domain;
pub mod http;
pub mod invocation;
pub mod signature;
pub mod store;
pub mod telemetry;
pub mod trace;
