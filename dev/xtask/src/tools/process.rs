//! Running programs: to completion with their output in a log, or as daemons that outlive this
//! process.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, TcpListener},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

use crate::tools::files;

/// How many of a failed program's last lines the error shows.
const TAIL: usize = 30;

/// A cargo command in the project's folder, as from a terminal. `cargo run` adds variables about
/// this crate to our environment, and some build scripts depend on them: passed on, they would make
/// cargo recompile half of the tree.
pub fn cargo(program: impl AsRef<OsStr>, root: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_MANIFEST") || text.starts_with("CARGO_PKG") {
            command.env_remove(&name);
        }
    }
    // Where this runner and template.yaml look for the programs.
    command.current_dir(root).env("CARGO_TARGET_DIR", root.join("target"));
    command
}

/// The programs that [`run`] waits for; `None` after [`terminate`].
static RUNNING: Mutex<Option<Vec<Pid>>> = Mutex::new(Some(Vec::new()));

fn running() -> MutexGuard<'static, Option<Vec<Pid>>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Terminates the programs that [`run`] waits for, and those that it starts later: this command has
/// failed.
pub fn terminate() {
    for pid in running().take().into_iter().flatten() {
        let _ = kill(pid, Signal::SIGTERM);
    }
}

/// True after [`terminate`].
pub fn are_terminated() -> bool {
    running().is_none()
}

/// Runs a program to completion. Its output goes to `log` and, line by line, to `on_line`; if it
/// fails, the last lines are part of the error. Lines that the program overwrites (progress) go to
/// `on_line` only.
pub fn run(command: &mut Command, log: &Path, on_line: impl FnMut(&str)) -> Result<()> {
    run_within(None, command, log, on_line)
}

/// The same with a time limit, after which the program is killed.
pub fn run_within(
    limit: Option<Duration>,
    command: &mut Command,
    log: &Path,
    mut on_line: impl FnMut(&str),
) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    fs::create_dir_all(log.parent().context("the log has no parent folder")?)?;
    let mut file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;

    // One pipe for both, to preserve the order of the lines.
    let (reader, writer) = std::io::pipe()?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    // The command holds its ends of the pipe open; unless they are closed, the reader never reaches
    // the end.
    command.stdout(Stdio::null()).stderr(Stdio::null());

    let pid = Pid::from_raw(i32::try_from(child.id()).context("the process id is out of range")?);
    match running().as_mut() {
        Some(running) => running.push(pid),
        None => kill(pid, Signal::SIGTERM)?,
    }

    let mut lines = Vec::new();
    let mut reader = BufReader::new(reader);
    let is_late = AtomicBool::new(false);
    let status = thread::scope(|scope| -> Result<_> {
        // Dropped at the end of this closure, which ends the thread.
        let (_running, ended) = mpsc::channel::<()>();
        let is_late = &is_late;
        if let Some(limit) = limit {
            scope.spawn(move || {
                if ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                    is_late.store(true, Ordering::Relaxed);
                    let _ = kill(pid, Signal::SIGKILL);
                }
            });
        }
        while let Some((line, is_whole)) = next_line(&mut reader)? {
            on_line(&line);
            if is_whole {
                writeln!(file, "{line}")?;
                lines.push(line);
            }
        }
        Ok(child.wait()?)
    })?;
    if let Some(running) = running().as_mut() {
        running.retain(|running| *running != pid);
    }
    if !status.success() {
        let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n    ");
        let failed = match limit {
            Some(limit) if is_late.into_inner() => format!("did not end within {} s", limit.as_secs()),
            _ => format!("failed ({status})"),
        };
        bail!(
            "{name} {failed}. Its last lines (full output: {}):\n    {tail}",
            log.display()
        );
    }
    Ok(())
}

