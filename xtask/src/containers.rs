//! docker-compose.yml: Postgres, and LocalStack, for `make up AWS=localstack` and `make sam-local`.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Result, bail};

use crate::{
    process,
    settings::{LocalAws, Settings},
};

/// The name of the network in docker-compose.yml.
pub const NETWORK: &str = "task-api";

/// The database as containers in [`NETWORK`] reach it.
pub const DATABASE_URL: &str = "postgres://postgres:postgres@postgres:5432/tasks";

/// A service of docker-compose.yml.
#[derive(Clone, Copy)]
pub enum Service {
    /// Postgres
    Postgres,
    /// LocalStack
    LocalStack,
}

/// The containers of docker-compose.yml.
pub struct Containers {
    root: PathBuf,
    aws_port: u16,
    postgres_port: u16,
}

impl Containers {
    /// The project's containers, on the ports that the settings name.
    pub fn new(settings: &Settings) -> Self {
        Self {
            root: settings.root.clone(),
            aws_port: settings.aws_port,
            postgres_port: settings.postgres_port,
        }
    }

    /// The database as this machine reaches it.
    pub fn database_url(&self) -> String {
        format!("postgres://postgres:postgres@127.0.0.1:{}/tasks", self.postgres_port)
    }

    /// Starts the service and waits until it is healthy; returns at once if it is.
    pub fn start(&self, service: Service, log: &Path, on_line: impl FnMut(&str)) -> Result<()> {
        if !self.is_running(service)? {
            match service {
                Service::Postgres => process::ensure_free(self.postgres_port, "POSTGRES_PORT", "Postgres")?,
                Service::LocalStack => process::ensure_free(self.aws_port, "AWS_PORT", "LocalStack")?,
            }
        }
        process::run(
            self.compose().args(["up", "--detach", "--wait", service.name()]),
            log,
            on_line,
        )
    }

    /// True if the service runs.
    pub fn is_running(&self, service: Service) -> Result<bool> {
        let mut command = self.compose();
        command.args(["ps", "--status", "running", "--quiet", service.name()]);
        Ok(!process::output(&mut command)?.trim().is_empty())
    }

    /// Stops both; the data stays.
    pub fn stop(&self, log: &Path) -> Result<()> {
        self.down(&[], log)
    }

    /// Stops both and deletes the data.
    pub fn forget(&self, log: &Path) -> Result<()> {
        self.down(&["--volumes"], log)
    }

    fn down(&self, options: &[&str], log: &Path) -> Result<()> {
        // Those of functions that SAM local has forgotten (as of 1.170, a few each time): the network cannot go with them.
        let mut list = Command::new("docker");
        list.args(["ps", "--all", "--filter", &format!("network={NETWORK}")]);
        list.args(["--format", r#"{{.ID}} {{.Label "com.docker.compose.project"}}"#]);
        let containers = process::output(&mut list)?;
        let forgotten: Vec<&str> = not_of_compose(&containers).collect();
        if !forgotten.is_empty() {
            process::output(Command::new("docker").args(["rm", "--force"]).args(forgotten))?;
        }
        process::run(self.compose().arg("down").args(options), log, |_| {})
    }

    fn compose(&self) -> Command {
        let mut command = Command::new("docker");
        command.current_dir(&self.root).args(["compose"]);
        // Without its profile LocalStack could be neither started nor stopped.
        command.args(["--profile", LocalAws::LocalStack.as_str()]);
        command
            .env("AWS_PORT", self.aws_port.to_string())
            .env("POSTGRES_PORT", self.postgres_port.to_string());
        command
    }
}

impl Service {
    fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::LocalStack => "localstack",
        }
    }
}

/// Fails, with the way out, if `what` cannot have its containers.
pub fn ensure_docker(what: &str) -> Result<()> {
    let attempt = |arguments: &[&str]| {
        let mut command = Command::new("docker");
        process::output(command.args(arguments).stdin(Stdio::null()))
    };
    let without = "`make up` alone needs no Docker";
    if let Err(error) = attempt(&["compose", "version"]) {
        bail!(
            "{what} needs Docker and its plugin compose: {error:#}\n\
             Install both (https://docs.docker.com/engine/install), or do without: {without}"
        );
    }
    if let Err(error) = attempt(&["version", "--format", "{{.Server.Version}}"]) {
        bail!(
            "{what} needs a Docker daemon that answers: {error:#}\n\
             Start it (Linux: sudo systemctl start docker), or do without: {without}"
        );
    }
    Ok(())
}

/// Of lines with the id of a container and its compose project, the ids that have none.
fn not_of_compose(containers: &str) -> impl Iterator<Item = &str> {
    containers
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(_, project)| project.is_empty())
        .map(|(id, _)| id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_compose_started_is_left_to_compose() {
        let containers = "0a6a3b94ee08 task-api\n96ac84bec19c \nfe628e54e24b \n";
        assert_eq!(
            not_of_compose(containers).collect::<Vec<_>>(),
            ["96ac84bec19c", "fe628e54e24b"]
        );
    }
}
