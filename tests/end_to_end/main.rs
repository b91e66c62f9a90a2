//! End-to-end tests of the deployed functions: over HTTP (`tasks`), in a browser (`browser`), with
//! authentication (`authentication`), as recorded (`invocations`), and with the sandbox's resources (`sandbox`).

use ::support;

mod authentication;
mod browser;
mod invocations;
mod sandbox;
mod tasks;
