//! docker-compose.yml: Postgres, and LocalStack, for `make up AWS=localstack` and `make sam-local`.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Result, bail, ensure};

use crate::{
    stack::settings::LocalAws,
    tools::{http, process},
};

/// The name of the network in docker-compose.yml.
pub const NETWORK: &str = "task-api";

/// The database's URL for containers in [`NETWORK`].
pub const DATABASE_URL: &str = "postgres://postgres:postgres@postgres:5432/tasks";

/// The project's name in docker-compose.yml.
const PROJECT: &str = "task-api";

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
    project: &'static str,
    aws_port: u16,
    postgres_port: u16,
}

impl Containers {
    /// The project's containers, on the ports of the settings.
    pub fn new(root: &Path, aws_port: u16, postgres_port: u16) -> Self {
        Self {
            root: root.to_owned(),
            project: PROJECT,
            aws_port,
            postgres_port,
        }
    }

    /// The same under another project's name: with separate containers and volumes.
    pub fn separate(self) -> Self {
        Self {
            project: "task-api-test",
            ..self
        }
    }

    /// The database's URL for programs on this machine.
    pub fn database_url(&self) -> String {
        format!("postgres://postgres:postgres@127.0.0.1:{}/tasks", self.postgres_port)
    }

    /// Starts the service and waits until it is healthy. A container on another port is recreated
    /// on this one.
    pub fn start(&self, service: Service, log: &Path, on_line: impl FnMut(&str)) -> Result<()> {
        if !self.is_running(service)? {
            match service {
                Service::Postgres => process::ensure_free(self.postgres_port, "POSTGRES_PORT", "Postgres")?,
                Service::LocalStack => process::ensure_free(self.aws_port, "AWS_PORT", "LocalStack")?,
            }
        }
        // One after the other: parallel steps would each create the network, or the container of
        // Postgres, on which LocalStack depends.
        static STARTING: Mutex<()> = Mutex::new(());
        let _turn = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        process::run(
            self.compose().args(["up", "--detach", "--wait", service.name()]),
            log,
            on_line,
        )
    }

