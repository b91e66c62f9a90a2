//! An incident's definition, `interview/incidents/<name>/incident.toml`, and how its steps run.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    history,
    live::{Db, Live},
    policy::Senders,
    traffic::{self, Accepted, STORED},
};
use crate::{kit::INCIDENTS, words::is_mentioned};

/// The root causes from which the candidate chooses: those of the incidents, and plausible others.
pub const CAUSES: [(&str, &str); 14] = [
    (
        "account-concurrency",
        "other functions use up the account's concurrency",
    ),
    (
        "authorizer-keys",
        "the issuer's keys changed, and the authorizer refuses valid tokens",
    ),
    (
        "connection-leak",
        "a client leaks connections until Postgres refuses new ones",
    ),
    ("disabled-trigger", "the event source mapping does not poll the queue"),
    (
        "downstream-outage",
        "a service that the work needs was unavailable until retries were exhausted",
    ),
    (
        "forgotten-transaction",
        "a session holds a lock in a transaction that it never ends",
    ),
    (
        "incompatible-deployment",
        "a function was deployed that does not fit the database's schema",
    ),
    ("memory-leak", "a function runs out of memory and is terminated"),
    (
        "message-flood",
        "another sender floods the queue with malformed messages",
    ),
    ("missing-index", "a query scans the whole table"),
    ("queue-policy", "a policy denies the functions access to the queue"),
    ("retry-storm", "clients repeat failed requests without backoff"),
    (
        "slow-dependency",
        "each call of a dependency takes so long that the work times out",
    ),
    (
        "visibility-timeout",
        "the visibility timeout is shorter than the work, so work runs twice",
    ),
];

#[derive(Clone, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Incident {
    /// One of [`CAUSES`]
    pub cause: String,
    /// What convincing evidence mentions: words of each list. `#` is any number of two digits or more.
    pub evidence: Vec<Vec<String>>,
    /// Evidence that is convincing, for the proof.
    pub convincing: String,
    /// What breaks the stack, in order.
    #[serde(rename = "break", default)]
    pub breaking: Vec<Step>,
    /// What goes on until the reset, or until the candidate stops it.
    #[serde(default)]
    pub meanwhile: Vec<Process>,
    /// The reference remedy.
    pub remedy: Vec<Step>,
    /// Plausible wrong actions, for the proof.
    #[serde(default)]
    pub wrong: Vec<Wrong>,
    /// What is still there until it is repaired, also where somebody has worked around it.
    #[serde(default)]
    pub gone: Vec<Trace>,
    /// Statements that delete what the incident created, besides its tasks and its schema.
    #[serde(default)]
    pub undo: Vec<String>,
}

/// The incident that `N=…` names, by its name or number.
pub fn named(root: &Path, name: Option<&str>) -> Result<String> {
    let names = names(root);
    ensure!(
        !names.is_empty(),
        "there is no {INCIDENTS} here: incidents are started from the interviewer's branch, not within an exercise"
    );
    let numbered = names.iter().enumerate().map(|(at, name)| format!("{} {name}", at + 1));
    let list = format!("Available: {}", numbered.collect::<Vec<_>>().join(", "));
    let name = name.with_context(|| format!("no incident is named. For example: make incident N=1. {list}"))?;
    let number = name.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
    let found = match number.and_then(|at| names.get(at)) {
        Some(numbered) => Some(numbered),
        None => names.iter().find(|known| *known == name),
    };
    found
        .cloned()
        .with_context(|| format!("there is no incident {name:?}. {list}"))
}

