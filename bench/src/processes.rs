//! Functions as processes: how they start, what they weigh, what memory they take.

use std::{
    fs,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use bench::{Answer, Function, Sandbox, events};
use flate2::{Compression, write::DeflateEncoder};
use serde_json::{Value, json};
use shared::{
    domain::{Access, TaskId},
    store::{Statement, tasks::Find},
};
use sqlx::{Connection, PgConnection};
use tokio::time::sleep;

use crate::{
    fixture::Fixture,
    measure::{Times, time},
    report::{Row, in_units},
};

/// How often each function is started. The first tenth does not count.
const STARTS: usize = 60;

/// How long it is quiet before each measurement.
const PAUSE: Duration = Duration::from_millis(20);

/// How many requests make a function warm.
const WARM: usize = 200;

/// The answer to `POST /tasks`.
pub fn new_task() -> Value {
    let body = json!({"title": "Process user data", "description": "Count the words of this"});
    events::with_body(events::rest("POST", "/tasks", None), &body)
}

/// The starts of a function.
struct Starts {
    init: Times,
    answered: Times,
}

impl Starts {
    fn new() -> Self {
        let (init, answered) = (Times::default(), Times::default());
        Self { init, answered }
    }

    async fn add(&mut self, sandbox: &Sandbox, name: &str, event: &Value, counts: bool) -> Result<()> {
        let (function, answer) = sandbox.start(name, event).await?;
        ensure_success(&answer)?;
        self.init.add(function.init, counts);
        self.answered.add(answer.took, counts);
        function.stop().await
    }
}

fn ensure_success(answer: &Answer) -> Result<()> {
    let status = answer.body["statusCode"].as_u64();
    ensure!(
        status.is_some_and(|status| status < 300),
        "not a success: {}",
        answer.body
    );
    Ok(())
}

/// Cold starts, sizes, memory.
pub async fn measure(fixture: &mut Fixture) -> Result<Vec<Row>> {
    let mut rows = cold_starts(fixture).await?;
    for (function, goal) in [("get-task", 2.2), ("create-task", 3.5)] {
        let size = |sandbox: &Sandbox, name| zipped(&sandbox.functions.join(name).join("bootstrap"));
        rows.push(Row::bytes(
            format!("zip, {function}"),
            "empty function",
            goal,
            size(&fixture.functions, function)?,
            size(&fixture.references, "empty")?,
        ));
    }
    let task = insert(&mut fixture.connection).await?;
    let get = events::task("GET", task.get(), "");
    let floor = peak(&fixture.references, "empty", &get).await?;
    for (function, event, goal) in [("get-task", &get, 2.0), ("create-task", &new_task(), 3.0)] {
        let peak = peak(&fixture.functions, function, event).await?;
        let figure = format!("peak memory after {WARM} requests, {function}");
        rows.push(Row::bytes(figure, "empty function", goal, peak, floor));
    }
    Ok(rows)
}

/// A task to ask for.
async fn insert(connection: &mut PgConnection) -> Result<TaskId> {
    let id: i64 = sqlx::query_scalar("insert into tasks (title) values ('Process user data') returning id")
        .fetch_one(connection)
        .await?;
    Ok(id.try_into()?)
}

async fn cold_starts(fixture: &mut Fixture) -> Result<Vec<Row>> {
    let id = insert(&mut fixture.connection).await?;
    let get = events::task("GET", id.get(), "");
    let create = new_task();
    let root = events::rest("GET", "/", None);
    let [mut empty, mut info, mut reads, mut sends] = std::array::from_fn(|_| Starts::new());
    let (mut connects, mut messages) = (Times::default(), Times::default());
    let mut turns = [0, 1, 2, 3, 4, 5];
    for round in 0..STARTS + STARTS / 10 {
        let counts = round >= STARTS / 10;
        // In another order each time, and with a pause: what one leaves to be done, as Postgres and the emulator
        // clean up after it, would always be in the figure of the next.
        fastrand::shuffle(&mut turns);
        for turn in turns {
            sleep(PAUSE).await;
            match turn {
                0 => empty.add(&fixture.references, "empty", &get, counts).await?,
                1 => info.add(&fixture.functions, "api-info", &root, counts).await?,
                2 => reads.add(&fixture.functions, "get-task", &get, counts).await?,
                3 => sends.add(&fixture.functions, "create-task", &create, counts).await?,
                4 => connects.add(connect_and_query(fixture, id).await?, counts),
                _ => messages.add(send(fixture).await?, counts),
            }
        }
    }
    let floor = empty.answered.median() + connects.median();
    let (floor_of_reads, floor_of_sends) = (
        "empty function + bare connect and query",
        "the same + one message on an open connection",
    );
    let init = |figure: &str, starts: &Starts| {
        let figure = format!("init, {figure}");
        Row::times(
            figure,
            "empty function",
            Some(1.3),
            starts.init.median(),
            empty.init.median(),
        )
    };
    Ok(vec![
        Row::times(
            "cold start, get-task",
            floor_of_reads,
            Some(1.5),
            reads.answered.median(),
            floor,
        ),
        Row::times(
            "cold start, create-task",
            floor_of_sends,
            Some(2.0),
            sends.answered.median(),
            floor + messages.median(),
        ),
        Row::absolute(
            "of which: empty function, connect and query, message",
            [empty.answered.median(), connects.median(), messages.median()]
                .map(in_units)
                .join(" + "),
        ),
        init("api-info", &info),
        init("get-task", &reads),
        init("create-task", &sends),
    ])
}

/// What a program does that connects to Postgres, asks one thing, and nothing else.
async fn connect_and_query(fixture: &Fixture, id: TaskId) -> Result<Duration> {
    let started = Instant::now();
    let mut connection = PgConnection::connect_with(&fixture.options).await?;
    let access = Access::All;
    Find { id, access }.run(&mut connection).await?;
    let took = started.elapsed();
    connection.close().await?;
    Ok(took)
}

async fn send(fixture: &Fixture) -> Result<Duration> {
    let message = fixture.sqs.send_message().queue_url(&fixture.queue_url);
    let (took, sent) = time(message.message_body(r#"{"task_id":1}"#).send()).await;
    sent?;
    Ok(took)
}

/// The bytes of the deflated program, which is all that is in the zip.
fn zipped(bootstrap: &Path) -> Result<u64> {
    let mut zip = DeflateEncoder::new(Vec::new(), Compression::default());
    zip.write_all(&fs::read(bootstrap)?)?;
    Ok(u64::try_from(zip.finish()?.len())?)
}

async fn peak(sandbox: &Sandbox, name: &str, event: &Value) -> Result<u64> {
    let (mut function, _) = sandbox.start(name, event).await?;
    warm_up(&mut function, event).await?;
    let peak = function.peak_memory()?;
    function.stop().await?;
    Ok(peak)
}

/// Sends enough requests.
pub async fn warm_up(function: &mut Function, event: &Value) -> Result<()> {
    for _ in 0..WARM {
        ensure_success(&function.invoke(event).await?)?;
    }
    Ok(())
}
