//! `make scale`: what the statements of the routes, batches and sweeps cost with 20,000 tasks and
//! with millions. docs/performance.md describes the method and receives the table.

use std::{
    collections::BTreeMap,
    fmt::Write,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use harness::{Bytes, HttpResponse, Request, serve_after};
use queue::TaskQueue;
use serde_json::{Value, json};
use shared::{
    domain::{
        Access, BulkAction, BulkFilter, Cursor, Filter, FilterText, IdempotencyKey, NewTask, Page, Sort, Start, Status,
        TaskId, TaskPatch,
    },
    store::{
        Database, SESSION, Statement,
        bulk::CountMatching,
        idempotency::{CountExpired, CreateOnce, DeleteExpired},
        operating::{FindHistory, GroupFailures, ReadOverview},
        processing::{Claim, ClaimOutcome, ClaimRequest, Outcome, Settle},
        reconciling::{ClearEnqueued, CountDue, CountSettled, DeleteSettled, Due, Range, TakeDue},
        tasks::{Delete, Find, Insert, List, MarkEnqueued, Reset, Total, Update, WALK},
    },
};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use task_metrics::Metrics;
use task_reconciler::{Progress, Settings, sweep};

use crate::{
    cpu, environment,
    report::{self, in_units},
};

/// The number of tasks that the others are compared with.
const FEW: i64 = 20_000;

/// How often each statement runs: more often than Postgres plans it for its arguments (5 times).
const ROUNDS: i64 = 12;

/// How long the stub of SQS takes to respond.
const SQS_TIME: Duration = Duration::from_millis(5);

/// The time of one of the reconciler's invocations, of which there is one a minute.
const INVOCATION: Duration = Duration::from_secs(30);

const SETTINGS: Settings = Settings {
    lost_after_seconds: 900,
    max_attempts: 10,
    task_retention_days: 1,
};

/// The blocks that a search may read: it examines so many tasks, and their titles.
const SEARCHED: i64 = 2 * WALK;

/// What a statement took.
#[derive(Clone, Copy)]
struct Cost {
    /// CPU time in Postgres: the median.
    cpu: Duration,
    /// Blocks of tables and indexes that it read: the maximum.
    blocks: i64,
}

/// What the figure must not exceed.
#[derive(Clone, Copy)]
enum Goal {
    /// Twice the blocks of few tasks, and so many more. (There were fewer than the limit of rows that
    /// the statement examines; or a round reads dead versions of the ones before.)
    Blocks(i64),
    /// The same, and CPU time.
    Cpu(i64, Duration),
}

impl Goal {
    fn blocks(self, few: i64) -> i64 {
        let (Self::Blocks(more) | Self::Cpu(more, _)) = self;
        2 * few + more
    }
}

/// A measured statement, with few tasks and then with many.
struct Measured {
    name: String,
    goal: Goal,
    cost: Cost,
}

/// A line of the second table.
struct Line {
    name: String,
    measured: String,
    goal: String,
    is_met: bool,
}

/// Measures, prints the tables and writes them to docs/performance.md.
pub async fn run() -> Result<()> {
    let variable = |name| environment::variable("scale", name);
    let millions: f64 = variable("MILLIONS")?.parse().context("MILLIONS is a number")?;
    let many = (millions * 1e6) as i64;
    ensure!(many >= 1_000_000, "MILLIONS={millions}: at least one million");
    let unsent: i64 = variable("UNSENT")?.parse().context("UNSENT is a number")?;
    let server: PgConnectOptions = variable("DATABASE_URL")?.parse()?;

    let mut tasks = Tasks::new(&server).await?;
    tasks.fill(FEW).await?;
    tasks.execute("vacuum analyze").await?;
    let few = tasks.statements(&format!("{FEW} tasks")).await?;
    let mut lines = tasks.batches(&format!("{FEW} tasks")).await?;
    tasks.fill(many).await?;
    let stale = tasks.statements(&format!("{millions} million, old statistics")).await?;
    eprintln!("  … vacuum analyze");
    tasks.execute("vacuum analyze").await?;
    let name = format!("{millions} million tasks");
    let fresh = tasks.statements(&name).await?;
    lines.extend(tasks.batches(&name).await?);
    lines.extend(tasks.held_snapshot().await?);
    lines.extend(tasks.sweeps(unsent).await?);

    let (table, missed) = statement_table(millions, &few, &stale, &fresh);
    let size: String = sqlx::query_scalar("select pg_size_pretty(pg_database_size(current_database()))")
        .fetch_one(&mut tasks.connection)
        .await?;
    let machine = report::machine(&mut tasks.connection).await?;
    let content = format!(
        "{table}\n{}\nWith {millions} million tasks, {size} of disk. {machine}\n",
        line_table(&lines)
    );
    tasks.delete().await?;
    println!("\n{content}");
    let document = Path::new("docs/performance.md");
    report::write(document, "make scale", &format!("\n{content}\n"))?;
    println!("Results written to {}.", document.display());
    ensure!(missed.is_empty(), "more blocks than the goal: {missed:?}");
    Ok(())
}

fn statement_table(millions: f64, few: &[Measured], stale: &[Measured], fresh: &[Measured]) -> (String, Vec<String>) {
    let mut table = format!(
        "| statement | {FEW} tasks | {millions} million, old statistics | {millions} million | ratio of blocks | goal | |\n\
         |---|---|---|---|---|---|---|\n"
    );
    let mut missed = Vec::new();
    let cell = |cost: Cost| format!("{}, {} blocks", in_units(cost.cpu), cost.blocks);
    for ((few, stale), fresh) in few.iter().zip(stale).zip(fresh) {
        let blocks = stale.cost.blocks.max(fresh.cost.blocks);
        let is_flat = blocks <= fresh.goal.blocks(few.cost.blocks);
        let (goal, is_met) = match fresh.goal {
            Goal::Blocks(0) => ("2".to_owned(), is_flat),
            Goal::Blocks(more) => (format!("2, + {more} blocks"), is_flat),
            Goal::Cpu(more, cpu) => (
                format!("2, + {more} blocks, {}", in_units(cpu)),
                is_flat && stale.cost.cpu.max(fresh.cost.cpu) <= cpu,
            ),
        };
        if !is_flat {
            missed.push(format!("{}: {blocks} against {}", few.name, few.cost.blocks));
        }
        // Writing to a String cannot fail.
        let _ = writeln!(
            table,
            "| {} | {} | {} | {} | {:.1} | {goal} | {} |",
            few.name,
            cell(few.cost),
            cell(stale.cost),
            cell(fresh.cost),
            blocks as f64 / few.cost.blocks as f64,
            verdict(is_met)
        );
    }
    (table, missed)
}

fn line_table(lines: &[Line]) -> String {
    let mut table = "| figure | measured | goal | |\n|---|---|---|---|\n".to_owned();
    for Line {
        name,
        measured,
        goal,
        is_met,
    } in lines
    {
        let verdict = if goal.is_empty() { "" } else { verdict(*is_met) };
        let _ = writeln!(table, "| {name} | {measured} | {goal} | {verdict} |");
    }
    table
}

/// What a sweep has left, which it counts up to a limit.
fn rest(left: usize) -> String {
    match left {
        0 => "none left".to_owned(),
        left => format!("{left} or more left"),
    }
}

fn verdict(is_met: bool) -> &'static str {
    if is_met { "ok" } else { "**missed**" }
}

