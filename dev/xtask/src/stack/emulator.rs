//! The emulator: ministack, which runs the functions as processes and the queue in memory.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Result, bail};

use crate::tools::{
    http,
    process::{self, Daemon},
    python::{Tool, Tools},
};

/// The emulator of one stack.
pub struct Emulator {
    folder: PathBuf,
    host: String,
    port: u16,
    daemon: Daemon,
}

impl Emulator {
    /// The emulator whose state is in this folder.
    pub fn new(folder: &Path, port: u16) -> Self {
        Self {
            folder: folder.to_owned(),
            host: "127.0.0.1".to_owned(),
            port,
            daemon: Daemon::new(folder.join("emulator.pid")),
        }
    }

    /// The same on another host, where it cannot be started or stopped.
    pub fn on(self, host: String) -> Self {
        Self { host, ..self }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}:{}", self.host, self.port)
    }

    /// True if it is running and responds on its port: not the emulator of another stack.
    pub fn is_running(&self) -> bool {
        self.daemon.is_running() && self.responding_folder().is_some_and(|folder| folder == self.folder)
    }

    /// Fails if the emulator of another stack responds on the port.
    pub fn ensure_no_other_stacks(&self) -> Result<()> {
        match self.responding_folder() {
            Some(folder) if folder != self.folder => bail!(
                "port {} belongs to the emulator of another stack, {}.\nChoose another port: make up AWS_PORT={}",
                self.port,
                folder.display(),
                self.port + 1
            ),
            _ => Ok(()),
        }
    }

    /// Starts it and waits until it responds. Its state survives [`Emulator::stop`].
    pub fn start(&self, tools: &Tools) -> Result<()> {
        let temporary = self.folder.join("tmp");
        std::fs::create_dir_all(&temporary)?;
        let log = self.folder.join("emulator.log");
        let mut command = Command::new(tools.bin(Tool::Emulator).join("python"));
        command.arg(tools.lock_folder().join("emulator.py"));
        // The functions inherit this environment: it must have no variables of the developer's.
        command.env_clear();
        for variable in ["PATH", "HOME", "LANG"] {
            if let Some(value) = std::env::var_os(variable) {
                command.env(variable, value);
            }
        }
        command
            // The emulator's default is all interfaces. docker-compose.yml sets them in its
            // container, and publishes the port on the loopback interface only.
            .env(
                "BIND_HOST",
                std::env::var("BIND_HOST").unwrap_or_else(|_| "127.0.0.1".to_owned()),
            )
            .env("GATEWAY_PORT", self.port.to_string())
            // For the SDK in the functions.
            .env("AWS_ENDPOINT_URL", self.url())
            .env("PERSIST_STATE", "1")
            .env("STATE_DIR", self.folder.join("state"))
            .env("S3_PERSIST", "1")
            .env("S3_DATA_DIR", self.folder.join("s3"))
            // After this many idle seconds, all but one environment of a function are stopped.
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
                "the emulator does not start: {}. Its log: {}",
                match started {
                    Ok(()) => "its process ended",
                    Err(_) => "no response within 30 s",
                },
                log.display()
            );
        }
        Ok(())
    }

    /// Stops it and its functions.
    pub fn stop(&self) -> Result<()> {
        self.daemon.stop()
    }

    /// The folder of the stack whose emulator responds on the port: dev/tools/emulator.py.
    fn responding_folder(&self) -> Option<PathBuf> {
        let agent = http::agent(Duration::from_secs(2));
        let mut response = agent.get(format!("{}/_task-api/folder", self.url())).call().ok()?;
        response.body_mut().read_to_string().ok().map(PathBuf::from)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
        process::Command,
        thread,
    };

    use super::*;

    /// A server that responds as the emulator of the stack in `folder` does; returns its port.
    fn respond_as(folder: &'static str) -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let _ = stream.read(&mut [0; 4096]);
                let length = folder.len();
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{folder}"
                );
            }
        });
        port
    }

    #[test]
    fn emulator_of_another_clone_is_refused() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/xtask-tests/emulator");
        std::fs::create_dir_all(&folder).expect("a folder");
        // Its own process is running, as in a clone whose stack is on another port.
        let own = Emulator::new(&folder, respond_as("/another/clone/.local/local"));
        let mut sleep = Command::new("sleep");
        own.daemon
            .start(sleep.arg("60"), &folder.join("log"))
            .expect("it starts");
        assert!(own.daemon.is_running());
        assert!(!own.is_running());
        let error = own.ensure_no_other_stacks().expect_err("it is refused").to_string();
        assert!(
            error.contains("/another/clone") && error.contains("AWS_PORT="),
            "{error}"
        );
        assert!(own.daemon.is_running(), "it keeps running");
        own.stop().expect("it stops");

        let here = Emulator::new(Path::new("/here/.local/local"), respond_as("/here/.local/local"));
        assert_eq!(here.responding_folder(), Some(here.folder.clone()));
    }
}
