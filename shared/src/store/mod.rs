//! How tasks are kept in Postgres.
//!
//! [`Database`] is the connection and runs [`Statement`]s: those of the API are in [`tasks`], those of the
//! task-processor in [`processing`], those of the task-reconciler in [`reconciling`]. Each is one round trip, checked against the schema at compile time.

mod connection;
mod error;
pub mod processing;
pub mod reconciling;
pub mod tasks;

pub use connection::{Database, Statement};
pub use error::StoreError;

/// The schema, for whoever deploys and for the tests.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../migrations");
