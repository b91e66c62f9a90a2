//! `make bench-peers`: task processors on Postgres beside ours, and the API in Python beside ours.
//! docs/performance.md describes the method and receives the tables.

use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use harness::{AMPLE_TIME, LambdaHost, events};
use migrator::{MIGRATIONS, ROLES};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, Postgres, migrate::MigrateDatabase};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use crate::{cpu, environment, processes::new_task, report};

/// A worker's samples: the first step is warm-up, the last one shows growth.
const STEPS: usize = 5;

/// How long one run may take.
const PATIENCE: Duration = Duration::from_secs(600);

const NAME: &str = "peers";

/// A task processor to measure.
struct Contender {
    name: &'static str,
    /// The worker's program and its first arguments.
    program: Vec<PathBuf>,
    batch: usize,
    /// How much fewer tasks it processes, because it takes them one by one.
    divisor: usize,
    /// What happens to a completed task.
    keeps: &'static str,
}

/// What differs between the runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scenario {
    Plain,
    SynchronousCommit,
    HeldSnapshot,
    ManyWaiting,
}

/// In the order of the table's columns.
const SCENARIOS: [(Scenario, &str); 4] = [
    (Scenario::Plain, "plain"),
    (Scenario::SynchronousCommit, "with synchronous_commit"),
    (Scenario::HeldSnapshot, "with a snapshot held"),
    (Scenario::ManyWaiting, "with many waiting"),
];

/// CPU and log at a moment.
#[derive(Clone, Copy)]
struct Sample {
    worker: Duration,
    postgres: Duration,
    wal: i64,
}

/// What a task took.
#[derive(Clone, Copy, Default)]
struct PerTask {
    worker_us: f64,
    postgres_us: f64,
    wal: f64,
    /// CPU time of both in the last step.
    last_us: f64,
    /// Bytes in tables and indexes that it leaves.
    kept: f64,
}

impl PerTask {
    fn cpu_us(self) -> f64 {
        self.worker_us + self.postgres_us
    }
}

struct Server {
    /// The URL of the database of the measurements. Not from sqlx, which adds parameters of its own.
    url: String,
    connection: PgConnection,
    /// The process id of the server.
    pid: i32,
}

impl Server {
    async fn connect() -> Result<Self> {
        let url = variable("DATABASE_URL")?;
        let (server, _) = url.rsplit_once('/').context("DATABASE_URL has no database")?;
        let mut connection = PgConnection::connect(&format!("{server}/postgres")).await?;
        let backend = environment::backend(&mut connection).await?;
        let pid = cpu::parent(backend).context("Postgres must run on this machine: unset DATABASE_URL")?;
        environment::postpone_maintenance(&mut connection, "16GB").await?;
        let url = format!("{server}/{NAME}");
        Ok(Self { url, connection, pid })
    }

    /// Creates an empty database.
    async fn create(&mut self, commits: bool) -> Result<()> {
        Postgres::force_drop_database(&self.url).await?;
        Postgres::create_database(&self.url).await?;
        let setting = if commits { "on" } else { "off" };
        sqlx::query(&format!("alter database {NAME} set synchronous_commit = {setting}"))
            .execute(&mut self.connection)
            .await?;
        sqlx::query("checkpoint").execute(&mut self.connection).await?;
        Ok(())
    }

    async fn sample(&mut self, worker: i32) -> Result<Sample> {
        let wal = sqlx::query_scalar("select (pg_current_wal_insert_lsn() - '0/0')::bigint")
            .fetch_one(&mut self.connection)
            .await?;
        Ok(Sample {
            // Node.js from PyPI is a child of a launcher.
            worker: cpu::with_children(worker)?,
            postgres: cpu::with_children(self.pid)?,
            wal,
        })
    }
}

fn variable(name: &str) -> Result<String> {
    environment::variable("bench-peers", name)
}

fn number(name: &str) -> Result<usize> {
    let text = variable(name)?;
    text.parse()
        .with_context(|| format!("{name}={text} is no number of tasks: try {name}=20000"))
}

