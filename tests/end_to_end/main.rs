//! End-to-end tests of the deployed functions: over HTTP (`tasks`), in a browser (`browser`), with
//! authentication (`authentication`), as recorded (`invocations`), in the logs (`logs`), while paused
//! (`processing`), and with the sandbox's resources (`sandbox`).

use ::support;
use tokio::sync::Mutex;

mod authentication;
mod browser;
mod invocations;
mod logs;
mod processing;
mod sandbox;
mod tasks;

/// Held by a test that pauses processing of the closed stack. An interrupted one leaves nothing to
/// the next run, which begins with a fresh stack.
static PAUSING: Mutex<()> = Mutex::const_new(());