/// Something that an operator, or a deployment, does once.
#[derive(Clone, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Step {
    Sql(String),
    SqlIn {
        database: String,
        statement: String,
    },
    /// A call of Lambda's API.
    Lambda {
        request: String,
        body: Value,
    },
    /// A call of SQS's API.
    Sqs {
        action: String,
        body: Value,
    },
    /// A new version of a function, with another environment variable.
    Variable {
        function: String,
        name: String,
        value: String,
    },
    /// Each function logs in as its own role, as on AWS.
    OwnRoles(bool),
    /// A function's alias points to the version from before the incident again.
    PreviousVersion(String),
    /// Tasks that failed, or were completed, and whose messages are in the dead-letter queue.
    DeadLetters {
        failed: usize,
        completed: usize,
        /// Why they failed, in turn.
        reasons: Vec<String>,
        #[serde(default)]
        malformed: Vec<String>,
    },
    /// Messages of another account are in a queue.
    Messages {
        queue: String,
        account: String,
        message: String,
        count: usize,
    },
    /// All messages of the dead-letter queue go back to the task queue, as with `make redrive`.
    Redrive(bool),
    /// Every accepted task is processed again, as with `POST /tasks/{id}/process`.
    Process(bool),
    /// The same of those that have failed.
    ProcessFailed(bool),
    /// Waits until a query returns a row.
    Await(String),
    /// Waits for some seconds.
    Pause(u64),
}

/// A trace of what broke the stack.
#[derive(Clone, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Trace {
    /// A query returns rows.
    Rows(String),
    /// The version of a function that callers get has this value.
    Variable {
        function: String,
        name: String,
        value: String,
    },
    /// Messages of accepted tasks are in the dead-letter queue.
    DeadLetters(bool),
    /// The task queue's policy lets this account send.
    Sender(String),
}

/// Something that goes on.
#[derive(Clone, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Process {
    /// A session that runs a statement, and then nothing.
    Session {
        user: String,
        name: String,
        statement: String,
    },
    /// A client that opens connections without closing them, and takes every one that is freed.
    Leak {
        user: String,
        name: String,
        when_full: String,
    },
    /// A proxy of Postgres that delays each response.
    Proxy { milliseconds: u64 },
    /// Another account that sends messages to the task queue, as long as the queue's policy lets it.
    Sender {
        account: String,
        message: String,
        each_second: usize,
    },
}

impl Incident {
    pub fn read(root: &Path, name: &str) -> Result<Self> {
        let file = root.join(INCIDENTS).join(name).join("incident.toml");
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let incident: Self = toml::from_str(&text).with_context(|| format!("{} is malformed", file.display()))?;
        ensure!(
            CAUSES.iter().any(|(cause, _)| *cause == incident.cause),
            "{} has an unknown cause",
            file.display()
        );
        Ok(incident)
    }

    /// True if the text mentions what it must, besides what `make cause` prints.
    pub fn is_evidence(&self, text: &str) -> bool {
        let mut text = text.to_lowercase();
        for printed in CAUSES.iter().flat_map(|(name, description)| [name, description]) {
            text = text.replace(printed, " ");
        }
        let mentions = |words: &Vec<String>| words.iter().any(|words| is_mentioned(&text, &words.to_lowercase()));
        self.evidence.iter().all(mentions)
    }

    /// Why what broke the stack is not gone, if it is not.
    pub fn remains(&self, scene: &Scene) -> Result<(), String> {
        for trace in &self.gone {
            match scene.is_there(trace) {
                Ok(None) => {}
                Ok(Some(reason)) => return Err(reason),
                Err(error) => return Err(format!("it cannot be seen: {error:#}")),
            }
        }
        Ok(())
    }
}

/// What a candidate might do wrong, and the check that fails then.
#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Wrong {
    /// What it is.
    pub action: String,
    /// The check.
    pub fails: String,
    pub steps: Vec<Step>,
}

