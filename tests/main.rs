//! Tests of whole functions, called with the events that AWS sends and against a real Postgres and SQS (`api`,
//! `processor`, `reconciler`; for arbitrary input in `properties`), of the operator's commands (`dead_letters`), of the
//! template (`template`) and the OpenAPI document (`openapi`), of what the sandbox needs of an account (`account`), and of
//! the deployed stack: over HTTP (`end_to_end`), and in a browser (`browser`).
//!
//! `make test` starts what they need and says where it is, in environment variables.

mod account;
mod api;
mod authentication;
mod authorizer;
mod browser;
mod budgets;
mod dead_letters;
mod end_to_end;
mod openapi;
mod processor;
mod properties;
mod reconciler;
mod support;
mod template;
