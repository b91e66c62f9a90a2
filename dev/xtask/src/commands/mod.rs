//! The make targets.

pub mod bench;
pub mod chaos;
pub mod check;
pub mod counts;
pub mod coverage;
pub mod dead_letters;
pub mod dev;
pub mod environment;
pub mod help;
pub mod invoke;
pub mod lint;
pub mod local_loop;
pub mod openapi;
pub mod queries;
pub mod sam_local;
pub mod sandbox;
pub mod suite;
pub mod test;
pub mod up;
pub mod verify;
pub mod verify_containers;
