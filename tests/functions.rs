//! Functions called in this process with the events that AWS sends, against a real Postgres and SQS: behind API Gateway
//! (`api`) and SQS (`worker`). Also the database's setup and statements (`database`).
//!
//! `make check` starts what they need and says where it is, in environment variables.

use ::support;

mod api;
#[path = "infrastructure/database/mod.rs"]
mod database;
mod worker;