/// Measures, prints the tables and writes them to docs/performance.md.
pub async fn run() -> Result<()> {
    let (tasks, waiting) = (number("TASKS")?, number("WAITING")?);
    ensure!(
        tasks >= 5000,
        "TASKS={tasks} are too few to measure CPU time in ticks of 10 ms: use 5000 or more"
    );
    ensure!(
        waiting > tasks,
        "WAITING={waiting} must exceed TASKS={tasks}, of which all are processed"
    );
    let mut server = Server::connect().await?;
    let contenders = contenders()?;
    let mut rows = vec![Vec::new(); contenders.len()];
    let (mut done, runs) = (0, SCENARIOS.len() * contenders.len());
    for (scenario, name) in SCENARIOS {
        for (contender, row) in std::iter::zip(&contenders, &mut rows) {
            let run = measure(&mut server, contender, scenario, tasks / contender.divisor, waiting);
            let run = timeout(PATIENCE, run).await;
            let run = run.with_context(|| format!("it took more than {PATIENCE:?}: use fewer TASKS"));
            let run = run
                .and_then(|run| run)
                .with_context(|| format!("{} failed", contender.name))?;
            done += 1;
            eprintln!(
                "  … {done} of {runs}: {}, {name}: {:.0} + {:.0} µs, {:.0} bytes of WAL",
                contender.name, run.worker_us, run.postgres_us, run.wal
            );
            row.push(run);
        }
    }
    eprintln!("  … the API, and the same in Python");
    let api = api(&mut server).await?;
    Postgres::force_drop_database(&server.url).await?;

    let content = format!(
        "{}\n{}\n{}\n{tasks} tasks, a fifth of them where they are processed one by one; with many waiting, {waiting}. {}\n",
        task_table(&contenders, &rows, waiting),
        leaders(&contenders, &rows),
        api,
        report::machine(&mut server.connection).await?
    );
    println!("\n{content}");
    let document = Path::new("docs/performance.md");
    report::write(document, "make bench-peers", &format!("\n{content}\n"))?;
    println!("Results written to {}.", document.display());
    Ok(())
}

fn contenders() -> Result<Vec<Contender>> {
    let folder = PathBuf::from(variable("PEERS")?);
    let node = |file: &str| -> Result<Vec<PathBuf>> {
        Ok(vec![
            variable("NODE")?.into(),
            PathBuf::from(variable("NODE_PEERS")?).join(file),
        ])
    };
    let python = |group: &str, file: &str| -> Result<Vec<PathBuf>> {
        let name = format!("PYTHON_{}", group.to_uppercase());
        Ok(vec![variable(&name)?.into(), folder.join(file)])
    };
    let contender = |name, program, batch, keeps| Contender {
        name,
        program,
        batch,
        divisor: 1,
        keeps,
    };
    let one_by_one = |contender: Contender| Contender {
        divisor: 5,
        ..contender
    };
    let ours = || -> Result<Vec<PathBuf>> { Ok(vec![env::current_exe()?, "worker".into()]) };
    let row = "the row, with result";
    let (boss, queuer) = ("the row, for 7 days", "a log of three rows");
    Ok(vec![
        contender("task-processor, 10", ours()?, 10, row),
        contender("task-processor, 1,000", ours()?, 1000, row),
        contender("graphile-worker, 500", node("graphile-worker.mjs")?, 500, "nothing"),
        one_by_one(contender("pg-boss, one by one", node("pg-boss.mjs")?, 1, boss)),
        contender("pg-boss, 10", node("pg-boss.mjs")?, 10, boss),
        contender("pg-boss, 1,000", node("pg-boss.mjs")?, 1000, boss),
        contender("pgqueuer, 10", python("pgqueuer", "pgqueuer_worker.py")?, 10, queuer),
        contender(
            "pgqueuer, 1,000",
            python("pgqueuer", "pgqueuer_worker.py")?,
            1000,
            queuer,
        ),
        one_by_one(contender(
            "procrastinate, one by one",
            python("procrastinate", "procrastinate_worker.py")?,
            10,
            "the row, and three events",
        )),
    ])
}

