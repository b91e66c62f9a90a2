//! A function's process under the stub of the runtime API.

use std::{
    ffi::OsStr,
    fmt,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::PathBuf,
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::runtime_api::{RuntimeApi, RuntimeCall, RuntimeEvent};

/// Longer than any invocation takes.
pub const AMPLE_TIME: Duration = Duration::from_secs(300);

/// Starts functions as Lambda starts them in an execution environment.
#[derive(Clone, Debug)]
pub struct LambdaHost {
    /// The folder with the functions, each a folder with a `bootstrap`.
    pub functions: PathBuf,
    /// The environment variables of template.yaml, and AWS's endpoint.
    pub variables: Vec<(String, String)>,
    /// The time until each invocation's deadline, which is not enforced.
    pub time: Duration,
}

/// A running function.
pub struct Function {
    name: String,
    process: Child,
    api: RuntimeApi,
    time: Duration,
    /// Its stdout, if started with [`LambdaHost::start_idle`].
    output: Option<File>,
    /// From the start of the process until it requested its first invocation.
    pub init: Duration,
}

/// The response to an invocation.
pub struct Response {
    /// As API Gateway or the event source mapping receives it.
    pub body: Value,
    /// Since the invocation; for the first one, since the start of the process.
    pub took: Duration,
}

/// The error that an invocation returned.
#[derive(Debug)]
pub struct Failure {
    function: String,
    /// As it was reported to Lambda.
    pub error: String,
    /// Since the invocation.
    pub took: Duration,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} failed: {}", self.function, self.error)
    }
}

impl std::error::Error for Failure {}

impl LambdaHost {
    /// Starts a function with an event waiting for it.
    pub async fn start(&self, name: &str, event: &Value) -> Result<(Function, Response)> {
        self.start_under(name, &[] as &[&OsStr], event).await
    }

    /// Starts a function under another program, like valgrind.
    pub async fn start_under(
        &self,
        name: &str,
        program: &[impl AsRef<OsStr>],
        event: &Value,
    ) -> Result<(Function, Response)> {
        let (mut function, started) = self.spawn(name, program, Some(event), None).await?;
        let response = function.response(started).await?;
        Ok((function, response?))
    }

    /// Starts a function, captures its stdout and waits until it requests its first invocation.
    pub async fn start_idle(&self, name: &str) -> Result<Function> {
        let output = unlinked_file().context("cannot capture the output")?;
        let (function, _) = self.spawn(name, &[] as &[&OsStr], None, Some(output)).await?;
        Ok(function)
    }

    /// Starts a function that logs to this file, and waits until it requests its first invocation.
    pub async fn start_logging(&self, name: &str, log: File) -> Result<Function> {
        let (function, _) = self.spawn(name, &[] as &[&OsStr], None, Some(log)).await?;
        Ok(function)
    }

    /// Invokes a function that someone else starts, such as a debugger, with the environment
    /// variables that `announce` gets.
    pub async fn serve_once(
        &self,
        name: &str,
        event: &Value,
        announce: impl FnOnce(&[(String, String)]) -> Result<()>,
    ) -> Result<Result<Response, Failure>> {
        let mut api = RuntimeApi::start().await?;
        api.invoke(&event.to_string(), self.time)?;
        announce(&self.environment(name, &api))?;
        let mut invoked = Instant::now();
        loop {
            let RuntimeEvent { at, call } = api.next_event().await;
            match call {
                RuntimeCall::Next => invoked = at,
                RuntimeCall::Response(body) => {
                    let body = serde_json::from_slice(&body)?;
                    let took = at - invoked;
                    return Ok(Ok(Response { body, took }));
                }
                RuntimeCall::Error(body) => return Ok(Err(Failure::new(name, &body, at - invoked))),
            }
        }
    }

    /// Starts a process and waits until it requests an invocation. Also returns when it was
    /// started.
    async fn spawn(
        &self,
        name: &str,
        program: &[impl AsRef<OsStr>],
        event: Option<&Value>,
        output: Option<File>,
    ) -> Result<(Function, Instant)> {
        let folder = self.functions.join(name);
        let mut line: Vec<&OsStr> = program.iter().map(AsRef::as_ref).collect();
        let bootstrap = folder.join("bootstrap");
        line.push(bootstrap.as_os_str());
        let api = RuntimeApi::start().await?;
        if let Some(event) = event {
            api.invoke(&event.to_string(), self.time)?;
        }
        let stdout = match &output {
            Some(file) => file.try_clone()?.into(),
            None => Stdio::null(),
        };
        let mut command = Command::new(line[0]);
        command
            .args(&line[1..])
            .env_clear()
            .envs(self.environment(name, &api))
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(stdout)
            .kill_on_drop(true);
        let started = Instant::now();
        let process = command
            .spawn()
            .with_context(|| format!("cannot start {}", bootstrap.display()))?;
        let mut function = Function {
            name: name.to_owned(),
            process,
            api,
            time: self.time,
            output,
            init: Duration::ZERO,
        };
        function.init = function.next_invocation().await? - started;
        Ok((function, started))
    }

