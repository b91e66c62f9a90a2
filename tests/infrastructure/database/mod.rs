//! The database: migrations, roles, login, statements and their plans. Part of the test binary
//! `functions`, which has access to Postgres.

mod login;
mod migrator;
mod plans;
mod queries;
mod roles;
