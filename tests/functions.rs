//! Tests of whole functions, called in this process with the events that AWS sends and against a real Postgres and SQS
//! (`api`, `authorizer`, `processor`, `reconciler`, `metrics`, `trace`; for arbitrary input in `properties`), of the
//! operator's commands (`dead_letters`), of TLS to SQS (`queue_over_tls`), of the statements (`plans`, `queries`,
//! `round_trips`), and of how the database is set up (`migrator`, `roles`) and logged in to (`login`).
//!
//! `make check` starts what they need and says where it is, in environment variables.

use ::support;

mod api;
mod authorizer;
mod dead_letters;
mod login;
mod metrics;
mod migrator;
mod plans;
mod processor;
mod properties;
mod queries;
mod queue_over_tls;
mod reconciler;
mod roles;
mod round_trips;
mod trace;
