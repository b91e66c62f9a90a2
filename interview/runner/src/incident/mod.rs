//! `make incident`, `make cause` and `make incident-reset`: breaks the running stack of `make up`,
//! which the candidate repairs.
//!
//! An incident is data, `interview/incidents/<name>/`. Clients create tasks in the meantime, and a
//! trigger in Postgres logs what becomes of each; [`grade`] compares.

pub mod grade;
mod live;
pub mod proof;
mod restore;
mod spec;
mod traffic;

use std::{
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use xtask::{
    stack::{
        Stack,
        settings::{LocalAws, Settings},
    },
    tools::{
        process::{self, Daemon},
        terminal::Step,
    },
};

use live::{Live, now};
use spec::{CAUSES, INCIDENTS, Incident, Scene};

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
    /// When all checks passed for the first time.
    proved: Option<u64>,
    before: restore::Before,
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
            Ok(text) => Ok(Some(serde_json::from_str(&text).context("state.json is malformed")?)),
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

/// True if an incident is active on the stack of `make up`.
pub fn is_active(settings: &Settings) -> bool {
    State::file(&settings.root.join(".local/local/incident")).exists()
}

/// The stack of `make up`, if it may be broken.
fn local_stack(settings: &Settings) -> Result<Stack> {
    ensure!(
        settings.stack.is_none(),
        "STACK is set, but incidents break only the local stack; unset it: make … STACK="
    );
    let stack = Stack::started(settings)?;
    ensure!(
        stack.owns_postgres() && stack.settings.aws == LocalAws::Ministack,
        "incidents need the emulator and the Postgres of `make up`, which they can restore: not DATABASE_URL, not \
         AWS=localstack. To change back: make up AWS=ministack DATABASE_URL="
    );
    Ok(stack)
}

/// `make incident`
pub fn begin(settings: &Settings, name: Option<&str>) -> Result<()> {
    let names = spec::names(&settings.root);
    ensure!(
        !names.is_empty(),
        "there is no {INCIDENTS} here: incidents are started from the interviewer's branch, not within an exercise"
    );
    let Some(name) = name else {
        bail!(
            "no incident is named. For example: `make incident N=1`. {}",
            list(&names)
        );
    };
    // By number as well, since the name is all that a candidate sees of it.
    let numbered = name
        .parse()
        .ok()
        .and_then(|number: usize| names.get(number.checked_sub(1)?));
    let name = numbered.map_or(name, String::as_str);
    ensure!(
        names.iter().any(|known| known == name),
        "there is no incident {name:?}. {}",
        list(&names)
    );
    let incident = Incident::read(&settings.root, name)?;
    let stack = local_stack(settings)?;
    let lock = stack.lock()?;
    if let Some(active) = State::read(&folder(&stack))? {
        bail!(
            "the incident {} is active already; to end it and restore the stack: make incident-reset",
            active.name
        );
    }
    let state = start(&stack, name, incident)?;
    drop(lock);
    let brief = fs::read_to_string(settings.root.join(INCIDENTS).join(name).join("brief.md"))?;
    fs::write(state.scene.folder.join("brief.md"), &brief)?;
    announce(&state, &brief);
    Ok(())
}

fn list(names: &[String]) -> String {
    let numbered = names.iter().enumerate().map(|(at, name)| format!("{} {name}", at + 1));
    format!("Available: {}", numbered.collect::<Vec<_>>().join(", "))
}

fn announce(state: &State, brief: &str) {
    let Live {
        aws,
        database,
        queue,
        dead_letters,
        ..
    } = &state.scene.live;
    println!(
        "
{}

To look and to act (the stack is yours; everything is restored afterwards):

  Dashboard   {}/admin/dashboard
  Logs        make logs
  Postgres    psql {database}
  Messages    make dlq, make redrive
  AWS CLI     export AWS_ENDPOINT_URL={aws} AWS_REGION=us-east-1 AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test
  Queues      {queue}
              {dead_letters}

  make cause            the possible causes; IS=… EVIDENCE=\"…\" names one
  make grade            restored, nothing lost or doubled, cause named; as often as you like
  make incident-reset   end it and restore the stack
",
        brief.trim(),
        state.scene.live.api,
    );
}

/// Breaks a stack. The caller has its lock.
fn start(stack: &Stack, name: &str, incident: Incident) -> Result<State> {
    let step = Step::start("incident", "saving the state of the stack");
    let live = Live::of(stack)?;
    let folder = folder(stack);
    // Leftovers of an incident that could not begin.
    daemon(&folder).stop()?;
    xtask::tools::files::empty_folder(&folder)?;
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
        proved: None,
        before,
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
        let mut traffic = Command::new(std::env::current_exe()?);
        traffic.arg("incident-traffic").arg(&self.scene.folder);
        self.daemon()
            .start(&mut traffic, &self.scene.folder.join("traffic.log"))
    }
}

/// The active incident of the stack of `make up`.
fn active(settings: &Settings) -> Result<(Stack, State)> {
    let stack = local_stack(settings)?;
    let state = State::read(&folder(&stack))?;
    let state = state.context("no incident is active; to start one: make incident N=…")?;
    Ok((stack, state))
}

/// `make cause`
pub fn name_cause(settings: &Settings, cause: Option<&str>, evidence: Option<&str>) -> Result<()> {
    let (_, mut state) = active(settings)?;
    let Some(cause) = cause else {
        println!("\nPossible causes:\n");
        for (name, description) in CAUSES {
            println!("  {name:<24} {description}");
        }
        println!(
            "\nTo name one: make cause IS=<name> EVIDENCE=\"<what you saw that shows it: where, and which values>\"\n"
        );
        return Ok(());
    };
    state.name_cause(cause, evidence.unwrap_or_default())?;
    println!("Recorded. make grade checks it; another `make cause` replaces it.");
    Ok(())
}

