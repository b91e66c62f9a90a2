//! What goes on during an incident: clients that create tasks, with a record of what the API
//! accepted, and the processes of the incident itself. It ends after four hours at the latest.

use std::{
    fs::{self, OpenOptions},
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use super::{
    State,
    live::{Db, now},
    policy::Senders,
    spec::{Process, Scene},
};

/// The numbers of tasks that the incident stores itself begin here; those of probes, at twice it.
pub const STORED: usize = 100_000;

/// How often a client creates a task.
const EVERY: Duration = Duration::from_secs(1);

/// How long all of it lasts at most: longer than any interview.
const LIMIT: Duration = Duration::from_secs(4 * 60 * 60);

/// The description of each task. Its words are what the processor counts.
const DESCRIPTION: &str = "Ship it by Monday";

/// A task of the incident, and the API's 201.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Accepted {
    pub number: usize,
    pub id: i64,
    pub at: u64,
    pub title: String,
    pub description: String,
}

/// A request that failed: 0 if there was no response.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Refused {
    pub at: u64,
    pub request: String,
    pub status: u16,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    Accepted(Accepted),
    Refused(Refused),
}

impl Accepted {
    pub fn new(scene: &Scene, number: usize) -> Self {
        Self {
            number,
            id: 0,
            at: now(),
            title: format!("Order {}-{number}", scene.run),
            description: DESCRIPTION.to_owned(),
        }
    }

    /// The result of the processor, as its `perform` defines it.
    pub fn result(&self) -> String {
        format!(
            "Processed \"{}\": {} words, {} characters",
            self.title,
            self.description.split_whitespace().count(),
            self.description.chars().count()
        )
    }

    /// Records the API's 201.
    pub fn accepted(self, scene: &Scene, id: i64) -> Result<Self> {
        let accepted = Self { id, at: now(), ..self };
        record(&scene.folder, &Event::Accepted(accepted.clone()))?;
        Ok(accepted)
    }
}

/// One line of JSON for each event.
fn file(folder: &Path) -> std::path::PathBuf {
    folder.join("traffic.jsonl")
}

fn record(folder: &Path, event: &Event) -> Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(file(folder))?;
    // One write, so that lines of two processes do not mix.
    Ok(file.write_all(format!("{}\n", serde_json::to_string(event)?).as_bytes())?)
}

/// What has happened so far.
pub fn events(folder: &Path) -> Result<Vec<Event>> {
    let text = match fs::read_to_string(file(folder)) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).context("the record of the traffic is not readable"),
    };
    // The last line may be incomplete.
    Ok(text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect())
}

/// The tasks that were accepted so far.
pub fn accepted(folder: &Path) -> Result<Vec<Accepted>> {
    let accepted = events(folder)?.into_iter().filter_map(|event| match event {
        Event::Accepted(task) => Some(task),
        Event::Refused(_) => None,
    });
    Ok(accepted.collect())
}

/// The mark that pauses the clients, while a grade waits for what they have created.
fn pause(folder: &Path) -> std::path::PathBuf {
    folder.join("paused")
}

/// Pauses the clients until the value is dropped.
pub struct Pause<'a>(&'a Path);

impl<'a> Pause<'a> {
    pub fn begin(folder: &'a Path) -> Result<Self> {
        fs::write(pause(folder), "")?;
        Ok(Self(folder))
    }
}

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(pause(self.0));
    }
}

/// The process behind an incident: runs until it is stopped, the incident's folder is deleted, or
/// four hours have passed.
pub fn run(folder: &Path) -> Result<()> {
    let State { scene, incident, .. } = State::read(folder)?.context("no incident is active")?;
    let started = Instant::now();
    for process in incident.meanwhile {
        let scene = scene.clone();
        thread::spawn(move || {
            if let Err(error) = go_on(&scene, &process) {
                eprintln!("{error:#}");
            }
        });
    }
    // If it is started again, its clients continue.
    let (mut number, mut last) = (next_number(&accepted(folder)?), None);
    while started.elapsed() < LIMIT && State::file(folder).exists() {
        if !pause(folder).exists() {
            let task = Accepted::new(&scene, number);
            // Otherwise the client repeats the request, with the same key.
            if let Some(accepted) = create(&scene, task)? {
                number += 1;
                last = Some(accepted.id);
            }
            if let Some(id) = last {
                request(&scene, &format!("GET /tasks/{id}"), &Value::Null, None)?;
            }
        }
        thread::sleep(EVERY);
    }
    Ok(())
}

