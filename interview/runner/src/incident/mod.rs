//! Live incidents break the running stack of `make up`, which the candidate repairs.
//!
//! An incident is data, `interview/incidents/<name>/`. Clients create tasks in the meantime, and a
//! trigger in Postgres logs what becomes of each; [`grade`] compares.

pub mod commands;
mod grade;
mod history;
mod live;
mod policy;
pub mod proof;
mod restore;
pub mod spec;
mod times;
mod traffic;

use std::{
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use xtask::{
    stack::Stack,
    tools::{
        files,
        process::{self, Daemon},
        terminal::Step,
    },
};

use live::{Live, now};
use spec::{CAUSES, Incident, Scene};

use crate::report::Check;

pub use traffic::run as run_traffic;

/// An active incident.
#[derive(Deserialize, Serialize)]
pub struct State {
    name: String,
    incident: Incident,
    scene: Scene,
    /// When it began.
    began: u64,
    /// The causes that the candidate named.
    named: Vec<Named>,
    /// The first grade since when new tasks are processed.
    served: Option<u64>,
    /// When all checks passed for the first time.
    proved: Option<u64>,
    before: restore::Before,
    /// The id of its record. A proof has none.
    record: Option<String>,
}

/// A cause that the candidate named.
#[derive(Clone, Deserialize, Serialize)]
struct Named {
    at: u64,
    cause: String,
    evidence: String,
}

impl State {
    fn file(folder: &Path) -> PathBuf {
        folder.join("state.json")
    }

    fn read(folder: &Path) -> Result<Option<Self>> {
        match fs::read_to_string(Self::file(folder)) {
            Ok(text) => Ok(Some(serde_json::from_str(&text).context(
                "the state of the incident is not readable: another version of this kit began it, and can end it: make \
                 incident-reset",
            )?)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context("the state of the incident is not readable"),
        }
    }

    fn write(&self) -> Result<()> {
        let file = Self::file(&self.scene.folder);
        let new = file.with_extension("new");
        fs::write(&new, serde_json::to_string_pretty(self)?)?;
        Ok(fs::rename(new, file)?)
    }

    fn daemon(&self) -> Daemon {
        daemon(&self.scene.folder)
    }
}

fn daemon(folder: &Path) -> Daemon {
    Daemon::new(folder.join("traffic.pid"))
}

/// The folder of a stack's incident.
fn folder(stack: &Stack) -> PathBuf {
    stack.folder.join("incident")
}

/// Breaks a stack. The caller has its lock.
fn start(stack: &Stack, name: &str, incident: Incident) -> Result<State> {
    let step = Step::start("incident", "saving the state of the stack");
    let live = Live::of(stack)?;
    let folder = folder(stack);
    // Leftovers of an incident that could not begin.
    daemon(&folder).stop()?;
    files::empty_folder(&folder)?;
    let mut versions = BTreeMap::new();
    for function in live.functions.keys() {
        // The authorizer has no alias.
        if let Ok(version) = live.version(function) {
            versions.insert(function.clone(), version);
        }
    }
    let scene = Scene {
        run: format!("{:06x}", now() & 0xff_ffff),
        folder: folder.clone(),
        proxy_port: process::free_port()?,
        versions,
        live,
    };
    let before = restore::Before::save(stack, &scene)?;
    let mut state = State {
        name: name.to_owned(),
        incident,
        scene,
        began: now(),
        named: Vec::new(),
        served: None,
        proved: None,
        before,
        record: None,
    };
    // From here on a reset undoes everything.
    state.write()?;
    step.show("starting");
    let begun = state.begin();
    if let Err(error) = begun {
        let restored = restore::restore(stack, &state);
        return Err(match restored {
            Ok(_) => error.context("the incident could not begin; the stack is restored"),
            Err(worse) => error.context(format!("the incident could not begin, and: {worse:#}")),
        });
    }
    state.began = now();
    state.write()?;
    step.done("it has begun");
    Ok(state)
}

impl State {
    fn begin(&self) -> Result<()> {
        self.scene.run(&self.incident.breaking)?;
        self.start_traffic()
    }

    /// Starts the process behind the incident again if somebody has ended it: on AWS the clients, and
    /// what breaks the stack, are not on the candidate's machine. True if it had ended.
    fn go_on(&self) -> Result<bool> {
        let has_ended = !self.daemon().is_running();
        if has_ended {
            self.start_traffic()?;
        }
        Ok(has_ended)
    }

    fn start_traffic(&self) -> Result<()> {
        let mut traffic = Command::new(std::env::current_exe()?);
        traffic.arg("incident-traffic").arg(&self.scene.folder);
        self.daemon()
            .start(&mut traffic, &self.scene.folder.join("traffic.log"))
    }
}

impl State {
    /// Remembers what a grade has shown for the first time.
    fn graded(&mut self, checks: &[Check], at: u64) {
        let served = checks.iter().any(|check| check.name == grade::SERVED && check.passed());
        // New tasks may be served all the time, while those that had failed are not.
        let since = self.served.filter(|since| times::mitigated(self, *since).is_some());
        self.served = served.then(|| since.unwrap_or(at));
        if checks.iter().all(Check::passed) {
            self.proved = self.proved.or(Some(at));
        }
    }

    fn name_cause(&mut self, cause: &str, evidence: &str) -> Result<()> {
        ensure!(
            CAUSES.iter().any(|(known, _)| *known == cause),
            "there is no cause {cause:?}; the possible ones: make cause"
        );
        ensure!(
            !evidence.trim().is_empty(),
            "a cause needs evidence, what you saw that shows it: make cause IS={cause} EVIDENCE=\"…\""
        );
        self.named.push(Named {
            at: now(),
            cause: cause.to_owned(),
            evidence: evidence.to_owned(),
        });
        self.write()
    }
}