impl Contender {
    fn command(&self, url: &str) -> Command {
        let mut command = Command::new(&self.program[0]);
        command.args(&self.program[1..]).env("DATABASE_URL", url);
        command.env("PYTHONDONTWRITEBYTECODE", "1").kill_on_drop(true);
        command
    }

    async fn fill(&self, url: &str, tasks: usize) -> Result<()> {
        let status = self.command(url).arg("fill").arg(tasks.to_string()).status().await;
        let status = status.with_context(|| format!("cannot start {}", self.program[0].display()))?;
        ensure!(status.success(), "cannot create {tasks} tasks ({status}): see above");
        Ok(())
    }
}

/// Runs one contender on an empty database.
async fn measure(
    server: &mut Server,
    contender: &Contender,
    scenario: Scenario,
    tasks: usize,
    waiting: usize,
) -> Result<PerTask> {
    server.create(scenario == Scenario::SynchronousCommit).await?;
    let url = server.url.clone();
    contender.fill(&url, 0).await?;
    let mut inside = PgConnection::connect(&url).await?;
    let empty = size(&mut inside).await?;
    let total = if scenario == Scenario::ManyWaiting {
        waiting
    } else {
        tasks
    };
    contender.fill(&url, total).await?;
    sqlx::query("vacuum analyze").execute(&mut inside).await?;
    if scenario == Scenario::HeldSnapshot {
        let hold = "begin isolation level repeatable read; select count(*) from pg_class";
        sqlx::raw_sql(hold).execute(&mut inside).await?;
    }

    let step = tasks / STEPS;
    let mut worker = contender
        .command(&url)
        .arg("work")
        .args([tasks, contender.batch, step].map(|number| number.to_string()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let pid = i32::try_from(worker.id().context("the worker runs")?)?;
    let mut stdin = worker.stdin.take().context("a pipe")?;
    let mut lines = BufReader::new(worker.stdout.take().context("a pipe")?).lines();
    ensure!(
        next(&mut lines, &mut worker).await? == "ready",
        "the worker begins with ready"
    );
    stdin.write_all(b"\n").await?;
    let mut samples = Vec::new();
    loop {
        let line = next(&mut lines, &mut worker).await?;
        let (word, count) = line.split_once(' ').with_context(|| format!("unexpected: {line}"))?;
        samples.push((count.parse::<usize>()?, server.sample(pid).await?));
        if word == "stopped" {
            break;
        }
    }
    drop(stdin);
    worker.wait().await?;

    let mut kept = 0.0;
    if scenario == Scenario::Plain {
        sqlx::query("vacuum").execute(&mut inside).await?;
        kept = (size(&mut inside).await? - empty) as f64 / tasks as f64;
    }
    inside.close().await?;
    let [first, .., before, last] = samples[..] else {
        bail!("too few samples")
    };
    let us = |from: Duration, to: Duration, tasks: usize| to.saturating_sub(from).as_secs_f64() * 1e6 / tasks as f64;
    let (counted, in_last) = (last.0 - first.0, last.0 - before.0);
    Ok(PerTask {
        worker_us: us(first.1.worker, last.1.worker, counted),
        postgres_us: us(first.1.postgres, last.1.postgres, counted),
        wal: (last.1.wal - first.1.wal) as f64 / counted as f64,
        last_us: us(before.1.worker, last.1.worker, in_last) + us(before.1.postgres, last.1.postgres, in_last),
        kept,
    })
}

async fn next(lines: &mut Lines<BufReader<ChildStdout>>, worker: &mut Child) -> Result<String> {
    match lines.next_line().await? {
        Some(line) => Ok(line),
        None => bail!("the worker ended ({}): see above", worker.wait().await?),
    }
}

/// Bytes in the tables and indexes of a database.
async fn size(connection: &mut PgConnection) -> Result<i64> {
    let size = "select sum(pg_total_relation_size(oid))::bigint from pg_class
                where relkind in ('r', 'm') and relnamespace::regnamespace::text not in ('pg_catalog', 'information_schema')";
    Ok(sqlx::query_scalar(size).fetch_one(connection).await?)
}

fn markdown(lines: &[Vec<String>]) -> String {
    let line = |cells: &Vec<String>| format!("| {} |\n", cells.join(" | "));
    let rule = "|---".repeat(lines[0].len()) + "|\n";
    line(&lines[0]) + &rule + &lines[1..].iter().map(line).collect::<String>()
}

fn task_table(contenders: &[Contender], rows: &[Vec<PerTask>], waiting: usize) -> String {
    let head = [
        "worker, tasks a batch".to_owned(),
        "worker, µs".to_owned(),
        "Postgres, µs".to_owned(),
        "together".to_owned(),
        "WAL, bytes".to_owned(),
        "kept, bytes".to_owned(),
        "keeps".to_owned(),
        "`synchronous_commit`".to_owned(),
        "snapshot held".to_owned(),
        format!("{waiting} waiting"),
    ];
    let mut lines = vec![head.to_vec()];
    for (contender, row) in std::iter::zip(contenders, rows) {
        let [plain, committed, held, many] = row[..] else {
            continue;
        };
        lines.push(vec![
            contender.name.to_owned(),
            format!("{:.1}", plain.worker_us),
            format!("{:.1}", plain.postgres_us),
            format!("**{:.0}**", plain.cpu_us()),
            format!("{:.0}", plain.wal),
            format!("{:.0}", plain.kept),
            contender.keeps.to_owned(),
            format!("{:.0}", committed.cpu_us()),
            format!("{:.0} ({:.1}×)", held.last_us, held.last_us / plain.last_us),
            format!("{:.0}", many.cpu_us()),
        ]);
    }
    markdown(&lines)
}

/// Who is the best by each measure.
fn leaders(contenders: &[Contender], rows: &[Vec<PerTask>]) -> String {
    type Value = fn(&[PerTask]) -> f64;
    let measures: [(&str, Value); 5] = [
        ("CPU of the worker", |row| row[0].worker_us),
        ("CPU of Postgres", |row| row[0].postgres_us),
        ("CPU of both", |row| row[0].cpu_us()),
        ("WAL", |row| row[0].wal),
        ("bytes kept", |row| row[0].kept),
    ];
    let mut text = String::new();
    for (measure, value) in measures {
        let mut order: Vec<_> = std::iter::zip(contenders, rows)
            .map(|(one, row)| (value(row), one.name))
            .collect();
        order.sort_by(|one, other| one.0.total_cmp(&other.0));
        let place = order.iter().position(|(_, name)| name.starts_with("task-processor"));
        let (best, place) = (order[0].1, place.unwrap_or_default() + 1);
        text += &match place {
            1 => format!("- Least {measure}: {best}.\n"),
            _ => format!("- Least {measure}: {best}; ours is number {place}.\n"),
        };
    }
    text
}

/// The API in FastAPI under uvicorn, and our functions under a stub of the runtime API.
async fn api(server: &mut Server) -> Result<String> {
    server.create(false).await?;
    let url = server.url.clone();
    let mut inside = PgConnection::connect(&url).await?;
    MIGRATIONS.run(&mut inside).await?;
    sqlx::raw_sql(ROLES).execute(&mut inside).await?;
    let insert = "insert into tasks (title, description, created_by)
                  select 'Process user data', 'Count the words of this', 'bench' from generate_series(1, 10000)";
    sqlx::query(insert).execute(&mut inside).await?;
    sqlx::query("vacuum analyze").execute(&mut inside).await?;
    inside.close().await?;
    let sqs = aws_sdk_sqs::Client::from_conf(queue::client_config()?.build());
    let created = sqs.create_queue().queue_name(NAME).send().await?;
    let queue_url = created.queue_url.context("a queue has a URL")?;

    let page = events::with_query(events::rest("GET", "/tasks", None), "limit", "100");
    let (one, new) = (events::task("GET", 5000, ""), new_task());
    let routes = [
        ("`GET /tasks/{id}`", "get-task", &one, Method::GET, "/tasks/5000", 4000),
        (
            "`GET /tasks?limit=100`",
            "list-tasks",
            &page,
            Method::GET,
            "/tasks?limit=100",
            1000,
        ),
        ("`POST /tasks`", "create-task", &new, Method::POST, "/tasks", 1000),
    ];
    let host = LambdaHost {
        functions: PathBuf::from(variable("FUNCTIONS")?),
        variables: [
            ("AUTH", "closed"),
            ("AWS_ENDPOINT_URL", &variable("AWS_ENDPOINT_URL")?),
            ("DATABASE_URL", &url),
            ("QUEUE_URL", &queue_url),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec(),
        time: AMPLE_TIME,
    };
    let mut python = Command::new(variable("PYTHON_API")?);
    python
        .arg(PathBuf::from(variable("PEERS")?).join("api.py"))
        .env("DATABASE_URL", &url)
        .env("QUEUE_URL", &queue_url)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    let mut python = python.spawn().context("cannot start the API in Python")?;
    let pid = i32::try_from(python.id().context("it runs")?)?;
    let mut lines = BufReader::new(python.stdout.take().context("a pipe")?).lines();
    let address = next(&mut lines, &mut python).await?;
    let client = reqwest::Client::new();

    let head = ["", "ours, µs", "Postgres", "FastAPI, µs", "Postgres", "ratio of both"];
    let mut table = vec![head.map(str::to_owned).to_vec()];
    for (name, function, event, method, path, requests) in routes {
        let (mut function, response) = host.start(function, event).await?;
        let expected = response.body["statusCode"].clone();
        let id = i32::try_from(function.id()?)?;
        let ours = each(server, id, requests, async || {
            let response = function.invoke(event).await?;
            ensure!(
                response.body["statusCode"] == expected,
                "not a success: {}",
                response.body
            );
            Ok(())
        })
        .await?;
        function.stop().await?;
        let body = match method {
            Method::POST => Some(json!({"title": "Process user data", "description": "Count the words of this"})),
            _ => None,
        };
        let theirs = each(server, pid, requests, async || {
            let mut request = client.request(method.clone(), format!("{address}{path}"));
            if let Some(body) = &body {
                request = request.json(body);
            }
            let response = request.send().await?.error_for_status()?;
            ensure!(
                json!(response.status().as_u16()) == expected,
                "not the same status: {}",
                response.status()
            );
            response.json::<Value>().await?;
            Ok(())
        })
        .await?;
        let sum = |(process, postgres): (f64, f64)| process + postgres;
        table.push(vec![
            name.to_owned(),
            format!("{:.0}", ours.0),
            format!("{:.0}", ours.1),
            format!("{:.0}", theirs.0),
            format!("{:.0}", theirs.1),
            format!("{:.1}", sum(theirs) / sum(ours)),
        ]);
    }
    python.kill().await?;
    sqs.delete_queue().queue_url(queue_url).send().await?;
    Ok(markdown(&table))
}

/// CPU time of a process and of Postgres for each request, in µs. The first tenth is warm-up.
async fn each(
    server: &mut Server,
    pid: i32,
    requests: usize,
    mut request: impl AsyncFnMut() -> Result<()>,
) -> Result<(f64, f64)> {
    for _ in 0..requests / 10 {
        request().await?;
    }
    let before = server.sample(pid).await?;
    for _ in 0..requests {
        request().await?;
    }
    let after = server.sample(pid).await?;
    let us = |from: Duration, to: Duration| to.saturating_sub(from).as_secs_f64() * 1e6 / requests as f64;
    Ok((us(before.worker, after.worker), us(before.postgres, after.postgres)))
}
