//! Programs that the tests need and that come from the system's packages.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use nix::unistd::geteuid;

use crate::tools::{process, terminal::Step};

/// A program that is found on the PATH or, as root on Debian, installed.
pub struct Package {
    /// The program's names in the distributions, or its path; the preferred one first.
    names: &'static [&'static str],
    /// Debian's package.
    package: &'static str,
    /// The error if it is missing: what needs it, and how to install it.
    hint: &'static str,
}

/// The browser that the tests drive. Chrome first: it speaks the same protocol, and Ubuntu's
/// `chromium` may be unable to start.
pub const CHROMIUM: Package = Package {
    names: &[
        "google-chrome",
        "google-chrome-stable",
        "chromium",
        "chromium-browser",
        // On macOS, never on the PATH.
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    ],
    package: "chromium",
    hint: "Chromium is missing, which the browser tests need; Debian: sudo apt install chromium, macOS: Google Chrome",
};

/// Counts the functions' instructions.
pub const VALGRIND: Package = Package {
    names: &["valgrind"],
    package: "valgrind",
    hint: "valgrind is missing, with which the tests count instructions; Debian: sudo apt install valgrind",
};

impl Package {
    /// The path of the program; installs it if it is missing and we are root on Debian.
    pub fn find_or_install(&self, log: &Path) -> Result<PathBuf> {
        if let Some(found) = self.find() {
            return Ok(found);
        }
        if geteuid().is_root() && on_path("apt-get").is_some() {
            let step = Step::start("packages", &format!("installing {} (once)", self.package));
            for arguments in [
                &["update"][..],
                &["install", "--yes", "--no-install-recommends", self.package],
            ] {
                let mut command = Command::new("apt-get");
                command.env("DEBIAN_FRONTEND", "noninteractive").args(arguments);
                process::run(&mut command, log, |_| {}).context(self.hint)?;
            }
            step.done(&format!("installed Debian's package {}", self.package));
        }
        self.find().context(self.hint)
    }

    fn find(&self) -> Option<PathBuf> {
        self.names.iter().find_map(|name| on_path(name))
    }
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|program| program.is_file())
}
