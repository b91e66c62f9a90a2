//! Tests of deployed functions: over HTTP (`end_to_end`), in a browser (`browser`), closed (`authentication`), and in the
//! sandbox's shape (`sandbox`).

use ::support;

mod authentication;
mod browser;
mod end_to_end;
mod sandbox;