/// A database with tasks.
struct Tasks {
    options: PgConnectOptions,
    connection: PgConnection,
    /// The process of the connection.
    backend: i32,
    tasks: i64,
}

impl Tasks {
    /// The settings of the connection are those of `SESSION`, but for the timeouts.
    async fn new(server: &PgConnectOptions) -> Result<Self> {
        let (options, mut connection) = environment::create_database(server, "scale").await?;
        // Statistics become old only if autovacuum does not refresh them.
        environment::postpone_maintenance(&mut connection, "4GB").await?;
        let backend = environment::backend(&mut connection).await?;
        cpu::exact(backend).context("Postgres must run on this machine, which is Linux: unset DATABASE_URL")?;
        let mut tasks = Self {
            options,
            connection,
            backend,
            tasks: 0,
        };
        for (setting, value) in SESSION.iter().filter(|(setting, _)| !setting.ends_with("timeout")) {
            tasks.execute(&format!("set {setting} = {value}")).await?;
        }
        tasks
            .execute("set synchronous_commit = off; set maintenance_work_mem = '1GB'")
            .await?;
        Ok(tasks)
    }

    async fn execute(&mut self, sql: &str) -> Result<()> {
        sqlx::raw_sql(sql).execute(&mut self.connection).await?;
        Ok(())
    }

