//! What can be set from outside, and where things are.

use std::{env, path::PathBuf};

use anyhow::{Context, Result, bail};

/// The settings of a command, from environment variables (`make up AWS_PORT=4567` sets one).
pub struct Settings {
    /// The project's folder.
    pub root: PathBuf,
    /// Where the local AWS listens.
    pub aws_port: u16,
    /// Where Postgres listens.
    pub postgres_port: u16,
    /// Where `make dev` serves.
    pub dev_port: u16,
    /// A Postgres to use instead of starting one.
    pub database_url: Option<String>,
    /// A deployed CloudFormation stack to use instead of the local one.
    pub stack: Option<String>,
}

impl Settings {
    /// Reads the environment.
    pub fn from_env() -> Result<Self> {
        let manifest = env::var("CARGO_MANIFEST_DIR").context("run it with `make` or `cargo xtask`")?;
        let root = PathBuf::from(manifest).join("..").canonicalize()?;
        Ok(Self {
            root,
            aws_port: port("AWS_PORT", 4566)?,
            postgres_port: port("POSTGRES_PORT", 55432)?,
            dev_port: port("DEV_PORT", 9000)?,
            database_url: text("DATABASE_URL"),
            stack: text("STACK"),
        })
    }
}

fn text(variable: &str) -> Option<String> {
    env::var(variable).ok().filter(|text| !text.is_empty())
}

fn port(variable: &'static str, default: u16) -> Result<u16> {
    match env::var(variable) {
        Err(_) => Ok(default),
        Ok(text) => match text.parse() {
            Ok(port) if port > 0 => Ok(port),
            _ => bail!("{variable} must be a port from 1 to 65535, not {text:?}"),
        },
    }
}
