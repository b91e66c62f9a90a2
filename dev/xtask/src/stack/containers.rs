//! docker-compose.yml: Postgres, and LocalStack, for `make up AWS=localstack` and `make sam-local`.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Result, bail, ensure};

use crate::{stack::settings::LocalAws, tools::process};

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
    pub fn new(root: &Path, aws_port: u16, postgres_port: u16) -> Self {
        Self {
            root: root.to_owned(),
            aws_port,
            postgres_port,
        }
    }

    /// The database as this machine reaches it.
    pub fn database_url(&self) -> String {
        format!("postgres://postgres:postgres@127.0.0.1:{}/tasks", self.postgres_port)
    }

    /// Starts the service and waits until it is healthy; returns at once if it is. One that runs on another port is moved.
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

    /// True if the service runs on its port. Fails if it is that of another folder: docker-compose.yml names its project, so
    /// that all clones have the same containers.
    pub fn is_running(&self, service: Service) -> Result<bool> {
        let port = match service {
            Service::Postgres => self.postgres_port,
            Service::LocalStack => self.aws_port,
        };
        let mut list = Command::new("docker");
        list.args(["ps", "--filter", "label=com.docker.compose.project=task-api"]);
        list.args([
            "--filter",
            &format!("label=com.docker.compose.service={}", service.name()),
        ]);
        list.args([
            "--format",
            r#"{{.Label "com.docker.compose.project.working_dir"}}|{{.Ports}}"#,
        ]);
        let running = process::output(&mut list)?;
        let Some((folder, ports)) = running.lines().next().and_then(|line| line.split_once('|')) else {
            return Ok(false);
        };
        ensure!(
            Path::new(folder) == self.root,
            "the {} that runs belongs to {folder}; there: make down AWS=localstack",
            service.name()
        );
        Ok(publishes(ports, port))
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

/// True if a container with these ports (`127.0.0.1:55432->5432/tcp, …`) is reached on this one.
fn publishes(ports: &str, port: u16) -> bool {
    ports.split(", ").any(|ports| {
        ports
            .split_once("->")
            .is_some_and(|(host, _)| host.ends_with(&format!(":{port}")))
    })
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
    fn a_published_port_is_found() {
        let ports = "127.0.0.1:55433->5432/tcp, 4510-4559/tcp, [::1]:4566->4566/tcp";
        assert!(publishes(ports, 55433) && publishes(ports, 4566));
        assert!(!publishes(ports, 5432) && !publishes(ports, 5433) && !publishes("", 4566));
    }

    #[test]
    fn containers_of_compose_are_left_to_compose() {
        let containers = "0a6a3b94ee08 task-api\n96ac84bec19c \nfe628e54e24b \n";
        assert_eq!(
            not_of_compose(containers).collect::<Vec<_>>(),
            ["96ac84bec19c", "fe628e54e24b"]
        );
    }
}
