//! Instruction counts of the deployed binaries under valgrind, which show a regression however slow
//! or busy the machine is. `make bench-counts` records the expected counts.
//!
//! Remaining variance: how often a response arrives in two segments and, across machines, which
//! variants of memchr's and ring's code the CPU supports (valgrind's has no AVX-512). On one
//! machine counts vary by less than 2%; hence the tolerance.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicI64, Ordering},
};

use harness::{
    AMPLE_TIME, LambdaHost, events,
    instructions::{Count, count},
};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{TestQueue, env, execute, functions::FUNCTIONS, settings};

/// The recorded counts, for each CPU architecture and function.
const FILE: &str = "release/instructions.toml";

/// The header of the file.
const COMMENT: &str = "\
# Instructions of the functions themselves, without the C library: from the start to the first
# response (cold), and for each further request (warm). Recorded by `make bench-counts`, verified by
# tests/release/instructions.rs.

";

/// The permitted deviation in percent.
const TOLERANCE: u64 = 5;

/// Functions whose first request calls SQS. valgrind is so slow that the attempt may exceed its
/// timeout of 400 ms, and be repeated: a fifth more instructions.
const CALLING_SQS: [&str; 3] = ["admin-status", "create-task", "process-task"];

/// The permitted deviation of their cold start in percent.
const CALLING_SQS_TOLERANCE: u64 = 25;

/// How often a function may be counted until it is within the tolerance. Valgrind slows it down so
/// much that on a busy machine a request to SQS or Postgres may time out and be retried, which
/// changes the count.
const ATTEMPTS: usize = 3;

/// The number of tasks. Every request that changes a task needs its own: 858 for all attempts.
const TASKS: i64 = 1000;

/// The functions whose instructions are counted, in alphabetical order, with their sample events.
fn counted() -> impl Iterator<Item = (&'static str, &'static str)> {
    let functions = FUNCTIONS.iter();
    functions.filter_map(|function| Some((function.name, function.sample_event?)))
}

