//! Tests of deployed functions: over HTTP (`tasks`), in a browser (`browser`), closed (`authentication`), and in the
//! sandbox's shape (`sandbox`).

use ::support;

mod authentication;
mod browser;
mod sandbox;
mod tasks;
