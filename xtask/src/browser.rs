//! The browser that the tests drive.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use nix::unistd::geteuid;

use crate::{process, ui::Step};

/// What it is called by those who package it. Chrome first: it speaks the same protocol, and on Ubuntu `chromium` may
/// be one that cannot start.
const NAMES: [&str; 4] = ["google-chrome", "google-chrome-stable", "chromium", "chromium-browser"];

/// Chromium: the one that is here, or, for root on Debian, the one of the distribution.
pub fn find_or_install(log: &Path) -> Result<PathBuf> {
    if let Some(found) = find() {
        return Ok(found);
    }
    let hint = "the browser tests need Chromium; Debian: sudo apt install chromium";
    if geteuid().is_root() && on_path("apt-get").is_some() {
        let step = Step::start("browser", "installing Chromium (once)");
        for arguments in [
            &["update"][..],
            &["install", "--yes", "--no-install-recommends", "chromium"],
        ] {
            let mut command = Command::new("apt-get");
            command.env("DEBIAN_FRONTEND", "noninteractive").args(arguments);
            process::run(&mut command, log, |_| {}).context(hint)?;
        }
        step.done("installed Debian's chromium");
    }
    find().context(hint)
}

fn find() -> Option<PathBuf> {
    NAMES.into_iter().find_map(on_path)
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|program| program.is_file())
}
