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
    /// Who may call the local API: everybody (`open`), or who has a token (`closed`).
    pub auth: Auth,
    /// A deployed CloudFormation stack to use instead of the local one.
    pub stack: Option<String>,
    /// What is AWS on this machine.
    pub local_aws: LocalAws,
    /// Where `make sam-local` serves.
    pub sam_port: u16,
    /// True if the questions before something that costs or deletes are answered with yes.
    pub yes: bool,
}

/// What is AWS on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalAws {
    /// ministack, which needs no Docker.
    Ministack,
    /// LocalStack, which needs Docker.
    LocalStack,
}

impl LocalAws {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ministack => "ministack",
            Self::LocalStack => "localstack",
        }
    }
}

/// Who may call an API: template.yaml's parameter `Auth`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Everybody, as an anonymous admin.
    Open,
    /// Who has a token: `make token`.
    Closed,
}

impl Auth {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
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
            auth: match text("AUTH").as_deref() {
                None | Some("open") => Auth::Open,
                Some("closed") => Auth::Closed,
                Some(other) => bail!("AUTH must be open or closed, not {other:?}"),
            },
            stack: text("STACK"),
            local_aws: match text("AWS").as_deref() {
                None | Some("ministack") => LocalAws::Ministack,
                Some("localstack") => LocalAws::LocalStack,
                Some(other) => bail!("AWS must be ministack or localstack, not {other:?}"),
            },
            sam_port: port("SAM_PORT", 3000)?,
            yes: text("YES").is_some_and(|text| text == "1"),
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
