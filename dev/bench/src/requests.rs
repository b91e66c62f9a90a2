//! Warm requests and batches: the handlers, in this process, against hand-written statements.

use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};
use aws_lambda_events::sqs::SqsEvent;
use harness::{Proxy, events};
use lambda_http::{Context, LambdaEvent};
use serde_json::{Value, value::to_raw_value};
use shared::{
    config::Auth,
    domain::{Access, Cursor, TaskId},
    http::{self, respond},
    store::{Database, Statement, tasks::Find},
};
use sqlx::{PgConnection, PgPool};
use support::settings;
use task_metrics::Metrics;
use task_processor::{perform, process};

use crate::{
    fixture::Fixture,
    measure::{Times, alternate, time},
    processes::{new_task, warm_up},
    report::Row,
};

/// The number of tasks when pages are read.
const TASKS: i64 = 1_000_000;

/// The maximum page size.
const PAGE: i64 = 100;

/// The process id of the connection's Postgres backend.
struct BackendPid;

impl Statement for BackendPid {
    type Output = i32;

    async fn run(&self, connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
        sqlx::query_scalar("select pg_backend_pid()")
            .fetch_one(connection)
            .await
    }
}

/// Keeps this process and its backends on one CPU: otherwise the scheduler may or may not wake the
/// other process on another CPU, which doubles the time.
#[cfg(target_os = "linux")]
struct OnOneCpu {
    everywhere: nix::sched::CpuSet,
}

#[cfg(target_os = "linux")]
impl OnOneCpu {
    fn begin(backends: &[i32]) -> Result<Self> {
        use nix::{
            sched::{CpuSet, sched_getaffinity, sched_setaffinity},
            unistd::Pid,
        };

        let everywhere = sched_getaffinity(Pid::this())?;
        let mut one = CpuSet::new();
        one.set(0)?;
        for pid in backends {
            sched_setaffinity(Pid::from_raw(*pid), &one)?;
        }
        sched_setaffinity(Pid::this(), &one)?;
        Ok(Self { everywhere })
    }

    fn end(self) -> Result<()> {
        Ok(nix::sched::sched_setaffinity(
            nix::unistd::Pid::this(),
            &self.everywhere,
        )?)
    }
}

/// macOS cannot bind a process to a CPU: its figures vary more.
#[cfg(not(target_os = "linux"))]
struct OnOneCpu;

#[cfg(not(target_os = "linux"))]
impl OnOneCpu {
    fn begin(_backends: &[i32]) -> Result<Self> {
        Ok(Self)
    }

    fn end(self) -> Result<()> {
        Ok(())
    }
}

/// Measures warm requests, batches and pages.
pub async fn measure(fixture: &mut Fixture) -> Result<Vec<Row>> {
    let backends = [
        fixture.database.run(&BackendPid).await?,
        BackendPid.run(&mut fixture.connection).await?,
    ];
    let on_one_cpu = OnOneCpu::begin(&backends)?;
    let mut rows = get_task(fixture).await?;
    rows.push(create_task(fixture).await?);
    on_one_cpu.end()?;
    for size in [10, 1000] {
        rows.push(batches(fixture, size).await?);
    }
    rows.push(pages(fixture).await?);
    Ok(rows)
}

fn request(event: &Value) -> Result<http::Context> {
    let received = http::receive(&to_raw_value(event)?);
    Ok(http::Context::new(received.request, Auth::Closed))
}

async fn get_task(fixture: &mut Fixture) -> Result<Vec<Row>> {
    let id: i64 = sqlx::query_scalar("select min(id) from tasks")
        .fetch_one(&mut fixture.connection)
        .await?;
    let event = events::task("GET", id, "");
    let find = Find {
        id: id.try_into()?,
        access: Access::All,
    };
    let against = "the same query in a loop";

    let handler = async || {
        let request = request(&event)?;
        let (took, response) = time(get_task::handle(&fixture.database, request)).await;
        ensure!(response?.status() == 200, "not a success");
        Ok(took)
    };
    let mut query = async || {
        let (took, task) = time(find.run(&mut fixture.connection)).await;
        ensure!(task?.is_some(), "there is a task");
        Ok(took)
    };
    let (subject, reference) = alternate(5000, handler, &mut query).await?;
    let mut rows = vec![Row::times(
        "warm `GET /tasks/{id}`",
        against,
        Some(1.25),
        subject,
        reference,
    )];

    let text = event.to_string();
    let handle = |request| get_task::handle(&fixture.database, request);
    let whole = async || {
        let (took, response) = time(async {
            let event = LambdaEvent::new(serde_json::from_str(&text)?, Context::default());
            let response = respond(&handle, Auth::Closed, None, event).await;
            anyhow::Ok(serde_json::to_string(&response.map_err(anyhow::Error::msg)?)?)
        })
        .await;
        response?;
        Ok(took)
    };
    let (subject, reference) = alternate(5000, whole, &mut query).await?;
    rows.push(Row::times(
        "… from event to response as JSON",
        against,
        None,
        subject,
        reference,
    ));

    let (mut function, _) = fixture.functions.start("get-task", &event).await?;
    warm_up(&mut function, &event).await?;
    let (mut times, mut floor) = (Times::default(), Times::default());
    let (mut empty, _) = fixture.references.start("empty", &event).await?;
    warm_up(&mut empty, &event).await?;
    for _ in 0..2000 {
        times.add(function.invoke(&event).await?.took, true);
        floor.add(empty.invoke(&event).await?.took, true);
    }
    function.stop().await?;
    empty.stop().await?;
    let (figure, against) = ("… through the runtime API", "empty function");
    rows.push(Row::times(figure, against, None, times.median(), floor.median()));

    rows.push(Row::absolute(
        "… round trips to Postgres",
        round_trips(fixture, &event).await?.to_string(),
    ));
    Ok(rows)
}