/// The names of the incidents.
pub fn names(root: &Path) -> Vec<String> {
    let entries = fs::read_dir(root.join(INCIDENTS)).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(|entry| entry.path().join("incident.toml").exists())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// The stack and the incident's own objects, to which steps refer.
#[derive(Clone, Deserialize, Serialize)]
pub struct Scene {
    pub live: Live,
    /// The incident's folder.
    pub folder: PathBuf,
    /// Identifies the incident's tasks.
    pub run: String,
    /// The port of its proxy.
    pub proxy_port: u16,
    /// The functions' versions from before.
    pub versions: BTreeMap<String, String>,
}

impl Scene {
    /// A `like` pattern for the titles of the incident's tasks.
    pub fn titles(&self) -> String {
        format!("Order {}-%", self.run)
    }

    /// The text with the values of its placeholders.
    pub fn fill(&self, text: &str) -> String {
        let live = &self.live;
        let Live {
            database,
            queue,
            dead_letters,
            mapping,
            ..
        } = live;
        let (server, _) = database.rsplit_once('/').unwrap_or((database, ""));
        let (user, _) = server.rsplit_once(':').unwrap_or((server, ""));
        let proxy = format!("{user}:{}/tasks", self.proxy_port);
        [
            ("{server}", server),
            ("{proxy}", &proxy),
            ("{queue}", queue),
            ("{dead-letter-queue}", dead_letters),
            ("{mapping}", mapping),
            ("{processor}", live.function("task-processor").unwrap_or_default()),
            ("{titles}", &self.titles()),
        ]
        .into_iter()
        .fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
    }

    fn fill_all(&self, body: &Value) -> Result<Value> {
        Ok(serde_json::from_str(&self.fill(&body.to_string()))?)
    }

    pub fn run(&self, steps: &[Step]) -> Result<()> {
        steps.iter().try_for_each(|step| self.step(step))
    }

    /// Why a trace is still there, if it is. The reason does not say where to look.
    fn is_there(&self, trace: &Trace) -> Result<Option<String>> {
        let around = "new tasks may be processed in spite of it, but it is still there";
        let (is_there, reason) = match trace {
            Trace::Rows(query) => (
                !self.live.database()?.rows(&self.fill(query))?.is_empty(),
                around.to_owned(),
            ),
            Trace::Variable { function, name, value } => {
                let is_there = self.live.variable(function, name)? == self.fill(value);
                (is_there, around.to_owned())
            }
            Trace::DeadLetters(_) => {
                let accepted = traffic::accepted(&self.folder)?;
                let letters = history::tasks_of(&self.live.dead_letters()?);
                let left = accepted.iter().filter(|task| letters.contains(&task.id)).count();
                let reason = format!("the dead-letter queue has messages of accepted tasks: {left}");
                (left > 0, reason)
            }
            Trace::Sender(account) => {
                let senders = Senders::of(&self.live, account)?;
                let reason = match senders {
                    Senders::None => {
                        "the queue's policy denies the functions as well: on AWS they could not send".to_owned()
                    }
                    Senders::Other | Senders::Owner => around.to_owned(),
                };
                (senders != Senders::Owner, reason)
            }
        };
        Ok(is_there.then_some(reason))
    }

    fn step(&self, step: &Step) -> Result<()> {
        let live = &self.live;
        match step {
            Step::Sql(statement) => live.database()?.execute(&self.fill(statement)),
            Step::SqlIn { database, statement } => {
                Db::open(&self.fill(&format!("{{server}}/{database}")))?.execute(&self.fill(statement))
            }
            Step::Lambda { request, body } => live.lambda(&self.fill(request), &self.fill_all(body)?).map(drop),
            Step::Sqs { action, body } => live.sqs(action, &self.fill_all(body)?).map(drop),
            Step::Variable { function, name, value } => live.set_variable(function, name, &self.fill(value)),
            Step::OwnRoles(_) => self.own_roles(),
            Step::PreviousVersion(function) => {
                let version = self.versions.get(function).context("the function had a version")?;
                live.set_version(function, version)
            }
            Step::DeadLetters {
                failed,
                completed,
                reasons,
                malformed,
            } => {
                self.dead_letters(*failed, *completed, reasons)?;
                malformed
                    .iter()
                    .try_for_each(|body| live.send(&live.dead_letters, body))
            }
            Step::Messages {
                queue,
                account,
                message,
                count,
            } => live.send_all(account, &self.fill(queue), message, *count),
            Step::Redrive(_) => self.redrive(),
            Step::Process(_) => self.process(|_| true),
            Step::ProcessFailed(_) => {
                let failed = "select id from tasks where status = 'failed'";
                let rows = live.database()?.rows(failed)?;
                self.process(|id| rows.iter().any(|row| row["id"] == id))
            }
            Step::Await(query) => self.await_row(query),
            Step::Pause(seconds) => {
                thread::sleep(Duration::from_secs(*seconds));
                Ok(())
            }
        }
    }

    fn own_roles(&self) -> Result<()> {
        for function in self.versions.keys() {
            let role = self.live.variable(function, "DATABASE_ROLE")?;
            if !role.is_empty() {
                let url = self.fill(&format!("{{server}}/tasks?user={role}"));
                self.live.set_variable(function, "DATABASE_URL", &url)?;
            }
        }
        Ok(())
    }

    /// Stores tasks that an outage has failed, and duplicates of completed ones, with their
    /// messages in the dead-letter queue. They count as accepted.
    fn dead_letters(&self, failed: usize, completed: usize, reasons: &[String]) -> Result<()> {
        let mut database = self.live.database()?;
        let failure = |number: usize| {
            let reason = reasons.iter().cycle().nth(number).cloned();
            reason.context("tasks that failed have a reason")
        };
        for number in 0..failed + completed {
            let task = Accepted::new(self, STORED + number);
            let (status, result) = match number < failed {
                true => ("failed", failure(number)?),
                false => ("completed", task.result()),
            };
            database.execute(&format!(
                "insert into tasks (title, description, status, result, attempts, created_at, requested_at, enqueued_at,
                                    settled_at)
                 select '{}', '{}', '{status}', '{}', 5, at, at, at, at
                 from (select now() - interval '20 hours' as at) as yesterday",
                task.title,
                task.description,
                result.replace('\'', "''"),
            ))?;
            let stored = database.rows(&format!("select id from tasks where title = '{}'", task.title))?;
            let id = stored
                .first()
                .and_then(|row| row["id"].as_i64())
                .context("a task has an id")?;
            task.accepted(self, id)?;
            self.live
                .send(&self.live.dead_letters, &json!({"task_id": id}).to_string())?;
        }
        Ok(())
    }

    /// As `make redrive` does with the emulator: malformed messages come back later.
    fn redrive(&self) -> Result<()> {
        let live = &self.live;
        let waiting = live.dead_letters()?.len();
        let mut moved = 0;
        while moved < waiting {
            let received = live.receive(&live.dead_letters, 20)?;
            ensure!(!received.is_empty(), "the dead-letter queue became empty");
            for message in received {
                live.send(&live.queue, message["Body"].as_str().unwrap_or_default())?;
                let body = json!({"QueueUrl": live.dead_letters, "ReceiptHandle": message["ReceiptHandle"]});
                live.sqs("DeleteMessage", &body)?;
                moved += 1;
            }
        }
        Ok(())
    }

    fn process(&self, is_meant: impl Fn(i64) -> bool) -> Result<()> {
        let accepted = traffic::accepted(&self.folder)?.into_iter();
        for task in accepted.filter(|task| is_meant(task.id)) {
            let request = format!("POST /tasks/{}/process", task.id);
            let (status, response) = self.live.api(&request, &Value::Null, None);
            // One that is being processed is refused.
            ensure!(
                matches!(status, 200..300 | 409),
                "{request} fails with {status}: {response}"
            );
        }
        Ok(())
    }

    fn await_row(&self, query: &str) -> Result<()> {
        let mut database = self.live.database()?;
        for _ in 0..100 {
            if !database.rows(&self.fill(query))?.is_empty() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(100));
        }
        bail!("no row within 10 s: {query}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

    #[test]
    fn every_incident_is_complete() {
        let root = Path::new(ROOT);
        let names = names(root);
        // Within an exercise there are none.
        assert!(names.len() >= 5 || !root.join(INCIDENTS).exists(), "{names:?}");
        for name in names {
            let incident = Incident::read(root, &name).expect("a definition");
            assert!(incident.evidence.len() >= 2, "{name}: two observations");
            assert!(incident.is_evidence(&incident.convincing), "{name}");
            assert!(
                !incident.is_evidence(&incident.cause),
                "{name}: a name alone is no evidence"
            );
            let file =
                |file: &str| fs::read_to_string(root.join(INCIDENTS).join(&name).join(file)).expect("it is there");
            let (brief, notes) = (file("brief.md"), file("notes.md"));
            for document in [&brief, &notes] {
                assert_eq!(support::documents::wrong_targets(document), [""; 0], "{name}");
            }
            for section in ["Alarm", "What users say"] {
                assert!(brief.contains(&format!("\n## {section}\n")), "{name}: {section}");
            }
            for section in ["Cause", "Good paths", "Wrong turns", "Levels"] {
                assert!(notes.contains(&format!("\n## {section}\n")), "{name}: {section}");
            }
            assert!(!incident.is_evidence(&brief), "{name}: the brief is no evidence");
            for (cause, description) in CAUSES {
                assert!(
                    !brief.contains(cause) && !brief.contains(description),
                    "{name} names {cause}"
                );
            }
        }
    }

    /// What candidates write: what convinces, and what says nothing that an alarm or `make cause` does
    /// not say.
    const EVIDENCE: [(&str, &[&str], &[&str]); 7] = [
        (
            "no-results",
            &[
                "dashboard: Processing is paused",
                "GET /admin/processing has paused: true",
                "list-event-source-mappings: \"State\": \"Disabled\"",
                "the trigger of the task-processor is disabled, 400 visible messages, 0 in flight",
            ],
            &[
                "disabled-trigger: the event source mapping does not poll the queue",
                "messages are visible and never received",
                "maintenance disabled something",
            ],
        ),
        (
            "no-writes",
            &[
                "pg_stat_activity: backfill, idle in transaction since 10:02",
                "pid 4242 blocks all others with a ShareRowExclusiveLock on tasks",
            ],
            &[
                "a session idle in transaction holds a lock",
                "canceling statement due to lock timeout",
            ],
        ),
        (
            "refused-requests",
            &[
                "97 of 100 sessions belong to reports",
                "pg_stat_activity is full of nightly report",
            ],
            &[
                "user reports of refused connections",
                "remaining connection slots are reserved",
            ],
        ),
        (
            "stuck-orders",
            &[
                "task-processor: DATABASE_URL has another port, the invocation times out",
                "only the processor connects through a proxy; each statement takes 0.9 s",
            ],
            &[
                "Support says it is slow",
                "503 since the processor was deployed",
                "the processor times out",
            ],
        ),
        (
            "unnoticed-failures",
            &[
                "1600 malformed messages, SenderId 222222222222, 4 more each second",
                "statement WarehouseImport of the queue's policy; missing field `task_id`",
                "another sender floods the queue with malformed messages: {\"parcel\": 17} from 222222222222",
            ],
            &[
                "another sender floods the queue with malformed messages",
                "the dead-letter queue is full of malformed messages",
                "account 222222222222 may send to the queue",
            ],
        ),
        (
            "unreadable-orders",
            &["GET /tasks/{id}: column t.attempts does not exist; the function's alias has a newer version"],
            &["get-task was deployed", "GET /tasks/{id} is a 500"],
        ),
        (
            "yesterdays-failures",
            &[
                "make dlq: 12 failed, connection refused by payments.internal",
                "admin/failures: 12 x connection refused by payments.internal",
            ],
            &[
                "the dead-letter queue has messages; retries were exhausted",
                "12 orders have failed",
            ],
        ),
    ];

    #[test]
    fn evidence_is_an_observation() {
        let root = Path::new(ROOT);
        if !root.join(INCIDENTS).exists() {
            return;
        }
        for (name, convincing, vague) in EVIDENCE {
            let incident = Incident::read(root, name).expect("a definition");
            for evidence in convincing {
                assert!(incident.is_evidence(evidence), "{name}: {evidence}");
            }
            for evidence in vague {
                assert!(!incident.is_evidence(evidence), "{name}: {evidence}");
            }
        }
        assert_eq!(EVIDENCE.map(|(name, _, _)| name).to_vec(), names(root));
    }

    #[test]
    fn evidence_must_mention_every_observation() {
        let root = Path::new(ROOT);
        for name in names(root) {
            let incident = Incident::read(root, &name).expect("a definition");
            for missing in &incident.evidence {
                let mut text = incident.convincing.to_lowercase();
                for word in missing {
                    text = match word.as_str() {
                        "#" => text.replace(|character: char| character.is_ascii_digit(), ""),
                        word => text.replace(&word.to_lowercase(), ""),
                    };
                }
                assert!(!incident.is_evidence(&text), "{name} without {missing:?}");
            }
        }
    }
}