type Counts = BTreeMap<String, Count>;

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn requests_take_the_recorded_instructions(pool: PgPool) {
    let functions = Functions::new(&pool).await;
    let text = fs::read_to_string(FILE).unwrap_or_default();
    let mut all: BTreeMap<String, Counts> = toml::from_str(&text).expect("counts");
    if std::env::var_os("WRITE_INSTRUCTIONS").is_some() {
        all.insert(std::env::consts::ARCH.to_owned(), functions.typical().await);
        let counts = toml::to_string(&all).expect("numbers are TOML");
        return fs::write(FILE, format!("{COMMENT}{counts}")).expect("written");
    }
    let Some(expected) = all.get(std::env::consts::ARCH) else {
        return eprintln!(
            "no counts for {}; to record them: make bench-counts",
            std::env::consts::ARCH
        );
    };
    assert!(
        expected.keys().eq(counted().map(|(name, _)| name)),
        "the recorded functions differ; to record again: make bench-counts"
    );
    let mut wrong = Vec::new();
    for ((function, sample), expected) in counted().zip(expected.values()) {
        let mut attempts = Vec::new();
        while attempts.len() < ATTEMPTS {
            let counted = functions.count(function, sample).await;
            if counted
                .as_ref()
                .is_ok_and(|counted| is_within_tolerance(function, counted, expected))
            {
                break;
            }
            attempts.push(counted);
        }
        if attempts.len() == ATTEMPTS {
            wrong.push(format!("{function}: counted {attempts:?}, recorded {expected:?}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "more than {TOLERANCE}% off; if intended, record again with make bench-counts:\n{}",
        wrong.join("\n")
    );
}

fn is_within_tolerance(function: &str, counted: &Count, expected: &Count) -> bool {
    let cold = if CALLING_SQS.contains(&function) {
        CALLING_SQS_TOLERANCE
    } else {
        TOLERANCE
    };
    [
        (counted.cold, expected.cold, cold),
        (counted.warm, expected.warm, TOLERANCE),
    ]
    .into_iter()
    .all(|(counted, expected, tolerance)| counted.abs_diff(expected) * 100 <= expected * tolerance)
}

/// The functions with their database and queues.
struct Functions {
    host: LambdaHost,
    reports: PathBuf,
    last_task: AtomicI64,
}

impl Functions {
    async fn new(pool: &PgPool) -> Self {
        let tasks = format!(
            "insert into tasks (title, description, enqueued_at)
             select 'Process user data', 'Count the words of this', now() from generate_series(1, {TASKS})"
        );
        execute(pool, &tasks).await;
        execute(pool, "vacuum analyze tasks").await;
        let (queue, dead_letters) = (TestQueue::create().await, TestQueue::create().await);
        let options = pool.connect_options();
        let database = options.get_database().expect("a test has its own database");
        let (host, port) = (options.get_host(), options.get_port());
        let roots = fs::canonicalize("../shared/core/rds-ca/rds-ca.pem").expect("certificates");
        let variables = [
            ("AUTH", "closed"),
            ("AWS_ENDPOINT_URL", &env("AWS_ENDPOINT_URL")),
            ("DATABASE_URL", &format!("postgres://postgres@{host}:{port}/{database}")),
            ("DEAD_LETTER_QUEUE_URL", dead_letters.url()),
            ("QUEUE_URL", queue.url()),
            // Instead of the machine's trust roots, which differ between systems.
            ("SSL_CERT_FILE", roots.to_str().expect("a path of text")),
        ];
        let reports = Path::new("../target/instructions");
        fs::create_dir_all(reports).expect("a folder");
        Self {
            host: LambdaHost {
                functions: fs::canonicalize("../target/lambda").expect("`make test` has built the functions"),
                variables: variables
                    .into_iter()
                    .chain(settings::ENVIRONMENT)
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect(),
                time: AMPLE_TIME,
            },
            reports: fs::canonicalize(reports).expect("a folder"),
            last_task: AtomicI64::new(0),
        }
    }

    async fn count(&self, function: &str, sample: &str) -> Result<Count, String> {
        let event = || self.event(sample);
        let counted = count(&self.host, env("VALGRIND").as_ref(), &self.reports, function, event).await;
        counted.map_err(|error| format!("{error:#}"))
    }

    /// The medians of several attempts.
    async fn typical(&self) -> Counts {
        let mut typical = Counts::new();
        for (function, sample) in counted() {
            let mut attempts = Vec::new();
            for _ in 0..ATTEMPTS {
                let counted = self.count(function, sample).await;
                attempts.push(counted.unwrap_or_else(|error| panic!("{function}: {error}")));
            }
            let median = |kind: fn(&Count) -> u64| {
                let mut counts: Vec<u64> = attempts.iter().map(kind).collect();
                counts.sort_unstable();
                counts[ATTEMPTS / 2]
            };
            let (cold, warm) = (median(|count| count.cold), median(|count| count.warm));
            typical.insert(function.to_owned(), Count { cold, warm });
        }
        typical
    }

    fn next_task(&self) -> i64 {
        self.last_task.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A sample event: for the last task if it only reads, otherwise for a task of its own.
    fn event(&self, sample: &str) -> Value {
        let Some((method, path)) = sample.split_once(' ') else {
            return events::sqs(&std::array::from_fn::<i64, 10, _>(|_| self.next_task()));
        };
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let id = path.contains("{id}").then(|| match method {
            "GET" => TASKS,
            _ => self.next_task(),
        });
        let path = id
            .iter()
            .fold(path.to_owned(), |path, id| path.replace("{id}", &id.to_string()));
        let event = events::rest(method, &path, id);
        let event = match query.split_once('=') {
            Some((name, value)) => events::with_query(event, name, value),
            None => event,
        };
        match sample {
            "POST /tasks" => {
                let new = json!({"title": "Process user data", "description": "Count the words of this"});
                events::with_body(event, &new)
            }
            "PATCH /tasks/{id}" => events::with_body(event, &json!({"title": "new"})),
            _ => event,
        }
    }
}
