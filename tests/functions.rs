//! Functions called in this process with the events that AWS sends, behind API Gateway (`api`) and
//! SQS (`worker`), against Postgres and the emulator's SQS. Also the database's setup and
//! statements (`database`).
//!
//! `make check` starts the services that they need and passes their addresses in environment
//! variables.

use ::support;

mod api;
#[path = "infrastructure/database/mod.rs"]
mod database;
mod worker;
