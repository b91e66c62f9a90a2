//! `make incident`, `make cause`, `make incident-reset`, and `make grade` and `make hint` during an
//! incident.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use xtask::{
    stack::{
        Stack,
        settings::{LocalAws, Settings},
    },
    tools::{
        files,
        terminal::{self, Step},
    },
};

use super::{
    State, grade,
    live::Live,
    restore,
    spec::{self, CAUSES, Incident},
    start,
    times::times,
};
use crate::{
    exercises::ActiveExercise,
    git::Git,
    kit::INCIDENTS,
    record::{self, Event, Record, Start},
    report::{self, Check},
};

/// How long a grade waits for accepted tasks: a visibility timeout and a little.
const SETTLE: Duration = Duration::from_secs(25);

/// How long evidence may be, in characters.
const MAX_EVIDENCE: usize = 1_000;

/// Who plays, and for how long, if it is a session.
#[derive(Clone, Copy, Default)]
pub struct Player<'a> {
    pub candidate: Option<&'a str>,
    pub minutes: Option<u32>,
}

/// The incident in progress on the stack of `make up`, whether or not that is running.
pub fn in_progress(root: &Path) -> Result<Option<State>> {
    State::read(&root.join(".local/local/incident"))
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

/// The incident in progress, and its stack.
fn active(settings: &Settings) -> Result<(Stack, State)> {
    let state = state(&settings.root)?;
    Ok((local_stack(settings)?, state))
}

fn state(root: &Path) -> Result<State> {
    in_progress(root)?.context("no incident is in progress; to start one: make incident N=<name>")
}

fn ensure_none(root: &Path) -> Result<()> {
    if let Some(state) = in_progress(root)? {
        bail!(
            "the incident {} is in progress.\n\
             To read its brief again:   make incident\n\
             To end it first:           make incident-reset",
            state.name
        );
    }
    Ok(())
}

/// `make incident`: breaks the stack, prints the brief, and returns the id of the record.
pub fn begin(settings: &Settings, name: Option<&str>, player: Player) -> Result<String> {
    let name = spec::named(&settings.root, name)?;
    ensure_none(&settings.root)?;
    let incident = Incident::read(&settings.root, &name)?;
    let brief = fs::read_to_string(settings.root.join(INCIDENTS).join(&name).join("brief.md"))?;
    let stack = local_stack(settings)?;
    let git = Git::open(&settings.root)?;
    let kit = git.commit("HEAD").context("there is no commit yet")?;
    let lock = stack.lock()?;
    // Another command may have begun one while this one waited.
    ensure_none(&settings.root)?;
    let mut state = start(&stack, &name, incident)?;
    drop(lock);
    fs::write(state.brief(), &brief)?;
    let id = state.record_start(&git, &kit, player)?.id;
    announce(&state, &brief);
    Ok(id)
}

/// `make incident` without a name: the brief of the incident in progress, or else an error with the
/// list.
pub fn show_or_begin(settings: &Settings, name: Option<&str>) -> Result<()> {
    match (name, in_progress(&settings.root)?) {
        (None, Some(state)) => {
            let brief = fs::read_to_string(state.brief())
                .context("the incident was interrupted while it began; to restore the stack: make incident-reset")?;
            announce(&state, &brief);
            Ok(())
        }
        _ => begin(settings, name, Player::default()).map(drop),
    }
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

The stack is yours; everything is restored afterwards. To look and to act:

  Dashboard   {}/admin/dashboard
  Logs        make logs
  Postgres    psql {database}
  Messages    make dlq, make redrive
  AWS CLI     export AWS_DEFAULT_REGION=us-east-1 AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test
              alias aws='aws --endpoint-url {aws}'
  Queues      {queue}
              {dead_letters}

  make cause            the possible causes; IS=… EVIDENCE=\"…\" names one
  make grade            repaired, nothing lost or doubled, cause named; as often as you like
  make hint             the next of three hints
  make incident         this page again
  make incident-reset   end it and restore the stack
",
        brief.trim(),
        state.scene.live.api,
    );
}

impl State {
    /// What an incident is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The id of its record.
    pub fn record(&self) -> Option<&str> {
        self.record.as_deref()
    }

    fn brief(&self) -> PathBuf {
        self.scene.folder.join("brief.md")
    }

    /// The files of an event: the brief, and the report of a grade.
    fn tree(&self, git: &Git, report: Option<&str>) -> Result<String> {
        let index = git.index()?;
        index.add("brief.md", &fs::read_to_string(self.brief())?)?;
        if let Some(report) = report {
            index.add("report.txt", report)?;
        }
        index.tree()
    }

