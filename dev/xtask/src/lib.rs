//! The runner behind the make targets, in three floors: imports go down only.
//!
//! - [`commands`]: what a person or CI types
//! - [`stack`]: Postgres, the local AWS, building the functions and deploying them
//! - [`tools`]: processes, files, threads, the terminal, installed programs

pub mod commands;
pub mod stack;
pub mod tools;
