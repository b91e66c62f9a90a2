//! Tests of whole functions, called with the events that AWS sends and against a real Postgres and SQS (`api`,
//! `processor`, `reconciler`, `metrics`, `trace`; for arbitrary input in `properties`), of the operator's commands
//! (`dead_letters`), of the way to SQS (`queue_over_tls`), of how the database is set up (`migrator`, `roles`) and
//! logged in to (`login`), of the template (`template`), the OpenAPI document (`openapi`) and the written ones
//! (`documents`), of what the sandbox needs of an account (`account`), and of the deployed stack: over HTTP
//! (`end_to_end`), in a browser (`browser`), and in the sandbox's shape (`sandbox`).
//!
//! `make test` starts what they need and says where it is, in environment variables.

mod account;
mod api;
mod authentication;
mod authorizer;
mod browser;
mod budgets;
mod dead_letters;
mod documents;
mod end_to_end;
mod instructions;
mod login;
mod metrics;
mod migrator;
mod openapi;
mod plans;
mod processor;
mod properties;
mod queue_over_tls;
mod reconciler;
mod roles;
mod round_trips;
mod sandbox;
mod support;
mod template;
mod trace;
