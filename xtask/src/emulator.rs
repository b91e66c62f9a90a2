//! The local AWS: ministack, which runs our functions as processes and our queue in memory.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{
    process::{self, Daemon},
    tools::{Tool, Tools},
};

/// The emulator of one stack.
pub struct Emulator {
    folder: PathBuf,
    port: u16,
    daemon: Daemon,
}

impl Emulator {
    /// The emulator that keeps its state in this folder.
    pub fn new(folder: &Path, port: u16) -> Self {
        Self {
            folder: folder.to_owned(),
            port,
            daemon: Daemon::new(folder.join("emulator.pid")),
        }
    }

    /// Where it answers.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// True if it runs and answers on its port.
    pub fn is_running(&self) -> bool {
        self.daemon.is_running() && self.answers()
    }

    /// Starts it and waits until it answers. Its state survives [`Emulator::stop`].
    pub fn start(&self, tools: &Tools) -> Result<()> {
        let temporary = self.folder.join("tmp");
        std::fs::create_dir_all(&temporary)?;
        let log = self.folder.join("emulator.log");
        let mut command = Command::new(tools.bin(Tool::Emulator).join("python"));
        command.arg(tools.lock_folder().join("emulator.py"));
        // Nothing of ours leaks into the functions, which inherit this environment.
        command.env_clear();
        for variable in ["PATH", "HOME", "LANG"] {
            if let Some(value) = std::env::var_os(variable) {
                command.env(variable, value);
            }
        }
        command
            // Its default is every interface.
            .env("BIND_HOST", "127.0.0.1")
            .env("GATEWAY_PORT", self.port.to_string())
            // What the functions see, so that their SDK talks to this emulator.
            .env("AWS_ENDPOINT_URL", self.url())
            .env("PERSIST_STATE", "1")
            .env("STATE_DIR", self.folder.join("state"))
            .env("S3_PERSIST", "1")
            .env("S3_DATA_DIR", self.folder.join("s3"))
            .env("TMPDIR", &temporary)
            .env("PYTHONUNBUFFERED", "1");
        self.daemon.start(&mut command, &log)?;
        process::wait_until(Duration::from_secs(30), || self.answers() || !self.daemon.is_running())?;
        if !self.answers() {
            let _ = self.daemon.stop();
            anyhow::bail!("the emulator ended at once; its log: {}", log.display());
        }
        Ok(())
    }

    /// Stops it and the functions it runs.
    pub fn stop(&self) -> Result<()> {
        self.daemon.stop()
    }

    fn answers(&self) -> bool {
        let ask = || -> Result<bool> {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            stream.write_all(b"GET /_ministack/health HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).context("no answer")?;
            Ok(answer.lines().next().is_some_and(|status| status.contains(" 200")))
        };
        ask().unwrap_or(false)
    }
}
