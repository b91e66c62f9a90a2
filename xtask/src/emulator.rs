//! The local AWS: ministack, which runs our functions as processes and our queue in memory.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Result, bail};
use ureq::Agent;

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

    /// True if it runs and what responds on its port is this one, not another stack's.
    pub fn is_running(&self) -> bool {
        self.daemon.is_running()
            && self
                .folder_of_the_one_that_responds()
                .is_some_and(|folder| folder == self.folder)
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
            // For how many seconds more than one idle environment of a function is kept.
            .env("LAMBDA_WARM_TTL_SECONDS", "60")
            .env("TMPDIR", &temporary)
            .env("PYTHONUNBUFFERED", "1");
        self.daemon.start(&mut command, &log)?;
        let started = process::wait_until(Duration::from_secs(30), || {
            self.is_running() || !self.daemon.is_running()
        });
        if !self.is_running() {
            let _ = self.daemon.stop();
            bail!(
                "the emulator does not start ({}); its log: {}",
                match started {
                    Ok(()) => "it ended at once",
                    Err(_) => "no response within 30 s",
                },
                log.display()
            );
        }
        Ok(())
    }

    /// Stops it and the functions it runs.
    pub fn stop(&self) -> Result<()> {
        self.daemon.stop()
    }

    /// The folder of the stack whose emulator responds on the port: tools/emulator.py.
    fn folder_of_the_one_that_responds(&self) -> Option<PathBuf> {
        let config = Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(2)))
            .build();
        let agent = Agent::from(config);
        let mut response = agent.get(format!("{}/_task-api/folder", self.url())).call().ok()?;
        response.body_mut().read_to_string().ok().map(PathBuf::from)
    }
}