    /// Starts its record.
    fn record_start<'a>(&mut self, git: &'a Git, kit: &str, player: Player) -> Result<Record<'a>> {
        let start = Start {
            exercise: self.name.clone(),
            kit: kit.to_owned(),
            start: kit.to_owned(),
            candidate: player.candidate.map(str::to_owned),
            minutes: player.minutes,
            incident: true,
        };
        let record = Record::start(git, start, &self.tree(git, None)?)?;
        self.record = Some(record.id.clone());
        self.write()?;
        Ok(record)
    }

    /// Adds an event to its record. One that cannot be recorded fails nothing else.
    fn add<'a>(&self, git: &'a Git, event: Event, report: Option<&str>) -> Option<Record<'a>> {
        let added = || {
            let id = self.record().context("it has no record")?;
            let mut record = Record::open(git, id)?;
            record.add(&self.tree(git, report)?, event)?;
            Ok(record)
        };
        let added: Result<Record> = added();
        added
            .inspect_err(|error| terminal::say(&format!("  ✗ record     this was not recorded: {error:#}")))
            .ok()
    }
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
    let evidence = on_one_line(evidence.unwrap_or_default())?;
    state.name_cause(cause, &evidence)?;
    let event = Event::Cause {
        cause: cause.to_owned(),
        evidence,
    };
    state.add(&Git::open(&settings.root)?, event, None);
    println!("Named: {cause}. make grade checks it; naming another one replaces it.");
    Ok(())
}

/// What a candidate has seen, as the record and the replay show it.
fn on_one_line(text: &str) -> Result<String> {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    ensure!(
        !line.chars().any(char::is_control),
        "EVIDENCE has control characters: leave colors out"
    );
    ensure!(
        line.chars().count() <= MAX_EVIDENCE,
        "EVIDENCE has more than {MAX_EVIDENCE} characters: say in your words what shows it"
    );
    Ok(line)
}

/// True if `make grade` and `make hint` are about the incident in progress: it is named, or no
/// exercise is checked out.
pub fn is_current(root: &Path, git: &Git, name: Option<&str>) -> Result<bool> {
    let state = in_progress(root)?;
    Ok(state.is_some_and(|state| match name {
        Some(name) => name == state.name,
        None => ActiveExercise::find(git, None).is_err(),
    }))
}

/// The record of the incident in progress, and its files, if `make hint` is about it.
pub fn current<'a>(root: &Path, git: &'a Git) -> Result<Option<(Record<'a>, String)>> {
    if !is_current(root, git, None)? {
        return Ok(None);
    }
    let state = in_progress(root)?.context("the incident has ended in the meantime")?;
    let id = state.record().context("the incident has no record")?;
    Ok(Some((Record::open(git, id)?, state.tree(git, None)?)))
}

/// `make grade` during an incident. Fails if a check does; `write` also gets the checks.
pub fn grade(settings: &Settings, git: &Git, write: impl FnOnce(&str, &[Check]) -> Result<()>) -> Result<()> {
    let (stack, state) = active(settings)?;
    ensure!(
        stack.aws_is_running()?,
        "the local stack is not running.\n\
         To start it as it was left:      make up\n\
         To end the incident, restored:   make incident-reset"
    );
    let started = Instant::now();
    let _lock = files::lock(&state.scene.folder.join("grade.lock"), || {
        terminal::say("  … waiting    for another make grade");
    })?;
    if state.go_on()? {
        terminal::say("  • clients    had ended, with the process behind the incident; started again");
    }
    let step = Step::start("checks", "creating tasks, and waiting for those that were accepted");
    let (checks, at) = grade::checks(&state, SETTLE)?;
    step.done("the stack is checked");
    // A cause may have been named in the meantime.
    let mut state = State::read(&state.scene.folder)?.context("the incident has ended in the meantime")?;
    state.graded(&checks, at);
    state.write()?;
    let times = times(&state);
    let report = format!("{}\n{}\n", report::of_checks(&checks), times.describe());
    println!("\n{}\n\n{report}", state.name);
    let event = Event::Grade {
        checks: record::outcomes(&checks),
        hints: state
            .record()
            .and_then(|id| Some(Record::open(git, id).ok()?.hints()))
            .unwrap_or_default(),
        tests_added: None,
        times: Some(times),
        seconds: started.elapsed().as_secs_f64().round(),
    };
    if let Some(record) = state.add(git, event, Some(&report)) {
        record.say_graded();
    }
    write(&state.name, &checks)?;
    let failed = checks.iter().filter(|check| !check.passed()).count();
    ensure!(failed == 0, "{failed} of {} checks failed", checks.len());
    terminal::say("  • next       to end the incident and restore the stack: make incident-reset");
    Ok(())
}

