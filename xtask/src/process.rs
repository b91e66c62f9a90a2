//! Running programs: to their end with their output in a log, or as daemons that outlive us.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, TcpListener},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

/// How many of the last lines of a failed program are shown.
const TAIL: usize = 30;

/// Runs a program to its end. Its output goes to `log`, line by line also to `on_line`; if it fails, the end
/// of it is part of the error.
pub fn run(command: &mut Command, log: &Path, mut on_line: impl FnMut(&str)) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    fs::create_dir_all(log.parent().context("a log is in a folder")?)?;
    let mut file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;

    // One pipe for both, so that the lines stay in order.
    let (reader, writer) = std::io::pipe()?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    // The command keeps its ends of the pipe open; without this we would wait for ourselves.
    command.stdout(Stdio::null()).stderr(Stdio::null());

    let mut lines = Vec::new();
    for line in BufReader::new(reader).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).trim_end().to_owned();
        writeln!(file, "{line}")?;
        on_line(&line);
        lines.push(line);
    }
    let status = child.wait()?;
    if !status.success() {
        let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n    ");
        bail!(
            "{name} failed ({status}); its last lines, all of them in {}:\n    {tail}",
            log.display()
        );
    }
    Ok(())
}

/// Runs a program to its end and returns what it wrote to its standard output.
pub fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {name}"))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        bail!("{name} failed ({}): {}", output.status, reason.trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// A program that outlives us, known by the file with its process id. It leads a process group, so that
/// what it starts ends with it.
pub struct Daemon {
    pid_file: PathBuf,
}

impl Daemon {
    /// The daemon whose process id is, or will be, in this file.
    pub fn new(pid_file: PathBuf) -> Self {
        Self { pid_file }
    }

    /// Starts the program in the background, its output appended to `log`.
    pub fn start(&self, command: &mut Command, log: &Path) -> Result<()> {
        fs::create_dir_all(log.parent().context("a log is in a folder")?)?;
        let output = OpenOptions::new().create(true).append(true).open(log)?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
        fs::write(&self.pid_file, child.id().to_string())?;
        // If it ends before we do, it must not remain as a zombie, which would look alive.
        thread::spawn(move || child.wait());
        Ok(())
    }

    /// True if the program, or anything it started, is running.
    pub fn is_running(&self) -> bool {
        self.group().is_some_and(|group| killpg(group, None).is_ok())
    }

    /// Ends the program and all it started; politely first.
    pub fn stop(&self) -> Result<()> {
        if let Some(group) = self.group() {
            // The leader alone gets the polite signal: it ends its children itself, after saving its state.
            let _ = kill(group, Signal::SIGTERM);
            if wait_until(Duration::from_secs(10), || kill(group, None).is_err()).is_err() {
                let _ = kill(group, Signal::SIGKILL);
            }
            let _ = killpg(group, Signal::SIGKILL);
            wait_until(Duration::from_secs(5), || killpg(group, None).is_err())
                .with_context(|| format!("process group {group} does not end"))?;
        }
        match fs::remove_file(&self.pid_file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn group(&self) -> Option<Pid> {
        let pid: i32 = fs::read_to_string(&self.pid_file).ok()?.trim().parse().ok()?;
        // After a reboot the number may belong to somebody else: the leader must still lead its own group.
        let leads = nix::unistd::getpgid(Some(Pid::from_raw(pid))).map_or(true, |group| group.as_raw() == pid);
        (pid > 1 && leads).then(|| Pid::from_raw(pid))
    }
}

/// Waits for a condition, looking every 50 ms.
pub fn wait_until(at_most: Duration, condition: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + at_most;
    while !condition() {
        if Instant::now() > deadline {
            bail!("not within {} s", at_most.as_secs());
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Fails, with the way out, if something else listens on the port.
pub fn ensure_free(port: u16, variable: &str, what: &str) -> Result<()> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(()),
        Err(error) => bail!(
            "port {port} for {what} is not free: {error}.\n\
             Stop what uses it, or choose another one: make up {variable}={}",
            if port < 65000 { port + 1 } else { port - 1000 }
        ),
    }
}

/// A port that is free now.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}
