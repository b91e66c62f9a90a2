//! Tasks in Postgres.
//!
//! A [`Database`] opens its connection with a [`Login`] and runs [`Statement`]s: those of the API
//! are in [`tasks`] and [`idempotency`], those of the task-processor in [`processing`], those of
//! the task-reconciler in [`reconciling`], and those for operators in [`operating`], [`actions`] and [`bulk`]. Each is
//! checked against the schema at compile time and takes one round trip unless documented otherwise.
//! [`outbox`] connects them with the queue.

pub mod actions;
pub mod bulk;
mod columns;
mod connection;
mod error;
pub mod idempotency;
mod login;
pub mod operating;
pub mod outbox;
pub mod processing;
pub mod reconciling;
pub mod tasks;

pub use connection::{Database, SESSION, Statement};
pub use error::StoreError;
pub use login::{Login, auth_token};