/// The number of a client's next task.
fn next_number(accepted: &[Accepted]) -> usize {
    let of_clients = accepted
        .iter()
        .map(|task| task.number)
        .filter(|number| *number < STORED);
    of_clients.max().map_or(0, |last| last + 1)
}

/// Creates a task; none if the API does not accept it.
pub fn create(scene: &Scene, task: Accepted) -> Result<Option<Accepted>> {
    let body = json!({"title": task.title, "description": task.description});
    let key = task.title.replace(' ', "-").to_lowercase();
    let response = request(scene, "POST /tasks", &body, Some(&key))?;
    match response.as_ref().and_then(|task| task["id"].as_i64()) {
        Some(id) => task.accepted(scene, id).map(Some),
        None => Ok(None),
    }
}

/// A request of a client; its failure is recorded.
fn request(scene: &Scene, request: &str, body: &Value, key: Option<&str>) -> Result<Option<Value>> {
    let (status, response) = scene.live.api(request, body, key);
    if (200..300).contains(&status) {
        return Ok(Some(response));
    }
    let refused = Refused {
        at: now(),
        request: request.to_owned(),
        status,
    };
    record(&scene.folder, &Event::Refused(refused))?;
    Ok(None)
}

fn go_on(scene: &Scene, process: &Process) -> Result<()> {
    let url = |user: &str, name: &str| {
        let server = scene.fill("{server}");
        let (_, address) = server.rsplit_once('@').unwrap_or(("", &server));
        let name = name.replace(' ', "%20");
        format!("postgres://{user}@{address}/tasks?application_name={name}")
    };
    match process {
        Process::Session { user, name, statement } => {
            let mut session = Db::open(&url(user, name))?;
            session.execute(&scene.fill(statement))?;
            thread::sleep(LIMIT);
        }
        Process::Leak { user, name, when_full } => leak(scene, &url(user, name), when_full)?,
        Process::Proxy { milliseconds } => proxy(scene, Duration::from_millis(*milliseconds))?,
        Process::Sender {
            account,
            message,
            each_second,
        } => loop {
            if let Ok(Senders::Other) = Senders::of(&scene.live, account) {
                // The emulator may be restarting.
                let _ = scene.live.send_all(account, &scene.live.queue, message, *each_second);
            }
            thread::sleep(EVERY);
        },
    }
    Ok(())
}

/// Opens connections as long as it lives. When there are no more, and again a second later, it runs
/// a statement as the database's owner: also when someone has ended its sessions, and it has them
/// back.
fn leak(scene: &Scene, url: &str, when_full: &str) -> Result<()> {
    // One for all: each has several open files.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut leaked, mut refusals) = (Vec::new(), 0);
    loop {
        match runtime.block_on(PgConnection::connect(url)) {
            Ok(session) => {
                leaked.push(session);
                refusals = 0;
            }
            Err(_) => {
                refusals += 1;
                // Ended sessions would use up this process's open files.
                leaked.retain_mut(|session| runtime.block_on(session.ping()).is_ok());
                if refusals == 1 || refusals == 11 {
                    // Not while Postgres is restarted.
                    let _ = scene
                        .live
                        .database()
                        .and_then(|mut database| database.execute(when_full));
                }
                thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

/// Forwards connections to Postgres, and delays each response.
fn proxy(scene: &Scene, delay: Duration) -> Result<()> {
    let server = scene.fill("{server}");
    let (_, address) = server.rsplit_once('@').context("a server has an address")?;
    let listener = TcpListener::bind(("127.0.0.1", scene.proxy_port))?;
    for client in listener.incoming() {
        let client = client?;
        let Ok(server) = TcpStream::connect(address) else {
            continue;
        };
        let (from, to) = (client.try_clone()?, server.try_clone()?);
        thread::spawn(move || forward(from, to, Duration::ZERO));
        thread::spawn(move || forward(server, client, delay));
    }
    Ok(())
}

fn forward(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let mut buffer = [0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        thread::sleep(delay);
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
    let _ = from.shutdown(std::net::Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_back_without_incomplete_line() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/xtask-tests/traffic");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder");
        assert_eq!(events(&folder).expect("none yet"), []);
        let refused = Event::Refused(Refused {
            at: 1,
            request: "POST /tasks".to_owned(),
            status: 503,
        });
        record(&folder, &refused).expect("recorded");
        let mut file = OpenOptions::new().append(true).open(file(&folder)).expect("a file");
        file.write_all(b"{\"accepted\":{\"num").expect("written");
        assert_eq!(events(&folder).expect("read"), [refused]);
    }
}
