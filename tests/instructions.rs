//! How much the deployed functions compute, counted by valgrind in the binaries that are deployed: a regression shows
//! here, however slow or busy the machine is. `make bench-counts` writes the numbers that this compares with.
//!
//! What still changes: how often an answer comes in two parts; on another machine, which of memchr's and ring's variants its
//! CPU can run (valgrind's has no AVX-512). The same machine is within 2%; hence the tolerance.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::atomic::{AtomicI64, Ordering},
};

use bench::{
    Sandbox, events,
    instructions::{Count, count},
};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{TestQueue, env, execute};

/// Where the numbers are, for each CPU architecture.
const FILE: &str = "../bench/instructions.toml";

/// How many percent more, or fewer, there may be.
const TOLERANCE: u64 = 5;

/// How many tasks there are. Each request of a function is about another one.
const TASKS: i64 = 1000;

type Counts = BTreeMap<String, BTreeMap<String, u64>>;

#[sqlx::test(migrator = "shared::store::MIGRATIONS")]
async fn a_request_takes_the_instructions_that_it_took(pool: PgPool) {
    let tasks = format!(
        "insert into tasks (title, description, enqueued_at)
         select 'Process user data', 'Count the words of this', now() from generate_series(1, {TASKS})"
    );
    execute(&pool, &tasks).await;
    execute(&pool, "vacuum analyze tasks").await;
    let measured = measure(&pool).await;

    let text = fs::read_to_string(FILE).unwrap_or_default();
    let mut all: BTreeMap<String, Counts> = toml::from_str(&text).expect("counts");
    if std::env::var_os("WRITE_INSTRUCTIONS").is_some() {
        all.insert(std::env::consts::ARCH.to_owned(), measured);
        let comment = "# Instructions of the functions themselves, without the C library: from the start to the first answer (cold), and for\n\
                       # each further request (warm).\n\
                       # tests/instructions.rs compares; `make bench-counts` writes.\n\n";
        let counts = toml::to_string(&all).expect("numbers are TOML");
        return fs::write(FILE, format!("{comment}{counts}")).expect("written");
    }
    let Some(expected) = all.remove(std::env::consts::ARCH) else {
        return eprintln!("no counts for {}: make bench-counts", std::env::consts::ARCH);
    };
    let mut wrong = Vec::new();
    assert!(
        measured.keys().eq(expected.keys()),
        "other functions: make bench-counts"
    );
    for (function, counts) in &measured {
        for (kind, &measured) in counts {
            let expected = expected[function][kind];
            if measured.abs_diff(expected) * 100 > expected * TOLERANCE {
                wrong.push(format!("{function}, {kind}: {measured} instructions, were {expected}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "more than {TOLERANCE}% off; if that is meant, make bench-counts:\n{}",
        wrong.join("\n")
    );
}

async fn measure(pool: &PgPool) -> Counts {
    let (queue, dead_letters) = (TestQueue::create().await, TestQueue::create().await);
    let options = pool.connect_options();
    let database = options.get_database().expect("a test has its own");
    let (host, port) = (options.get_host(), options.get_port());
    let roots = fs::canonicalize("../shared/rds-ca/rds-ca.pem").expect("certificates");
    let variables = [
        ("AUTH", "closed"),
        ("AWS_ENDPOINT_URL", &env("AWS_ENDPOINT_URL")),
        ("DATABASE_URL", &format!("postgres://postgres@{host}:{port}/{database}")),
        ("DEAD_LETTER_QUEUE_URL", dead_letters.url()),
        ("MAX_RECEIVE_COUNT", "5"),
        ("QUEUE_URL", queue.url()),
        ("RETRY_DELAY_SECONDS", "20"),
        // Instead of the machine's trust roots, of which each system has others.
        ("SSL_CERT_FILE", roots.to_str().expect("a path of text")),
    ];
    let sandbox = Sandbox {
        functions: fs::canonicalize("../target/lambda").expect("`make test` has built the functions"),
        variables: variables
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
    };
    let reports = Path::new("../target/instructions");
    fs::create_dir_all(reports).expect("a folder");
    let reports = fs::canonicalize(reports).expect("a folder");
    let valgrind = env("VALGRIND");

    let new = json!({"title": "Process user data", "description": "Count the words of this"});
    let last = AtomicI64::new(0);
    let next_task = || last.fetch_add(1, Ordering::Relaxed) + 1;
    let event = |function: &str| -> Value {
        match function {
            "admin-dashboard" => events::rest("GET", "/admin/dashboard", None),
            "admin-status" => events::rest("GET", "/admin/status", None),
            "admin-task" => events::task("GET", TASKS, ""),
            "api-docs" => events::rest("GET", "/openapi.json", None),
            "api-info" => events::rest("GET", "/", None),
            "create-task" => events::with_body(events::rest("POST", "/tasks", None), &new),
            "delete-task" => events::task("DELETE", next_task(), ""),
            "get-task" => events::task("GET", TASKS, ""),
            "health" => events::rest("GET", "/health", None),
            "list-tasks" => events::with_query(events::rest("GET", "/tasks", None), "limit", "10"),
            "process-task" => events::task("POST", next_task(), "/process"),
            "task-processor" => events::sqs(&std::array::from_fn::<i64, 10, _>(|_| next_task())),
            "update-task" => events::with_body(events::task("PATCH", next_task(), ""), &json!({"title": "new"})),
            _ => unreachable!("{function} is not counted"),
        }
    };
    let mut counts = Counts::new();
    for function in [
        "admin-dashboard",
        "admin-status",
        "admin-task",
        "api-docs",
        "api-info",
        "create-task",
        "delete-task",
        "get-task",
        "health",
        "list-tasks",
        "process-task",
        "task-processor",
        "update-task",
    ] {
        let counted = count(&sandbox, valgrind.as_ref(), &reports, function, || event(function)).await;
        let Count { cold, warm } = counted.unwrap_or_else(|error| panic!("{function}: {error:#}"));
        let both = [("cold".to_owned(), cold), ("warm".to_owned(), warm)];
        counts.insert(function.to_owned(), BTreeMap::from(both));
    }
    counts
}