/// The round trips of the second request: the first one also connects and prepares its statement.
async fn round_trips(fixture: &Fixture, event: &Value) -> Result<usize> {
    let pool = PgPool::connect_lazy_with(fixture.options.clone());
    let proxy = Proxy::start(&pool).await;
    let database = proxy.database(&pool);
    get_task::handle(&database, request(event)?).await?;
    let before = proxy.round_trips();
    get_task::handle(&database, request(event)?).await?;
    Ok(proxy.round_trips() - before)
}

async fn create_task(fixture: &mut Fixture) -> Result<Row> {
    let (queue, metrics) = (fixture.queue()?, Metrics::none());
    let event = new_task();
    let handler = async || {
        let request = request(&event)?;
        let created = create_task::handle(&fixture.database, &queue, &metrics, &settings::CREATE_TASK, request);
        let (took, response) = time(created).await;
        ensure!(response?.status() == 201, "not a success");
        Ok(took)
    };
    let hand_written = async || {
        let (took, sent) = time(async {
            let insert = "insert into tasks (title, description, created_by) values ($1, $2, $3) returning id";
            let insert = sqlx::query_scalar(insert)
                .bind("Process user data")
                .bind("Count the words of this");
            let id: i64 = insert.bind("bench").fetch_one(&mut fixture.connection).await?;
            let message = fixture.sqs.send_message().queue_url(&fixture.queue_url);
            message.message_body(format!(r#"{{"task_id":{id}}}"#)).send().await?;
            anyhow::Ok(())
        })
        .await;
        sent?;
        Ok(took)
    };
    let (subject, reference) = alternate(500, handler, hand_written).await?;
    let (figure, against) = ("warm `POST /tasks`", "hand-written insert and SendMessage");
    Ok(Row::times(figure, against, Some(1.3), subject, reference))
}

async fn batches(fixture: &mut Fixture, size: i64) -> Result<Row> {
    let (options, database) = (&fixture.options, &fixture.database);
    let pool = &PgPool::connect_lazy_with(options.clone());
    let processor = async || {
        let event: SqsEvent = serde_json::from_value(events::sqs(&insert(pool, size).await?))?;
        let deadline = SystemTime::now() + Duration::from_secs(30);
        let (took, processed) = time(process(database, event, deadline, settings::TASK_PROCESSOR, perform)).await;
        ensure!(processed?.retries.is_empty(), "every task is completed");
        Ok(took)
    };
    let hand_written = async || {
        let ids = insert(pool, size).await?;
        let results = vec!["Processed \"Process user data\": 5 words, 23 characters"; ids.len()];
        let update = sqlx::query(
            "update tasks
             set status = 'completed', result = done.result, attempts = attempts + 1, started_at = now(),
                 settled_at = now(), version = version + 1, updated_at = now()
             from unnest($1::bigint[], $2::text[]) as done (id, result)
             where tasks.id = done.id",
        );
        let (took, updated) = time(update.bind(&ids).bind(&results).execute(&mut fixture.connection)).await;
        ensure!(updated?.rows_affected() == ids.len() as u64, "every task is updated");
        Ok(took)
    };
    let rounds = if size < 100 { 500 } else { 50 };
    let (subject, reference) = alternate(rounds, processor, hand_written).await?;
    let figure = format!("processor, batch of {size}");
    Ok(Row::times(
        figure,
        "one `update ... from unnest`",
        Some(1.5),
        subject,
        reference,
    ))
}

/// Inserts tasks, as create-task does, and returns their ids.
async fn insert(pool: &PgPool, count: i64) -> Result<Vec<i64>> {
    let insert = "insert into tasks (title, description, created_by, enqueued_at)
                  select 'Process user data', 'Count the words of this', 'bench', now()
                  from generate_series(1, $1) returning id";
    Ok(sqlx::query_scalar(insert).bind(count).fetch_all(pool).await?)
}

/// Fills the table, which takes a minute, and reads its first and its last page.
async fn pages(fixture: &mut Fixture) -> Result<Row> {
    // Maintaining the titles' index row by row would take minutes.
    sqlx::raw_sql(&format!(
        "drop index task_titles_parts;
         alter table tasks disable trigger tasks_title_inserted;
         truncate tasks, task_titles restart identity;
         insert into tasks (title, description, created_by, enqueued_at)
         select 'Process user data', 'Count the words of this', 'user ' || n % 1000, now()
         from generate_series(1, {TASKS}) as n;
         insert into task_titles select id, title from tasks;
         create index task_titles_parts on task_titles using gin (title_parts(title) collate \"C\");
         alter table tasks enable trigger tasks_title_inserted;"
    ))
    .execute(&mut fixture.connection)
    .await?;
    sqlx::query("vacuum analyze tasks")
        .execute(&mut fixture.connection)
        .await?;

    let after = |id: i64| -> Result<Value> {
        let list = events::with_query(events::rest("GET", "/tasks", None), "limit", &PAGE.to_string());
        Ok(match id {
            0 => list,
            _ => events::with_query(list, "after", &Cursor(TaskId::try_from(id)?).to_string()),
        })
    };
    let (first, last) = (after(0)?, after(TASKS - PAGE)?);
    let database = &fixture.database;
    let (subject, reference) = alternate(1000, || page(database, &last), || page(database, &first)).await?;
    let figure = format!("page {} of {TASKS} tasks", TASKS / PAGE);
    Ok(Row::times(figure, "page 1", Some(1.2), subject, reference))
}

async fn page(database: &Database, event: &Value) -> Result<Duration> {
    let request = request(event)?;
    let (took, response) = time(list_tasks::handle(database, request)).await;
    ensure!(response?.status() == 200, "not a success");
    Ok(took)
}