/// The next line, and whether it is final: false if it ends with a carriage return alone, so that
/// the next one overwrites it.
fn next_line(reader: &mut impl BufRead) -> Result<Option<(String, bool)>> {
    let mut line = Vec::new();
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            let rest = String::from_utf8_lossy(&line).trim_end().to_owned();
            return Ok((!line.is_empty()).then_some((rest, true)));
        }
        let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        line.extend_from_slice(&bytes[..end.unwrap_or(bytes.len())]);
        let is_whole = end.is_some_and(|end| bytes[end] == b'\n');
        let used = end.map_or(bytes.len(), |end| end + 1);
        reader.consume(used);
        if end.is_some() {
            return Ok(Some((String::from_utf8_lossy(&line).trim_end().to_owned(), is_whole)));
        }
    }
}

/// Runs a program to completion and returns its standard output. Bytes that are not UTF-8, as in a
/// diff of such a file, are replaced.
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
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A program that outlives this process, identified by its pid file. It leads a process group, so
/// that its children are terminated with it.
pub struct Daemon {
    pid_file: PathBuf,
}

impl Daemon {
    /// The daemon of this pid file.
    pub fn new(pid_file: PathBuf) -> Self {
        Self { pid_file }
    }

    /// Starts the program in the background, its output appended to `log`.
    pub fn start(&self, command: &mut Command, log: &Path) -> Result<()> {
        fs::create_dir_all(log.parent().context("the log has no parent folder")?)?;
        let output = OpenOptions::new().create(true).append(true).open(log)?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
        fs::write(&self.pid_file, format!("{}\n{}", child.id(), boot_id()))?;
        // Reaps it if it ends before we do: a zombie would count as running.
        thread::spawn(move || child.wait());
        Ok(())
    }

    /// True if the program or one of its children is running.
    pub fn is_running(&self) -> bool {
        self.group().is_some_and(|group| killpg(group, None).is_ok())
    }

    /// Terminates the process group: SIGTERM, then SIGKILL.
    pub fn stop(&self) -> Result<()> {
        if let Some(group) = self.group() {
            // SIGTERM goes to the leader alone, which saves its state and then stops its children
            // itself.
            let _ = kill(group, Signal::SIGTERM);
            if wait_until(Duration::from_secs(10), || kill(group, None).is_err()).is_err() {
                let _ = kill(group, Signal::SIGKILL);
            }
            let _ = killpg(group, Signal::SIGKILL);
            wait_until(Duration::from_secs(5), || killpg(group, None).is_err())
                .with_context(|| format!("process group {group} did not end after SIGKILL"))?;
        }
        Ok(files::remove_if_exists(fs::remove_file(&self.pid_file))?)
    }

    fn group(&self) -> Option<Pid> {
        let text = fs::read_to_string(&self.pid_file).ok()?;
        let (pid, boot) = text.split_once('\n')?;
        // After a reboot, the process id may belong to another program.
        let pid: i32 = pid.parse().ok().filter(|pid| *pid > 1 && boot == boot_id())?;
        Some(Pid::from_raw(pid))
    }
}

/// The running children of a process; none without /proc.
pub fn children(parent: Pid) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_child = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // "pid (name) state ppid ...", and the name may contain any character.
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        after_name.split_whitespace().nth(1) == Some(&parent.to_string())
    };
    processes.filter(is_child).map(Pid::from_raw).collect()
}

