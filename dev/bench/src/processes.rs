//! Functions as processes: cold starts, sizes, memory.

use std::{
    fs,
    io::Write,
    net::Ipv4Addr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use flate2::{Compression, write::DeflateEncoder};
use harness::{Function, LambdaHost, Response, events};
use serde_json::{Value, json};
use shared::{
    domain::{Access, TaskId},
    store::{Statement, tasks::Find},
};
use sqlx::{Connection, PgConnection};
use tokio::{net::TcpListener, time::sleep};

use crate::{
    fixture::Fixture,
    measure::{Times, time},
    report::{Row, in_units},
};

/// How often each function is started, after a tenth as many starts as warm-up.
const STARTS: usize = 60;

/// The pause before each measurement.
const PAUSE: Duration = Duration::from_millis(20);

/// The number of requests that warm up a function.
const WARM: usize = 200;

/// The event of a `POST /tasks`.
pub fn new_task() -> Value {
    let body = json!({"title": "Process user data", "description": "Count the words of this"});
    events::with_body(events::rest("POST", "/tasks", None), &body)
}

/// From the start of a function to its first response.
async fn first_response(host: &LambdaHost, name: &str, event: &Value) -> Result<Duration> {
    let (function, response) = host.start(name, event).await?;
    ensure_success(&response)?;
    function.stop().await?;
    Ok(response.took)
}

/// From the start of a function until it requests its first invocation.
async fn init(host: &LambdaHost, name: &str) -> Result<Duration> {
    let function = host.start_idle(name).await?;
    let init = function.init;
    function.stop().await?;
    Ok(init)
}

/// A database that accepts connections but never responds: a real server on this machine would take
/// CPU time from the function that connects, which Lambda's database does not.
async fn silent_database() -> Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let url = format!("postgres://postgres@{}/none", listener.local_addr()?);
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok(connection) = listener.accept().await {
            held.push(connection);
        }
    });
    Ok(url)
}

fn ensure_success(response: &Response) -> Result<()> {
    let status = response.body["statusCode"].as_u64();
    ensure!(
        status.is_some_and(|status| status < 300),
        "not a success: {}",
        response.body
    );
    Ok(())
}

/// Cold starts, sizes, memory.
pub async fn measure(fixture: &mut Fixture) -> Result<Vec<Row>> {
    let mut rows = cold_starts(fixture).await?;
    for (function, goal) in [("get-task", 2.2), ("create-task", 3.5)] {
        let size = |host: &LambdaHost, name| zipped(&host.functions.join(name).join("bootstrap"));
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

/// Inserts a task to read.
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
    let mut idle = fixture.functions.clone();
    idle.variables
        .push(("DATABASE_URL".to_owned(), silent_database().await?));
    let [mut empty, mut reads, mut sends, mut connects, mut messages] = std::array::from_fn(|_| Times::default());
    let [mut empty_init, mut info_init, mut reads_init, mut sends_init] = std::array::from_fn(|_| Times::default());
    let mut turns = [0, 1, 2, 3, 4, 5, 6, 7, 8];
    for round in 0..STARTS + STARTS / 10 {
        let counts = round >= STARTS / 10;
        // In random order and with a pause: otherwise the cleanup after one measurement, in
        // Postgres and the emulator, would always fall into the same next one.
        fastrand::shuffle(&mut turns);
        for turn in turns {
            sleep(PAUSE).await;
            match turn {
                0 => empty.add(first_response(&fixture.references, "empty", &get).await?, counts),
                1 => reads.add(first_response(&fixture.functions, "get-task", &get).await?, counts),
                2 => sends.add(
                    first_response(&fixture.functions, "create-task", &create).await?,
                    counts,
                ),
                3 => connects.add(connect_and_query(fixture, id).await?, counts),
                4 => messages.add(send(fixture).await?, counts),
                5 => empty_init.add(init(&fixture.references, "empty").await?, counts),
                6 => info_init.add(init(&idle, "api-info").await?, counts),
                7 => reads_init.add(init(&idle, "get-task").await?, counts),
                _ => sends_init.add(init(&idle, "create-task").await?, counts),
            }
        }
    }
    let floor = empty.median() + connects.median();
    let (floor_of_reads, floor_of_sends) = (
        "empty function + bare connect and query",
        "the same + one message on an open connection",
    );
    let init = |figure: &str, times: &Times| {
        let figure = format!("init, {figure}");
        let (times, floor) = (times.median(), empty_init.median());
        Row::times(figure, "empty function", Some(1.3), times, floor)
    };
    Ok(vec![
        Row::times("cold start, get-task", floor_of_reads, Some(1.5), reads.median(), floor),
        Row::times(
            "cold start, create-task",
            floor_of_sends,
            Some(2.0),
            sends.median(),
            floor + messages.median(),
        ),
        Row::absolute(
            "of which: empty function, connect and query, message",
            [empty.median(), connects.median(), messages.median()]
                .map(in_units)
                .join(" + "),
        ),
        init("api-info", &info_init),
        init("get-task", &reads_init),
        init("create-task", &sends_init),
    ])
}

/// Connects to Postgres and runs one query.
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

/// The size of the deflated program, the only file in the zip.
fn zipped(bootstrap: &Path) -> Result<u64> {
    let mut zip = DeflateEncoder::new(Vec::new(), Compression::default());
    zip.write_all(&fs::read(bootstrap)?)?;
    Ok(u64::try_from(zip.finish()?.len())?)
}

async fn peak(host: &LambdaHost, name: &str, event: &Value) -> Result<u64> {
    let (mut function, _) = host.start(name, event).await?;
    warm_up(&mut function, event).await?;
    let peak = function.peak_memory()?;
    function.stop().await?;
    Ok(peak)
}

/// Sends `WARM` requests.
pub async fn warm_up(function: &mut Function, event: &Value) -> Result<()> {
    for _ in 0..WARM {
        ensure_success(&function.invoke(event).await?)?;
    }
    Ok(())
}