    /// A function's environment variables, as on Lambda (AWS Lambda Developer Guide, "Defined
    /// runtime environment variables").
    fn environment(&self, name: &str, api: &RuntimeApi) -> Vec<(String, String)> {
        let folder = self.functions.join(name);
        let lambdas: &[(&str, &str)] = &[
            ("_HANDLER", "bootstrap"),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256"),
            ("AWS_LAMBDA_FUNCTION_NAME", name),
            ("AWS_LAMBDA_FUNCTION_VERSION", "1"),
            ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand"),
            ("AWS_LAMBDA_LOG_GROUP_NAME", &format!("/aws/lambda/{name}")),
            ("AWS_LAMBDA_LOG_STREAM_NAME", "2026/11/22/[1]0123456789abcdef"),
            ("AWS_LAMBDA_RUNTIME_API", &api.address.to_string()),
            ("AWS_ACCESS_KEY_ID", "local"),
            ("AWS_SECRET_ACCESS_KEY", "local"),
            ("AWS_SESSION_TOKEN", "local"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
            ("LAMBDA_TASK_ROOT", &folder.to_string_lossy()),
            ("LANG", "en_US.UTF-8"),
            ("PATH", "/usr/local/bin:/usr/bin:/bin"),
            ("TZ", ":UTC"),
            // As template.yaml does for each function.
            ("HOME", "/var/task"),
            ("PGUSER", "unused"),
        ];
        let lambdas = lambdas
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        // A later variable wins.
        lambdas.chain(self.variables.iter().cloned()).collect()
    }
}

impl Failure {
    fn new(function: &str, error: &[u8], took: Duration) -> Self {
        Self {
            function: function.to_owned(),
            error: String::from_utf8_lossy(error).into_owned(),
            took,
        }
    }
}

fn unlinked_file() -> io::Result<File> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("output-{}-{number}", std::process::id()));
    let file = File::options().read(true).append(true).create_new(true).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

impl Function {
    /// Invokes it and waits until it requests the next invocation.
    pub async fn invoke(&mut self, event: &Value) -> Result<Response> {
        Ok(self.outcome(event).await??)
    }

    /// Like `invoke`, but returns a reported error as `Ok(Err(_))`.
    pub async fn outcome(&mut self, event: &Value) -> Result<Result<Response, Failure>> {
        let event = event.to_string();
        let invoked = Instant::now();
        self.api.invoke(&event, self.time)?;
        self.response(invoked).await
    }

    async fn response(&mut self, invoked: Instant) -> Result<Result<Response, Failure>> {
        let RuntimeEvent { at, call } = self.next_event().await?;
        let outcome = match call {
            RuntimeCall::Response(body) => Ok(Response {
                body: serde_json::from_slice(&body)?,
                took: at - invoked,
            }),
            RuntimeCall::Error(body) => Err(Failure::new(&self.name, &body, at - invoked)),
            RuntimeCall::Next => bail!("{} requested another invocation before it had responded", self.name),
        };
        self.next_invocation().await?;
        Ok(outcome)
    }

    /// Its stdout so far, if started with [`LambdaHost::start_idle`].
    pub fn output(&self) -> Result<String> {
        let file = self.output.as_ref().context("its output is not captured")?;
        let mut bytes = vec![0; file.metadata()?.len().try_into()?];
        // Not `read`: the function writes at the position that the two share.
        file.read_exact_at(&mut bytes, 0)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Its peak memory in bytes.
    pub fn peak_memory(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()?))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = peak.and_then(|peak| peak.trim().strip_suffix(" kB"));
        Ok(kilobytes.context("no VmHWM in /proc")?.parse::<u64>()? * 1024)
    }

    /// Terminates it with SIGTERM, so that valgrind still writes its report.
    pub async fn stop(mut self) -> Result<()> {
        kill(Pid::from_raw(self.id()?.try_into()?), Signal::SIGTERM)?;
        self.process.wait().await?;
        Ok(())
    }

    /// Its process id.
    pub fn id(&self) -> Result<u32> {
        self.process.id().with_context(|| format!("{} has exited", self.name))
    }

    async fn next_invocation(&mut self) -> Result<Instant> {
        match self.next_event().await? {
            RuntimeEvent {
                at,
                call: RuntimeCall::Next,
            } => Ok(at),
            RuntimeEvent {
                call: RuntimeCall::Error(body),
                ..
            } => {
                bail!("{} failed to start: {}", self.name, String::from_utf8_lossy(&body))
            }
            RuntimeEvent {
                call: RuntimeCall::Response(_),
                ..
            } => bail!("{} responded without an invocation", self.name),
        }
    }

    async fn next_event(&mut self) -> Result<RuntimeEvent> {
        tokio::select! {
            event = self.api.next_event() => Ok(event),
            status = self.process.wait() => bail!("{} has exited: {}", self.name, status?),
        }
    }
}
