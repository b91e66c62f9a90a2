//! The database: migrations, roles, login, statements and their plans. Part of the test binary
//! `functions`, which has access to Postgres.

mod growth;
mod login;
mod migrator;
mod plans;
mod previous_version;
mod queries;
mod roles;
