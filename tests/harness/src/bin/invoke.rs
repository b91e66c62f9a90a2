//! Runs a function once with an event, as Lambda would, for `make invoke`: alone, or under a
//! debugger. Reads a [`Request`] from standard input and prints the [`Outcome`] as JSON.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result};
use harness::LambdaHost;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A person at a breakpoint takes longer than Lambda allows.
const TIME: Duration = Duration::from_secs(24 * 3600);

/// What to run.
#[derive(Deserialize)]
struct Request {
    /// The folder that has the function's folder, which has its `bootstrap`.
    functions: PathBuf,
    function: String,
    variables: Vec<(String, String)>,
    event: Value,
    debug: Option<Debug>,
    /// Where the debugger finds the variables of the function that it starts.
    variables_file: PathBuf,
}

/// Whether the debugger starts the function, or attaches to it.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Debug {
    Attach,
    Launch,
}

/// As the emulator records an invocation.
#[derive(Serialize)]
struct Outcome {
    seconds: f64,
    is_error: bool,
    response: Value,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut request = String::new();
    std::io::stdin().read_to_string(&mut request)?;
    let request: Request = serde_json::from_str(&request)?;
    let (function, event) = (request.function.as_str(), &request.event);
    let host = LambdaHost {
        functions: request.functions,
        variables: request.variables,
        time: TIME,
    };
    let outcome = if let Some(Debug::Launch) = request.debug {
        let announce = |variables: &[(String, String)]| -> Result<()> {
            let mut file = OpenOptions::new();
            file.write(true).create(true).truncate(true).mode(0o600);
            let mut file = file.open(&request.variables_file)?;
            for (name, value) in variables {
                writeln!(file, "{name}={value}")?;
            }
            eprintln!("  • waiting    for a debugger that starts it, such as VS Code's \"Launch make invoke\"");
            Ok(())
        };
        host.serve_once(function, event, announce).await?
    } else {
        // The log goes to the terminal; standard output has the outcome.
        let log = File::from(std::io::stderr().as_fd().try_clone_to_owned()?);
        let mut running = host.start_logging(function, log).await?;
        if let Some(Debug::Attach) = request.debug {
            let process = running.id()?;
            eprintln!(
                "  • waiting    for a debugger to attach to process {process}, such as VS Code's \"Attach to make invoke\""
            );
            while !is_traced(process)? {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        running.outcome(event).await?
    };
    let outcome = match outcome {
        Ok(response) => Outcome {
            seconds: response.took.as_secs_f64(),
            is_error: false,
            response: response.body,
        },
        Err(failure) => Outcome {
            seconds: failure.took.as_secs_f64(),
            is_error: true,
            response: serde_json::from_str(&failure.error).unwrap_or(Value::String(failure.error)),
        },
    };
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

/// True if a debugger is attached to the process.
fn is_traced(process: u32) -> Result<bool> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).context("the function has ended")?;
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    Ok(tracer.is_some_and(|tracer| tracer.trim() != "0"))
}