/// An id that changes with each boot; empty if the system has none.
fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// Waits for a condition, polling every 50 ms.
pub fn wait_until(at_most: Duration, condition: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + at_most;
    while !condition() {
        if Instant::now() > deadline {
            bail!("timed out after {} s", at_most.as_secs());
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Fails if a program listens on the port; the error suggests another one.
pub fn ensure_free(port: u16, variable: &str, what: &str) -> Result<()> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(()),
        Err(error) => bail!(
            "port {port} for {what} is not free: {error}.\n\
             Stop the program that uses it, or choose another port: make up {variable}={}",
            if port < 65000 { port + 1 } else { port - 1000 }
        ),
    }
}

/// A port that is currently free.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An empty folder for this test, in target/.
    fn folder(test: &str) -> PathBuf {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../target/xtask-tests")
            .join(test);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder");
        folder
    }

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_goes_to_log_and_caller_line_by_line() {
        let log = folder("output").join("deep/log");
        let mut lines = Vec::new();
        let script = "echo one; printf '1/2\\r2/2\\r'; echo two >&2; printf 'not \\377 UTF-8'";
        run(&mut sh(script), &log, |line| lines.push(line.to_owned())).expect("it succeeds");
        assert_eq!(lines, ["one", "1/2", "2/2", "two", "not \u{fffd} UTF-8"]);
        assert_eq!(
            fs::read_to_string(log).expect("a log"),
            "one\ntwo\nnot \u{fffd} UTF-8\n"
        );
    }

    #[test]
    fn error_of_failed_program_has_last_lines_and_log() {
        let log = folder("failure").join("log");
        let error = run(&mut sh("seq 100; echo because >&2; exit 3"), &log, |_| {}).expect_err("it fails");
        let text = error.to_string();
        assert!(text.contains("exit status: 3") && text.ends_with("because"), "{text}");
        assert!(
            text.contains(&log.display().to_string()) && !text.contains("\n    70\n"),
            "{text}"
        );
    }

    #[test]
    fn program_beyond_its_time_limit_is_killed() {
        let log = folder("limit").join("log");
        let limit = Duration::from_secs(1);
        let started = Instant::now();
        let error = run_within(Some(limit), &mut sh("echo waiting; exec sleep 60"), &log, |_| {})
            .expect_err("it is killed")
            .to_string();
        assert!(started.elapsed() < Duration::from_secs(30));
        assert!(
            error.contains("did not end within 1 s") && error.ends_with("waiting"),
            "{error}"
        );

        let started = Instant::now();
        let limit = Some(Duration::from_secs(60));
        run_within(limit, &mut sh("echo done"), &log, |_| {}).expect("it succeeds");
        let error = run_within(limit, &mut sh("exit 3"), &log, |_| {}).expect_err("it fails");
        assert!(error.to_string().contains("failed (exit status: 3)"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(30), "it waits for the limit");
    }

    #[test]
    fn stopping_a_daemon_ends_its_children() {
        let folder = folder("daemon");
        let daemon = Daemon::new(folder.join("pid"));
        let script = format!("sleep 1000 & echo $! > {}; wait", folder.join("child").display());
        daemon.start(&mut sh(&script), &folder.join("log")).expect("it starts");
        wait_until(Duration::from_secs(5), || {
            fs::read_to_string(folder.join("child")).is_ok_and(|pid| pid.ends_with('\n'))
        })
        .expect("it has started its child");
        let child = fs::read_to_string(folder.join("child")).expect("a pid");
        let child = Pid::from_raw(child.trim().parse().expect("a number"));

        assert!(daemon.is_running() && kill(child, None).is_ok());
        daemon.stop().expect("it stops");
        assert!(!daemon.is_running());
        wait_until(Duration::from_secs(5), || kill(child, None).is_err()).expect("the child has ended");
        daemon.stop().expect("stopping twice succeeds");
    }

    #[test]
    fn stale_pid_file_is_not_running() {
        let folder = folder("stale");
        fs::write(folder.join("pid"), format!("{}\nanother boot", std::process::id())).expect("written");
        let daemon = Daemon::new(folder.join("pid"));
        assert!(!daemon.is_running());
        daemon.stop().expect("nothing to stop");
        assert!(!folder.join("pid").exists());
    }

    #[test]
    fn error_for_port_in_use_names_port_and_variable() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let text = ensure_free(port, "AWS_PORT", "the emulator")
            .expect_err("in use")
            .to_string();
        assert!(
            text.contains(&port.to_string()) && text.contains("make up AWS_PORT="),
            "{text}"
        );
        drop(listener);
        // A child that a test beside this one is starting has a copy of the socket until its exec.
        wait_until(Duration::from_secs(5), || {
            ensure_free(port, "AWS_PORT", "the emulator").is_ok()
        })
        .expect("free again");
    }
}