    /// True if the service is running on its port. Fails if another clone has started it:
    /// docker-compose.yml names its project, so all clones share the containers.
    pub fn is_running(&self, service: Service) -> Result<bool> {
        let port = match service {
            Service::Postgres => self.postgres_port,
            Service::LocalStack => self.aws_port,
        };
        let mut list = self.list("container");
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
            "the clone in {folder} runs {}, which all clones share; stop it there: make down AWS=localstack",
            service.name()
        );
        Ok(publishes(ports, port))
    }

    /// Lists the project's containers or volumes.
    pub fn list(&self, what: &str) -> Command {
        let mut list = Command::new("docker");
        let project = format!("label=com.docker.compose.project={}", self.project);
        list.args([what, "ls", "--filter", &project]);
        list
    }

    /// Stops both and keeps the data.
    pub fn stop(&self, log: &Path) -> Result<()> {
        self.down(&[], log)
    }

    /// Stops both and deletes the data.
    pub fn clean(&self, log: &Path) -> Result<()> {
        self.down(&["--volumes"], log)
    }

    fn down(&self, options: &[&str], log: &Path) -> Result<()> {
        // SAM local leaves containers of functions behind (1.170: a few each time), which keep the
        // network from being removed.
        let mut list = Command::new("docker");
        list.args(["ps", "--all", "--filter", &format!("network={NETWORK}")]);
        list.args(["--format", r#"{{.ID}} {{.Label "com.docker.compose.project"}}"#]);
        let containers = process::output(&mut list)?;
        let left_behind: Vec<&str> = not_of_compose(&containers).collect();
        if !left_behind.is_empty() {
            process::output(Command::new("docker").args(["rm", "--force"]).args(left_behind))?;
        }
        process::run(self.compose().arg("down").args(options), log, |_| {})
    }

    /// Docker Compose, on the ports of the settings.
    pub fn compose(&self) -> Command {
        let mut command = Command::new("docker");
        command.current_dir(&self.root).args(["compose"]);
        // LocalStack can be started and stopped only with its profile.
        command.args(["--profile", LocalAws::LocalStack.as_str()]);
        command
            .env("COMPOSE_PROJECT_NAME", self.project)
            .env("AWS_PORT", self.aws_port.to_string())
            .env("LOCALSTACK_PORT", self.aws_port.to_string())
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

/// Fails if Docker is missing or not running; the error names the command that needs it and what to
/// do.
pub fn ensure_docker(command: &str) -> Result<()> {
    let attempt = |arguments: &[&str]| {
        let mut docker = Command::new("docker");
        process::output(docker.args(arguments).stdin(Stdio::null()))
    };
    let without = "plain `make up` needs no Docker";
    if let Err(error) = attempt(&["compose", "version"]) {
        bail!(
            "{command} needs Docker and its plugin compose: {error:#}\n\
             Install both: https://docs.docker.com/engine/install. Or work without: {without}"
        );
    }
    if let Err(error) = attempt(&["version", "--format", "{{.Server.Version}}"]) {
        bail!(
            "{command} needs a running Docker daemon: {error:#}\n\
             Start it (Linux: sudo systemctl start docker). Or work without: {without}"
        );
    }
    Ok(())
}

/// Fails if the containers of docker-compose.yml exist: their network has a fixed name.
pub fn ensure_none() -> Result<()> {
    let mut list = Command::new("docker");
    list.args(["network", "ls", "--quiet", "--filter", &format!("name=^{NETWORK}$")]);
    ensure!(
        process::output(&mut list)?.is_empty(),
        "the containers of docker-compose.yml are running; stop them, which keeps their data: \
         make down AWS=localstack"
    );
    Ok(())
}

/// True if a LocalStack responds on this URL.
pub fn localstack_responds(url: &str) -> bool {
    http::agent(Duration::from_secs(2))
        .get(format!("{url}/_localstack/health"))
        .call()
        .is_ok()
}

/// True if a container with these ports (`127.0.0.1:55432->5432/tcp, …`) is published on this port.
fn publishes(ports: &str, port: u16) -> bool {
    ports.split(", ").any(|ports| {
        ports
            .split_once("->")
            .is_some_and(|(host, _)| host.ends_with(&format!(":{port}")))
    })
}

/// The ids of the containers without a compose project, from lines of `<id> <project>`.
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
    fn published_port_is_found() {
        let ports = "127.0.0.1:55433->5432/tcp, 4510-4559/tcp, [::1]:4566->4566/tcp";
        assert!(publishes(ports, 55433) && publishes(ports, 4566));
        assert!(!publishes(ports, 5432) && !publishes(ports, 5433) && !publishes("", 4566));
    }

    #[test]
    fn containers_are_pinned_and_published_on_loopback_only() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let read = |file: &str| std::fs::read_to_string(root.join(file)).expect("a file");
        let compose = read("docker-compose.yml");
        let lines = |key: &str| -> Vec<&str> {
            compose
                .lines()
                .filter_map(|line| line.trim().strip_prefix(key))
                .collect()
        };
        let ports = lines("ports: ");
        assert_eq!(ports.len(), 3, "{ports:?}");
        assert!(
            ports
                .iter()
                .all(|ports| ports.starts_with("[\"127.0.0.1:") && !ports.contains(',')),
            "{ports:?}"
        );
        let images = lines("image: ");
        let is_pinned = |image: &&str| image.contains("@sha256:") || ["task-api", "task-api-dev"].contains(image);
        assert_eq!(images.len(), 5, "{images:?}");
        assert!(images.iter().all(is_pinned), "{images:?}");
        // Docker's socket for LocalStack alone, the last service.
        let (others, localstack) = compose.split_once("\n  localstack:\n").expect("a service");
        assert!(!others.contains("docker.sock") && localstack.contains("docker.sock"));

        let toolchain: toml::Table = read("rust-toolchain.toml").parse().expect("TOML");
        let version = toolchain["toolchain"]["channel"].as_str().expect("a version");
        let image = format!("\nARG RUST=rust:{version}-slim-bookworm@sha256:");
        assert!(read("localstack/Dockerfile").contains(&image), "{image}");
    }

    #[test]
    fn compose_containers_are_not_removed() {
        let containers = "0a6a3b94ee08 task-api\n96ac84bec19c \nfe628e54e24b \n";
        assert_eq!(
            not_of_compose(containers).collect::<Vec<_>>(),
            ["96ac84bec19c", "fe628e54e24b"]
        );
    }
}
