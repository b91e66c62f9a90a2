//! A function's process, from its start to its end.

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

use crate::runtime_api::{Call, News, RuntimeApi};

/// More time than an invocation takes anywhere.
pub const TIME: Duration = Duration::from_secs(300);

/// What the functions are started with.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// The folder with the functions, each a folder with a `bootstrap`.
    pub functions: PathBuf,
    /// What template.yaml puts into the environment, and where AWS is.
    pub variables: Vec<(String, String)>,
    /// How long a function has for an invocation, as far as it is told: nobody ends it.
    pub time: Duration,
}

/// A function that runs.
pub struct Function {
    name: String,
    process: Child,
    api: RuntimeApi,
    time: Duration,
    /// What it prints, if that is kept.
    output: Option<File>,
    /// How long it took from the start of the process until it asked for its first invocation.
    pub init: Duration,
}

/// What a function has answered.
pub struct Answer {
    /// What API Gateway, or the event source mapping, gets.
    pub body: Value,
    /// How long it took: from the invocation, or, for the first one, from the start of the process.
    pub took: Duration,
}

/// The error that a function has returned.
#[derive(Debug)]
pub struct Failure {
    function: String,
    /// What it told Lambda.
    pub error: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} failed: {}", self.function, self.error)
    }
}

impl std::error::Error for Failure {}

impl Sandbox {
    /// Starts a function for an event that waits for it, and returns it with the answer.
    pub async fn start(&self, name: &str, event: &Value) -> Result<(Function, Answer)> {
        self.start_under(name, &[] as &[&OsStr], event).await
    }

    /// The same, under another program, like valgrind.
    pub async fn start_under(
        &self,
        name: &str,
        program: &[impl AsRef<OsStr>],
        event: &Value,
    ) -> Result<(Function, Answer)> {
        let (mut function, started) = self.spawn(name, program, Some(event), None).await?;
        let answer = function.answers(started).await?;
        Ok((function, answer?))
    }

    /// Starts a function and waits until it asks for its first invocation. What it prints is kept.
    pub async fn start_idle(&self, name: &str) -> Result<Function> {
        let output = nameless_file().context("cannot keep the output")?;
        let (function, _) = self.spawn(name, &[] as &[&OsStr], None, Some(output)).await?;
        Ok(function)
    }

    /// Starts a process, and returns it with the time, when it asks for an invocation.
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
            // As Lambda does (AWS Lambda Developer Guide, "Defined runtime environment variables").
            .env("_HANDLER", "bootstrap")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256")
            .env("AWS_LAMBDA_FUNCTION_NAME", name)
            .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
            .env("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand")
            .env("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{name}"))
            .env("AWS_LAMBDA_LOG_STREAM_NAME", "2026/11/22/[1]0123456789abcdef")
            .env("AWS_LAMBDA_RUNTIME_API", api.address.to_string())
            .env("AWS_ACCESS_KEY_ID", "local")
            .env("AWS_SECRET_ACCESS_KEY", "local")
            .env("AWS_SESSION_TOKEN", "local")
            .env("AWS_REGION", "us-east-1")
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .env("LAMBDA_TASK_ROOT", &folder)
            .env("LANG", "en_US.UTF-8")
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("TZ", ":UTC")
            // As template.yaml does for each function.
            .env("HOME", "/var/task")
            .env("PGUSER", "nobody")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
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
        function.init = function.asks().await? - started;
        Ok((function, started))
    }
}

/// An empty file that is gone when nobody has it open.
fn nameless_file() -> io::Result<File> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("output-{}-{number}", std::process::id()));
    let file = File::options().read(true).append(true).create_new(true).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

impl Function {
    /// Invokes it and waits until it asks for the next invocation.
    pub async fn invoke(&mut self, event: &Value) -> Result<Answer> {
        Ok(self.outcome(event).await??)
    }

    /// The same, where an error that it returns is an answer, too.
    pub async fn outcome(&mut self, event: &Value) -> Result<Result<Answer, Failure>> {
        let event = event.to_string();
        let invoked = Instant::now();
        self.api.invoke(&event, self.time)?;
        self.answers(invoked).await
    }

    async fn answers(&mut self, invoked: Instant) -> Result<Result<Answer, Failure>> {
        let News { at, call } = self.next_call().await?;
        let outcome = match call {
            Call::Response(body) => Ok(Answer {
                body: serde_json::from_slice(&body)?,
                took: at - invoked,
            }),
            Call::Error(body) => Err(Failure {
                function: self.name.clone(),
                error: String::from_utf8_lossy(&body).into_owned(),
            }),
            Call::Next => bail!("{} asks without having answered", self.name),
        };
        self.asks().await?;
        Ok(outcome)
    }

    /// All that it has printed, if it was started with [`Sandbox::start_idle`].
    pub fn output(&self) -> Result<String> {
        let file = self.output.as_ref().context("its output is not kept")?;
        let mut bytes = vec![0; file.metadata()?.len().try_into()?];
        // Not `read`: the function writes at the position that the two share.
        file.read_exact_at(&mut bytes, 0)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The most memory that it has held, in bytes.
    pub fn peak_memory(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()?))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = peak.and_then(|peak| peak.trim().strip_suffix(" kB"));
        Ok(kilobytes.context("/proc tells the peak")?.parse::<u64>()? * 1024)
    }

    /// Ends it, politely, so that valgrind still writes its report.
    pub async fn stop(mut self) -> Result<()> {
        kill(Pid::from_raw(self.id()?.try_into()?), Signal::SIGTERM)?;
        self.process.wait().await?;
        Ok(())
    }

    fn id(&self) -> Result<u32> {
        self.process.id().with_context(|| format!("{} has ended", self.name))
    }

    async fn asks(&mut self) -> Result<Instant> {
        match self.next_call().await? {
            News { at, call: Call::Next } => Ok(at),
            News {
                call: Call::Error(body),
                ..
            } => {
                bail!("{} does not start: {}", self.name, String::from_utf8_lossy(&body))
            }
            News {
                call: Call::Response(_),
                ..
            } => bail!("{} answers unasked", self.name),
        }
    }

    async fn next_call(&mut self) -> Result<News> {
        tokio::select! {
            news = self.api.next_call() => Ok(news),
            status = self.process.wait() => bail!("{} has ended: {}", self.name, status?),
        }
    }
}