impl State {
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

/// `make incident-reset`
pub fn reset(settings: &Settings) -> Result<()> {
    let (stack, state) = active(settings)?;
    let _lock = stack.lock()?;
    let record = settings
        .root
        .join(".local/incidents")
        .join(format!("{}-{}.json", state.name, state.began));
    fs::create_dir_all(record.parent().context("a folder")?)?;
    fs::write(&record, serde_json::to_string_pretty(&grade::times(&state))?)?;
    let remarks = restore::restore(&stack, &state)?;
    println!(
        "\nThe incident {} has ended. The stack is as it was before:",
        state.name
    );
    println!("a new task is processed, and the incident's tasks, messages and sessions are deleted.");
    for remark in remarks {
        println!("  ! {remark}");
    }
    println!("\n  Record   {}\n", record.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use xtask::stack::{functions::Profile, settings::StackSettings};

    use super::*;

    /// An empty project with one incident.
    fn settings(test: &str) -> Settings {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/xtask-tests/incidents");
        let root = root.join(test);
        let _ = fs::remove_dir_all(&root);
        let incident = root.join(INCIDENTS).join("no-results");
        fs::create_dir_all(&incident).expect("a folder");
        let definition = "cause = \"disabled-trigger\"\nevidence = []\nconvincing = \"\"\nremedy = []\n";
        fs::write(incident.join("incident.toml"), definition).expect("written");
        fs::write(incident.join("brief.md"), "# No results\n").expect("written");
        Settings {
            root,
            database_url: None,
            stack: None,
            sam_port: 0,
            yes: false,
            profile: Profile::Local,
        }
    }

    fn saved(aws: LocalAws, database_url: Option<&str>) -> StackSettings {
        StackSettings {
            aws,
            aws_port: process::free_port().expect("a port"),
            postgres_port: process::free_port().expect("a port"),
            database_url: database_url.map(str::to_owned),
            ..StackSettings::default()
        }
    }

    fn refusal(settings: &Settings, name: Option<&str>) -> String {
        let before = files(&settings.root);
        let refused = begin(settings, name).expect_err("it is refused").to_string();
        assert_eq!(files(&settings.root), before, "nothing is written");
        refused
    }

    /// All files except locks.
    fn files(folder: &Path) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.path() {
                path if path.is_dir() => files.extend(self::files(&path)),
                path if path.extension().is_some_and(|extension| extension == "lock") => {}
                path => files.push(path),
            }
        }
        files.sort();
        files
    }

    /// The state of an incident that has just begun.
    fn begun(settings: &Settings) -> State {
        let text = |text: &str| text.to_owned();
        State {
            name: text("no-results"),
            incident: Incident::read(&settings.root, "no-results").expect("a definition"),
            scene: Scene {
                live: serde_json::from_value(serde_json::json!({
                    "aws": "", "api": "", "token": "", "database": "", "queue": "", "dead_letters": "",
                    "mapping": "", "functions": {},
                }))
                .expect("a stack"),
                folder: settings.root.join(".local/local/incident"),
                run: text("1"),
                proxy_port: 1,
                versions: BTreeMap::new(),
            },
            began: 0,
            named: Vec::new(),
            proved: None,
            before: serde_json::from_value(serde_json::json!({"schema": {}, "settings": {}})).expect("a state"),
        }
    }

    #[test]
    fn incident_begins_on_running_local_stack_only() {
        let settings = settings("refusals");
        let unnamed = refusal(&settings, None);
        assert!(unnamed.ends_with("Available: 1 no-results"), "{unnamed}");
        for unknown in ["unknown", "0", "2"] {
            assert!(refusal(&settings, Some(unknown)).contains(&format!("{unknown:?}")));
        }
        assert!(refusal(&settings, Some("1")).contains("no stack was started"));
        let on_aws = Settings {
            stack: Some("task-api-prod".to_owned()),
            ..settings.clone()
        };
        assert!(refusal(&on_aws, Some("no-results")).contains("STACK is set"));
        let elsewhere = saved(LocalAws::Ministack, Some("postgres://elsewhere/tasks"));
        elsewhere.save(&settings.root).expect("saved");
        assert!(refusal(&settings, Some("no-results")).contains("not DATABASE_URL"));
        saved(LocalAws::Ministack, None).save(&settings.root).expect("saved");
        assert!(refusal(&settings, Some("no-results")).contains("is not running; start it: make up"));
    }

    #[test]
    fn second_incident_is_refused() {
        let settings = settings("second");
        saved(LocalAws::Ministack, None).save(&settings.root).expect("saved");
        assert!(!is_active(&settings));
        let state = begun(&settings);
        fs::create_dir_all(&state.scene.folder).expect("a folder");
        state.write().expect("written");
        assert!(is_active(&settings));
        let refused = refusal(&settings, Some("no-results"));
        assert!(
            refused.contains("no-results is active") && refused.contains("make incident-reset"),
            "{refused}"
        );
    }

    #[test]
    fn cause_needs_known_name_and_evidence() {
        let settings = settings("causes");
        let mut state = begun(&settings);
        fs::create_dir_all(&state.scene.folder).expect("a folder");
        for (cause, evidence) in [("unknown", "it is"), ("disabled-trigger", " ")] {
            state.name_cause(cause, evidence).expect_err("it is refused");
        }
        assert!(state.named.is_empty());
        state.name_cause("disabled-trigger", "its State").expect("recorded");
        let read = State::read(&state.scene.folder).expect("readable").expect("active");
        assert_eq!(read.named.len(), 1);
        assert_eq!(read.named[0].evidence, "its State");
    }
}