    /// Adds tasks of the last minutes, a thousand a second, and as many keys as a twentieth of them.
    /// A twentieth of the tasks waits, half of these without a message. Indexes are created
    /// afterwards, in a fraction of the time.
    async fn fill(&mut self, tasks: i64) -> Result<()> {
        let indexes: Vec<(String, String)> = sqlx::query_as(
            "select format('drop index %I', indexname), indexdef from pg_indexes
             where schemaname = 'public' and tablename in ('tasks', 'task_titles') and indexname not like '%_pkey'",
        )
        .fetch_all(&mut self.connection)
        .await?;
        self.execute("alter table tasks disable trigger user").await?;
        for (drop, _) in &indexes {
            self.execute(drop).await?;
        }
        const STEP: i64 = 500_000;
        for from in (self.tasks + 1..=tasks).step_by(STEP as usize) {
            let to = (from + STEP - 1).min(tasks);
            eprintln!("  … filling the table: {to} of {tasks} tasks");
            self.execute(&format!(
                "insert into tasks (id, title, description, status, result, attempts, created_at, requested_at, updated_at,
                                    enqueued_at, started_at, settled_at, fencing_token, version, created_by)
                 overriding system value
                 select n,
                        'Weekly report ' || n || case when n in (7, {tasks} - 7) then ' ~needle' else '' end,
                        'Count the words of this',
                        case when is_open then 'pending' when n % 100 = 1 then 'failed' else 'completed' end::task_status,
                        case when not is_open then 'Processed' end, 1, at, at, at,
                        case when n % 40 > 0 then now() end, at, case when not is_open then at + interval '1 s' end, 1, 3,
                        'user ' || n % 9
                 from generate_series({from}, {to}) as n,
                      lateral (select n % 20 = 0, now() - ({tasks} - n) * interval '1 ms') as task (is_open, at);
                 insert into task_titles select id, title from tasks where id between {from} and {to};
                 insert into idempotency_keys (key, fingerprint, task_id, expires_at)
                 select gen_random_uuid(), '', n, now() + (n - {tasks} * 0.9) * interval '1 ms'
                 from generate_series({from}, {to}) as n where n % 20 = 0"
            ))
            .await?;
        }
        for (number, (_, create)) in indexes.iter().enumerate() {
            eprintln!("  … creating index {} of {}", number + 1, indexes.len());
            self.execute(create).await?;
        }
        self.execute(
            "alter table tasks enable trigger user;
             select setval(pg_get_serial_sequence('tasks', 'id'), (select max(id) from tasks))",
        )
        .await?;
        self.tasks = tasks;
        Ok(())
    }

    /// Blocks that this transaction has read. Postgres adds those of earlier ones that it has not
    /// reported yet.
    async fn read(connection: &mut PgConnection) -> Result<i64> {
        let read = "select sum(pg_stat_get_xact_blocks_fetched(oid))::bigint
                    from pg_class
                    where relnamespace = 'public'::regnamespace";
        Ok(sqlx::query_scalar(read).fetch_one(connection).await?)
    }

    /// What a statement takes, each time another one, without effect.
    async fn cost<S: Statement>(&mut self, statement: impl Fn(i64) -> S) -> Result<Cost> {
        let (mut times, mut blocks) = (Vec::new(), 0);
        for round in 0..ROUNDS {
            let mut transaction = self.connection.begin().await?;
            let read = Self::read(&mut transaction).await?;
            let cpu = cpu::exact(self.backend)?;
            statement(round).run(&mut transaction).await?;
            times.push(cpu::exact(self.backend)?.saturating_sub(cpu));
            blocks = blocks.max(Self::read(&mut transaction).await? - read);
            transaction.rollback().await?;
        }
        times.sort_unstable();
        Ok(Cost {
            cpu: times[times.len() / 2],
            blocks,
        })
    }

    /// The statements of the routes and of the sweeps.
    async fn statements(&mut self, of: &str) -> Result<Vec<Measured>> {
        let middle = self.tasks / 2 + 1;
        let id = |id: i64| TaskId::try_from(id).expect("an id");
        let (access, versions) = (Access::All, None);
        let new = &NewTask {
            title: "Weekly report".to_owned().try_into()?,
            description: None,
            run_at: None,
        };
        let keys: Vec<IdempotencyKey> = (0..ROUNDS)
            .map(|round| IdempotencyKey::parse(format!("key-{round}").as_bytes()))
            .collect::<Result<_, _>>()?;
        let mut all = Vec::new();
        macro_rules! measure {
            ($name:literal, $goal:expr, $statement:expr) => {{
                let (name, goal) = (format!($name), $goal);
                eprintln!("  … {of}: {name}");
                let cost = self.cost($statement).await.with_context(|| name.clone())?;
                all.push(Measured { name, goal, cost });
            }};
        }
        let flat = Goal::Blocks(20);

        measure!("`GET /tasks/{{id}}`", flat, |round| Find {
            id: id(middle + round),
            access
        });
        measure!("`GET /admin/tasks/{{id}}`", flat, |round| FindHistory(id(
            middle + round
        )));
        let created_by = "user 1";
        measure!("`POST /tasks`", flat, |_| Insert { new, created_by });
        let keep = Duration::from_secs(60);
        measure!("… with an `Idempotency-Key`", flat, |round| CreateOnce {
            key: &keys[round as usize],
            created_by,
            keep,
            new,
        });
        measure!("… the mark that the message was sent", flat, |round| {
            MarkEnqueued {
                id: id(middle + round),
                run_at: None,
            }
        });
        let patch = &TaskPatch {
            title: Some("Monthly report".to_owned().try_into()?),
            ..TaskPatch::default()
        };
        measure!("`PATCH /tasks/{{id}}`", flat, |round| Update {
            id: id(middle + round),
            patch,
            versions,
            access,
        });
        measure!("`POST /tasks/{{id}}/process`", flat, |round| Reset {
            id: id(middle + round),
            access
        });
        measure!("`DELETE /tasks/{{id}}`", flat, |round| Delete {
            id: id(middle + round),
            versions,
            access,
        });

        let page_cpu = Duration::from_millis(50);
        for (who, access) in [
            ("", Access::All),
            (", own tasks", Access::Own("user 2")),
            (", without tasks", Access::Own("stranger")),
        ] {
            for status in [
                None,
                Some(Status::Pending),
                Some(Status::Processing),
                Some(Status::Failed),
            ] {
                for (query, sort, skip, count) in [
                    ("", Sort::OldestFirst, 0, false),
                    ("&sort=-id", Sort::NewestFirst, 0, false),
                    ("&skip=10000", Sort::OldestFirst, 10_000, false),
                    ("&count=true", Sort::OldestFirst, 0, true),
                ] {
                    let page = &Page {
                        skip,
                        sort,
                        count,
                        filter: Filter { status, title: None },
                        ..Page::default()
                    };
                    let status = status.map(|status| format!("&status={}", status.as_str()));
                    let query = status.unwrap_or_default() + query;
                    let query = if query.is_empty() {
                        query
                    } else {
                        format!("?{}", &query[1..])
                    };
                    // With few tasks there are fewer than are examined at most.
                    let is_walk = match access {
                        Access::Own("stranger") => false,
                        Access::Own(_) => page.filter.status.is_some(),
                        Access::All | Access::Admin(_) => page.filter.status == Some(Status::Processing),
                    };
                    let counted = if skip > 0 || count { Total::MAX_COUNTED } else { 100 };
                    let goal = Goal::Cpu(if is_walk { WALK } else { 0 } + counted, page_cpu);
                    measure!("`GET /tasks{query}`{who}", goal, |_| List { page, access });
                }
            }
        }
        let after = &Page {
            start: Start::After(Cursor(id(middle))),
            ..Page::default()
        };
        measure!("`GET /tasks?after=…`", flat, |_| List { page: after, access });
        for title in [
            "~",
            "report",
            "Weekly report 1",
            "ort 12345",
            "é",
            "absent zz",
            "~needle",
        ] {
            for count in [false, true] {
                let page = &Page {
                    sort: Sort::NewestFirst,
                    count,
                    filter: Filter {
                        title: Some(title.to_owned()),
                        status: None,
                    },
                    ..Page::default()
                };
                let count = if count { "&count=true" } else { "" };
                measure!(
                    "`GET /tasks?q={title}&sort=-id{count}`",
                    Goal::Cpu(SEARCHED, page_cpu),
                    |_| { List { page, access } }
                );
            }
        }
        // A sample of each status, up to its limit.
        let goal = Goal::Cpu(4 * Total::MAX_COUNTED, Duration::from_millis(20));
        measure!("`GET /admin/status`", goal, |_| ReadOverview);
        // The latest 10,000 failures, in any order in the table.
        let goal = Goal::Cpu(2 * Total::MAX_COUNTED, Duration::from_millis(500));
        measure!("`GET /admin/failures`", goal, |_| GroupFailures);
        let text = |text: &str| FilterText::try_from(text.to_owned());
        let goal = Goal::Cpu(4 * Total::MAX_COUNTED, Duration::from_millis(200));
        for (action, status) in [
            (BulkAction::Cancel, Status::Pending),
            (BulkAction::Retry, Status::Failed),
        ] {
            let filter = &BulkFilter {
                status: Some(status),
                q: Some(text("~needle")?),
                ..BulkFilter::default()
            };
            let name = format!("{} with `status={}&q=~needle`", action.as_str(), status.as_str());
            measure!("`POST /admin/actions`: count, {name}", goal, |_| CountMatching {
                action,
                filter
            });
        }

        let due = Due {
            // All are due, however long filling the table took.
            unsent_after: Duration::ZERO,
            lost_after: Duration::ZERO,
            include_lost: true,
            max_attempts: 10,
        };
        let sweep = Goal::Blocks(1000);
        let (range, limit) = (&Range::scheduled(), 500);
        let newest_first = true;
        measure!("sweep: take 500 scheduled tasks", sweep, |_| TakeDue {
            due,
            range,
            newest_first,
            limit
        });
        let range = &Range::open();
        for (end, newest_first) in [("oldest", false), ("newest", true)] {
            measure!("sweep: take 500, {end} first", sweep, |_| TakeDue {
                due,
                range,
                newest_first,
                limit
            });
        }
        let ids: Vec<TaskId> = (0..500).map(|n| id(middle + n)).collect();
        measure!("sweep: give 500 back", sweep, |_| ClearEnqueued(&ids));
        let (from, limit, older_than) = (None, 1000, Duration::ZERO);
        for (end, newest_first) in [("oldest", false), ("newest", true)] {
            measure!("sweep: count 1,000 missing messages, {end} first", sweep, |_| {
                CountDue {
                    due,
                    range,
                    newest_first,
                    limit,
                }
            });
        }
        measure!("sweep: delete 1,000 keys", sweep, |_| DeleteExpired { from, limit });
        measure!("sweep: count 1,000 keys", sweep, |_| CountExpired { from, limit });
        measure!("sweep: delete 1,000 old tasks", sweep, |_| DeleteSettled {
            older_than,
            from,
            limit
        });
        measure!("sweep: count 1,000 old tasks", sweep, |_| CountSettled {
            older_than,
            from,
            limit
        });
        Ok(all)
    }

    /// Adds tasks whose messages were sent, and returns their ids.
    async fn insert(&mut self, count: usize) -> Result<Vec<i64>> {
        let insert = "insert into tasks (title, description, created_by, enqueued_at)
                      select 'Weekly report', 'Count the words of this', 'user 1', now()
                      from generate_series(1, $1) returning id";
        let insert = sqlx::query_scalar(insert).bind(i64::try_from(count)?);
        Ok(insert.fetch_all(&mut self.connection).await?)
    }

    /// Bytes of the write-ahead log so far.
    async fn wal(&mut self) -> Result<i64> {
        let wal = "select (pg_current_wal_insert_lsn() - '0/0')::bigint";
        Ok(sqlx::query_scalar(wal).fetch_one(&mut self.connection).await?)
    }

    /// Claims and settles new tasks in a batch. Returns CPU time and bytes of log.
    async fn process(&mut self, ids: &[i64]) -> Result<(Duration, i64)> {
        let requests: Vec<ClaimRequest> = ids
            .iter()
            .map(|id| {
                Ok(ClaimRequest {
                    id: TaskId::try_from(*id)?,
                    sent_at: None,
                })
            })
            .collect::<Result<_>>()?;
        let wal = self.wal().await?;
        let cpu = cpu::exact(self.backend)?;
        let claim = Claim {
            requests: &requests,
            lease: Duration::from_secs(30),
        };
        let claims = claim.run(&mut self.connection).await?;
        let outcomes: Vec<Outcome> = claims
            .into_iter()
            .filter_map(|(id, claim)| match claim {
                ClaimOutcome::Claimed(claimed) => Some(Outcome {
                    id,
                    fencing_token: claimed.fencing_token,
                    status: Status::Completed,
                    result: Some("Processed".to_owned()),
                }),
                _ => None,
            })
            .collect();
        let settled = Settle(&outcomes).run(&mut self.connection).await?;
        ensure!(settled.len() == ids.len(), "every task is settled");
        let cpu = cpu::exact(self.backend)?.saturating_sub(cpu);
        Ok((cpu, self.wal().await? - wal))
    }

    /// One hand-written update that does as much as a batch, without a claim.
    async fn update(&mut self, ids: &[i64]) -> Result<Duration> {
        let results = vec!["Processed"; ids.len()];
        let cpu = cpu::exact(self.backend)?;
        let updated = sqlx::query(
            "update tasks
             set status = 'completed', result = done.result, attempts = attempts + 1, started_at = now(),
                 settled_at = now(), lease_expires_at = null, version = version + 1, updated_at = now()
             from unnest($1::bigint[], $2::text[]) as done (id, result)
             where tasks.id = done.id",
        )
        .bind(ids)
        .bind(&results)
        .execute(&mut self.connection)
        .await?;
        ensure!(updated.rows_affected() == ids.len() as u64, "every task is updated");
        Ok(cpu::exact(self.backend)?.saturating_sub(cpu))
    }

    /// The same after one that takes a lease: the least for a batch with a claim.
    async fn update_twice(&mut self, ids: &[i64]) -> Result<Duration> {
        let cpu = cpu::exact(self.backend)?;
        let updated = sqlx::query(
            "update tasks
             set lease_expires_at = now() + interval '30 s', fencing_token = fencing_token + 1
             where id = any ($1)",
        )
        .bind(ids)
        .execute(&mut self.connection)
        .await?;
        ensure!(updated.rows_affected() == ids.len() as u64, "every task is updated");
        let cpu = cpu::exact(self.backend)?.saturating_sub(cpu);
        Ok(cpu + self.update(ids).await?)
    }

    /// Batches of the task-processor against one update, and two, alternating.
    async fn batches(&mut self, of: &str) -> Result<Vec<Line>> {
        let mut lines = Vec::new();
        for (size, rounds, goal) in [(10, 200, 1.5), (1000, 10, 1.3)] {
            eprintln!("  … {of}: batches of {size}");
            let (mut ours, mut once, mut twice, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            for _ in 0..rounds {
                let ids = self.insert(size).await?;
                let (cpu, wal) = self.process(&ids).await?;
                ours.push(cpu);
                bytes.push(wal / size as i64);
                let ids = self.insert(size).await?;
                once.push(self.update(&ids).await?);
                let ids = self.insert(size).await?;
                twice.push(self.update_twice(&ids).await?);
            }
            let [ours, once, twice] = [ours, once, twice].map(|mut times| {
                times.sort_unstable();
                times[times.len() / 2] / size as u32
            });
            bytes.sort_unstable();
            let bytes = bytes[bytes.len() / 2];
            let ratio = |floor: Duration| ours.as_secs_f64() / floor.as_secs_f64();
            let against = |floor: Duration| format!("{} against {} a task", in_units(ours), in_units(floor));
            lines.extend([
                Line {
                    name: format!("claim and settlement, batch of {size}, {of}"),
                    measured: format!("{:.2} × one update: {}", ratio(once), against(once)),
                    goal: format!("{goal} ×"),
                    is_met: ratio(once) <= goal,
                },
                Line {
                    name: "… against two updates: with a lease".to_owned(),
                    measured: format!("{:.2} × both: {}", ratio(twice), against(twice)),
                    goal: String::new(),
                    is_met: true,
                },
                Line {
                    name: "… its log".to_owned(),
                    measured: format!("{bytes} bytes a task"),
                    goal: "1,000 bytes".to_owned(),
                    is_met: bytes <= 1000,
                },
            ]);
        }
        self.execute(&format!("delete from tasks where id > {}", self.tasks))
            .await?;
        self.execute("vacuum tasks, task_titles").await?;
        Ok(lines)
    }

    /// Batches while an old snapshot is open: Postgres can remove no dead row.
    async fn held_snapshot(&mut self) -> Result<Vec<Line>> {
        let mut holder = PgConnection::connect_with(&self.options).await?;
        sqlx::raw_sql("begin isolation level repeatable read; select from tasks limit 1")
            .execute(&mut holder)
            .await?;
        let mut tenths = Vec::new();
        for tenth in 1..=10 {
            eprintln!("  … {} of 200000 tasks while a snapshot is held", tenth * 20_000);
            let mut cpu = Duration::ZERO;
            for _ in 0..20 {
                let ids = self.insert(1000).await?;
                cpu += self.process(&ids).await?.0;
            }
            tenths.push(cpu / 20_000);
        }
        holder.close().await?;
        let ratio = tenths[9].as_secs_f64() / tenths[0].as_secs_f64();
        Ok(vec![Line {
            name: "a snapshot is held while 200,000 tasks are processed: the last tenth".to_owned(),
            measured: format!(
                "{ratio:.2} × the first: {} against {} a task",
                in_units(tenths[9]),
                in_units(tenths[0])
            ),
            goal: "1.5 ×".to_owned(),
            is_met: ratio <= 1.5,
        }])
    }

    /// Sweeps: while all messages wait in the queue, and after an outage of SQS in which this many
    /// tasks were created.
    async fn sweeps(&mut self, unsent: i64) -> Result<Vec<Line>> {
        let (queue, database) = (stub_of_sqs()?, Database::new(self.options.clone()));
        let (metrics, progress) = (Metrics::none(), Progress::default());
        let sweep = async |progress: &Progress| -> Result<_> {
            let started = Instant::now();
            let swept = sweep(&database, &queue, &metrics, &SETTINGS, progress, INVOCATION, None);
            Ok((swept.await?, started.elapsed()))
        };
        let mut lines = Vec::new();
        let tasks = self.tasks;
        eprintln!("  … adding {unsent} tasks without a message");
        self.execute(&format!(
            "truncate idempotency_keys;
             update tasks set enqueued_at = now() where status = 'pending';
             alter table tasks disable trigger user;
             insert into tasks (title, enqueued_at, updated_at)
             select 'Weekly report', now(), now() - interval '1 hour' from generate_series(1, {unsent});
             alter table tasks enable trigger user"
        ))
        .await?;
        let (report, took) = sweep(&Progress::default()).await?;
        lines.push(Line {
            name: format!("a sweep while {} messages wait in the queue", unsent + tasks / 20),
            measured: format!("{}, {} sent", in_units(took), report.sent),
            goal: "1 s, 0 sent".to_owned(),
            is_met: took <= Duration::from_secs(1) && report.sent == 0,
        });
        self.execute(&format!(
            "update tasks set enqueued_at = null where id > {tasks} and status = 'pending';
             update tasks set settled_at = settled_at - interval '2 days' where id <= 200000 and settled_at is not null;
             insert into idempotency_keys (key, fingerprint, task_id, expires_at)
             select gen_random_uuid(), '', n, now() - n * interval '1 ms' from generate_series(1, 180000) as n"
        ))
        .await?;
        let (mut sent, mut sweeps, mut first) = (0, 0, None);
        while sent < unsent as usize {
            let (report, took) = sweep(&progress).await?;
            sent += report.sent;
            sweeps += 1;
            eprintln!("  … sweep {sweeps}, {}: {report:?}", in_units(took));
            ensure!(report.sent > 0, "a sweep sent nothing, of {unsent} messages");
            if first.is_none() {
                first = Some(report);
            }
        }
        let first = first.context("there was a sweep")?;
        let keys = first.expired_keys;
        lines.extend([
            Line {
                name: format!("a sweep while {unsent} messages are missing"),
                measured: format!("{} sent, {}", first.sent, rest(first.left)),
                goal: "50,000 sent".to_owned(),
                is_met: first.sent >= 50_000_usize.min(unsent as usize),
            },
            Line {
                name: "… until none is missing, with a sweep each minute".to_owned(),
                measured: format!("{sweeps} minutes"),
                goal: "25 minutes".to_owned(),
                is_met: sweeps <= 25,
            },
            Line {
                name: "… expired keys in the first of these sweeps".to_owned(),
                measured: format!("{keys} deleted, {}", rest(first.expired_keys_left)),
                goal: "60,000 deleted: 1,000 a second".to_owned(),
                is_met: keys >= 60_000,
            },
            Line {
                name: "… old tasks (`TaskRetentionDays`)".to_owned(),
                measured: format!("{} deleted, {}", first.deleted_tasks, rest(first.old_tasks_left)),
                goal: String::new(),
                is_met: true,
            },
        ]);
        Ok(lines)
    }

    async fn delete(self) -> Result<()> {
        environment::delete_database(&self.options, self.connection).await
    }
}

/// A queue in a stub of SQS, which has its own thread.
fn stub_of_sqs() -> Result<TaskQueue> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let url = serve_after(SQS_TIME, |request: Request<Bytes>| {
                let request: Value = serde_json::from_slice(request.body()).unwrap_or_default();
                let accepted = |entry: &Value| json!({"Id": entry["Id"], "MessageId": "m", "MD5OfMessageBody": ""});
                let body = match request["Entries"].as_array() {
                    Some(entries) => {
                        json!({"Successful": entries.iter().map(accepted).collect::<Vec<_>>(), "Failed": []})
                    }
                    None => json!({"Attributes": BTreeMap::from([
                        ("ApproximateNumberOfMessages", "0"),
                        ("ApproximateNumberOfMessagesNotVisible", "0"),
                        ("ApproximateNumberOfMessagesDelayed", "0"),
                    ])}),
                };
                let response = HttpResponse::builder().header("content-type", "application/x-amz-json-1.0");
                response.body(body.to_string()).expect("a response")
            });
            sender.send(url.await)?;
            std::future::pending().await
        })
    });
    let config = queue::client_config()?.endpoint_url(receiver.recv()?);
    Ok(TaskQueue::new(config, "http://sqs/000000000000/stub".to_owned()))
}