/// `make incident-reset`
pub fn reset(settings: &Settings) -> Result<()> {
    let (stack, _) = active(settings)?;
    let _lock = stack.lock()?;
    // Again: another reset may have ended it while this one waited.
    let state = state(&settings.root)?;
    let git = Git::open(&settings.root)?;
    let remarks = restore::restore(&stack, &state)?;
    println!(
        "\nThe incident {} has ended. The stack is as it was before: a new task is processed, and the incident's
tasks, messages and sessions are deleted.",
        state.name
    );
    for remark in remarks {
        println!("  ! {remark}");
    }
    if let Some(id) = &state.record {
        let ended = Record::open(&git, id).and_then(|mut record| {
            let last = record.entries.last().context("it is empty")?;
            let tree = git.run(["rev-parse", &format!("{}^{{tree}}", last.commit)])?;
            record.add(&tree, Event::End)
        });
        if let Err(error) = ended {
            terminal::say(&format!("  ✗ record     the end was not recorded: {error:#}"));
        }
        println!("\nWhat happened in it, to read or hand over: make replay S={id}\n");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use xtask::{
        stack::{functions::Profile, settings::StackSettings},
        tools::process,
    };

    use super::{super::spec::Scene, *};
    use crate::exercises::tests::run;

    /// An empty project with one incident.
    fn settings(test: &str) -> Settings {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/xtask-tests/incidents");
        let root = root.join(test);
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).expect("a folder");
        run(&root, &["init", "--quiet"]);
        run(&root, &["commit", "--quiet", "--allow-empty", "--message", "all"]);
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
        let refused = begin(settings, name, Player::default())
            .expect_err("it is refused")
            .to_string();
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
            served: None,
            proved: None,
            record: None,
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
        assert!(in_progress(&settings.root).is_ok_and(|state| state.is_none()));
        let state = begun(&settings);
        fs::create_dir_all(&state.scene.folder).expect("a folder");
        state.write().expect("written");
        assert!(in_progress(&settings.root).is_ok_and(|state| state.is_some()));
        let refused = refusal(&settings, Some("no-results"));
        assert!(
            refused.contains("no-results is in progress") && refused.contains("make incident-reset"),
            "{refused}"
        );
    }

    #[test]
    fn incident_is_recorded_like_an_exercise() {
        let settings = settings("recorded");
        let root = &settings.root;
        let hints = "# No results: hints\n\n## Hint 1: where\n\nThere.\n";
        fs::write(root.join(INCIDENTS).join("no-results/hints.md"), hints).expect("written");
        fs::write(root.join(".gitignore"), "/.local/\n").expect("written");
        run(root, &["add", "--all"]);
        run(root, &["commit", "--quiet", "--message", "hints"]);
        let git = Git::open(root).expect("a repository");
        assert!(!is_current(root, &git, None).expect("known"), "before it begins");
        let mut state = begun(&settings);
        fs::create_dir_all(&state.scene.folder).expect("a folder");
        fs::write(state.brief(), "# No results\n").expect("written");
        let kit = run(root, &["rev-parse", "HEAD"]);
        let started = state.record_start(&git, &kit, Player::default());
        let id = started.expect("it is recorded").id;
        assert!(is_current(root, &git, None).expect("known"));
        assert!(is_current(root, &git, Some("no-results")).expect("known"));
        assert!(!is_current(root, &git, Some("lost-messages")).expect("known"));

        crate::hint::run(root).expect("a hint");
        let cause = Event::Cause {
            cause: "disabled-trigger".to_owned(),
            evidence: "its State".to_owned(),
        };
        state.add(&git, cause.clone(), Some("a report\n")).expect("it is added");
        let record = Record::open(&git, &id).expect("it is read");
        assert!(record.start.incident && record.is_open());
        assert_eq!(record.hints(), 1);
        let last = record.entries.last().expect("an entry");
        assert_eq!(last.event, cause);
        assert_eq!(git.file(&last.commit, "brief.md").as_deref(), Some("# No results\n"));
        assert_eq!(git.file(&last.commit, "report.txt").as_deref(), Some("a report\n"));
        assert_eq!(
            run(root, &["status", "--porcelain"]),
            "",
            "the working tree is left alone"
        );
    }

    #[test]
    fn exercise_does_not_start_during_an_incident() {
        let folder = crate::exercises::tests::repository("during-an-incident");
        let settings = Settings {
            root: folder.clone(),
            ..settings("during-an-incident")
        };
        let begin = || crate::exercises::begin(&settings, Some("broken"));
        let state = State {
            scene: Scene {
                folder: folder.join(".local/local/incident"),
                ..begun(&self::settings("other")).scene
            },
            ..begun(&self::settings("other"))
        };
        fs::create_dir_all(&state.scene.folder).expect("a folder");
        state.write().expect("written");
        let refused = begin().expect_err("it is refused").to_string();
        assert!(refused.contains("no-results is in progress") && refused.contains("make incident-reset"));
        fs::remove_dir_all(&state.scene.folder).expect("deleted");
        begin().expect("it begins");
    }

    #[test]
    fn evidence_is_one_printable_line() {
        let line = |text: &str| on_one_line(text).map_err(|error| error.to_string());
        assert_eq!(line(" State:\n\tDisabled ").as_deref(), Ok("State: Disabled"));
        assert!(line("\u{1b}[2J").is_err_and(|error| error.contains("control characters")));
        assert!(line(&"ä".repeat(1_000)).is_ok());
        assert!(line(&"ä".repeat(1_001)).is_err_and(|error| error.contains("1000 characters")));
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
