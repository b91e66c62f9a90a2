//! Query plans of all statements. (The pages of lists, in detail: `api::list_tasks`.)

use std::time::Duration;

use serde_json::{Value, json};
use shared::{
    domain::{Access, BulkAction, BulkFilter, BulkRequest, Filter, Input, Page, Sort, Status, TaskId},
    store::{
        Statement,
        bulk::{CHANGED, ContinueAction, CountMatching, StartAction},
        idempotency::{CountExpired, DeleteExpired},
        operating::{GroupFailures, ReadOverview},
        processing::{Claim, ClaimOutcome, ClaimRequest, Outcome, Settle},
        reconciling::{CountDue, CountSettled, DeleteSettled, Due, Range, TakeDue},
        tasks::{List, MarkEnqueued, Total},
    },
};
use sqlx::{Connection, PgConnection, PgPool};

use crate::support::{execute, plan_nodes, session, statements, task};

/// A statement's generic plan, which Postgres may use once it has run a prepared statement several
/// times.
async fn plan(query: &str, arguments: usize, connection: &mut PgConnection) -> Value {
    let nulls = vec!["null"; arguments].join(", ");
    let nulls = if nulls.is_empty() { nulls } else { format!("({nulls})") };
    let mut run = async |sql: &str| {
        let done = sqlx::raw_sql(sql).execute(&mut *connection).await;
        done.expect("the statement is valid");
    };
    run("set plan_cache_mode = force_generic_plan").await;
    run(&format!("prepare statement as {query}")).await;
    let plan: Value = sqlx::query_scalar(&format!("explain (format json) execute statement {nulls}"))
        .fetch_one(&mut *connection)
        .await
        .expect("a plan");
    let done = sqlx::raw_sql("deallocate statement").execute(connection).await;
    done.expect("it was prepared");
    plan[0]["Plan"].clone()
}

/// The tables that a plan reads as a whole.
fn scanned(plan: &Value) -> Vec<&str> {
    let scans = plan_nodes(plan)
        .into_iter()
        .filter(|node| node["Node Type"] == "Seq Scan");
    scans
        .map(|node| node["Relation Name"].as_str().expect("a table"))
        .collect()
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn no_statement_scans_a_table(pool: PgPool) {
    // As in production: nearly all tasks are settled.
    execute(
        &pool,
        "insert into tasks (title, status, enqueued_at, settled_at, created_by)
         select 'task ' || n, case n % 1000 when 0 then 'pending'::task_status else 'completed' end, now(),
                case when n % 1000 > 0 then now() - n * interval '1 s' end, 'user ' || n % 100
         from generate_series(1, 50000) as n",
    )
    .await;
    execute(
        &pool,
        "insert into idempotency_keys (key, fingerprint, task_id, created_at, expires_at)
         select 'key ' || n, '', n, now(), now() + (n - 100) * interval '1 s' from generate_series(1, 20000) as n",
    )
    .await;
    execute(
        &pool,
        "insert into operator_actions (operator, action) select 'alice', 'delete' from generate_series(1, 20000)",
    )
    .await;
    execute(&pool, "vacuum analyze").await;
    let mut connection = pool.acquire().await.expect("a connection");
    let mut checked = 0;
    for (query, arguments) in statements() {
        let plan = plan(&query, arguments, &mut connection).await;
        let scanned = scanned(&plan);
        assert!(scanned.is_empty(), "{scanned:?}: {query}");
        checked += 1;
    }
    assert!(checked > 25, "only {checked} statements");
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn no_plan_for_small_tables_scans_them(pool: PgPool) {
    execute(&pool, "insert into tasks (title) values ('t')").await;
    execute(&pool, "vacuum analyze").await;
    let mut connection = session(&pool).await;
    for (query, arguments) in statements() {
        let plan = plan(&query, arguments, &mut connection).await;
        let scanned = scanned(&plan);
        assert!(scanned.is_empty(), "{scanned:?}: {query}");
    }
}

/// The statements whose generic plan Postgres compiles before it runs them, if that costs more than
/// nothing: as with a large table.
async fn compiled(connection: &mut PgConnection) -> Vec<String> {
    let mut compiled = Vec::new();
    for (query, arguments) in statements() {
        let nulls = format!("({})", vec!["null"; arguments].join(", "));
        let nulls = if arguments == 0 { "" } else { &nulls };
        let mut run = async |sql: &str| {
            let done = sqlx::raw_sql(sql).execute(&mut *connection).await;
            done.expect("the statement is valid");
        };
        run("set plan_cache_mode = force_generic_plan; set jit_above_cost = 0").await;
        run(&format!("prepare statement as {query}")).await;
        let explain = format!("explain (format json) execute statement {nulls}");
        let plan: Value = sqlx::query_scalar(&explain)
            .fetch_one(&mut *connection)
            .await
            .expect("a plan");
        let done = sqlx::raw_sql("deallocate statement").execute(&mut *connection).await;
        done.expect("it was prepared");
        if !plan[0]["JIT"].is_null() {
            compiled.push(query);
        }
    }
    compiled
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn no_statement_is_compiled(pool: PgPool) {
    let mut connection = session(&pool).await;
    assert_eq!(compiled(&mut connection).await, Vec::<String>::new());
    // Where Postgres can, it would.
    let done = sqlx::raw_sql("set jit = on").execute(&mut connection).await;
    done.expect("it is a setting");
    let can_compile: bool = sqlx::query_scalar("select pg_jit_available()")
        .fetch_one(&mut connection)
        .await
        .expect("it says");
    assert_eq!(!compiled(&mut connection).await.is_empty(), can_compile);
}

/// The index conditions by which a plan finds rows of `tasks`.
fn conditions(plan: &Value) -> Vec<&str> {
    let reads = |node: &&Value| node["Relation Name"] == "tasks" && node["Node Type"] != "ModifyTable";
    let nodes = plan_nodes(plan).into_iter().filter(reads);
    nodes
        .map(|node| node["Index Cond"].as_str().unwrap_or_default())
        .collect()
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn settle_finds_tasks_by_id(pool: PgPool) {
    execute(
        &pool,
        "insert into tasks (title, status, settled_at) select 'done', 'completed', now() from generate_series(1, 10000)",
    )
    .await;
    execute(&pool, "vacuum analyze").await;
    let settle = |(query, _): &(String, usize)| query.contains("as outcome (");
    let (query, arguments) = statements()
        .into_iter()
        .find(settle)
        .expect("the statement of `Settle`");
    let mut connection = pool.acquire().await.expect("a connection");
    let plan = plan(&query, arguments, &mut connection).await;
    // Otherwise it scans all `processing` tasks and compares each with every outcome.
    let found = conditions(&plan);
    let by_id = |condition: &&str| condition.contains("id = ");
    assert!(found.len() == 2 && found.iter().all(by_id), "{found:?} in {plan:#}");
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn marking_and_claiming_are_hot_updates(pool: PgPool) {
    let id = TaskId::try_from(task(&pool, "t").await).expect("an id");
    let mut transaction = pool.begin().await.expect("a transaction");
    MarkEnqueued { id, run_at: None }
        .run(&mut transaction)
        .await
        .expect("the task is marked");
    let claim = Claim {
        requests: &[ClaimRequest { id, sent_at: None }],
        lease: Duration::from_secs(60),
    };
    let claimed = claim.run(&mut transaction).await.expect("run");
    assert!(matches!(claimed[&id], ClaimOutcome::Claimed(_)), "{claimed:?}");
    let updates: (i64, i64) =
        sqlx::query_as("select n_tup_upd, n_tup_hot_upd from pg_stat_xact_user_tables where relname = 'tasks'")
            .fetch_one(&mut *transaction)
            .await
            .expect("Postgres counts");
    assert_eq!(updates, (2, 2), "all updates, HOT updates");
}

/// Adds tasks, nine of ten settled in the last half hour, the others waiting, and as many keys, nine
/// of ten expired; and a fifth as many scheduled tasks, a tenth of them due.
async fn grow(pool: &PgPool, rows: i64) {
    let tasks = format!(
        "insert into tasks (title, status, created_at, requested_at, updated_at, enqueued_at, started_at, settled_at, created_by)
         select 'task ' || n,
                case when is_open then 'pending'::task_status when n % 7 = 0 then 'failed' else 'completed' end,
                at, at, at, case when n % 20 > 0 then now() end, at,
                case when not is_open then at + interval '1 s' end, 'user ' || n % 2
         from generate_series(1, {rows}) as n,
              lateral (select n % 10 = 0, now() - interval '29 minutes' * (1 - n::float8 / {rows})) as task (is_open, at)"
    );
    execute(pool, &tasks).await;
    let scheduled = format!(
        "insert into tasks (title, status, updated_at, enqueued_at, run_at, created_by)
         select 'task ' || n, 'scheduled', '2020-01-01', case when n % 20 > 0 then now() end,
                case when n <= {rows} / 50 then now() - {rows} * interval '1 s' - n * interval '1 ms' else now() + n * interval '1 h' end,
                'user ' || n % 2
         from generate_series(1, {rows} / 5) as n"
    );
    execute(pool, &scheduled).await;
    let keys = format!(
        "insert into idempotency_keys (key, fingerprint, task_id, expires_at)
         select gen_random_uuid(), '', n, now() + (n - {rows} * 0.9) * interval '1 ms' from generate_series(1, {rows}) as n"
    );
    execute(pool, &keys).await;
}

/// How many blocks of tables and indexes this transaction has read. Postgres adds up those of the
/// transactions before as well.
async fn fetched(transaction: &mut PgConnection) -> i64 {
    let fetched = "select sum(pg_stat_get_xact_blocks_fetched(oid))::bigint
                   from pg_class
                   where relnamespace = 'public'::regnamespace";
    let fetched = sqlx::query_scalar(fetched).fetch_one(transaction).await;
    fetched.expect("Postgres counts")
}

/// How many blocks a statement reads in a session as the functions have it, with the plan for its
/// arguments: Postgres keeps to it, because the one for any arguments assumes a much larger limit.
async fn blocks(pool: &PgPool, statement: &impl Statement) -> i64 {
    let mut connection = session(pool).await;
    let mut transaction = connection.begin().await.expect("a transaction");
    let custom = sqlx::raw_sql("set local plan_cache_mode = force_custom_plan");
    custom.execute(&mut *transaction).await.expect("it is a setting");
    let before = fetched(&mut transaction).await;
    statement.run(&mut transaction).await.expect("the statement runs");
    let after = fetched(&mut transaction).await;
    transaction.rollback().await.expect("rolled back");
    after - before
}

/// A step of a new action about many tasks.
struct FirstStep<'a> {
    action: BulkAction,
    filter: &'a BulkFilter,
}

impl Statement for FirstStep<'_> {
    type Output = ();

    async fn run(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let &Self { action, filter } = self;
        let operator = "admin";
        let start = StartAction {
            operator,
            action,
            filter,
        };
        let id = start.run(connection).await?;
        ContinueAction(id).run(connection).await.map(|_| ())
    }
}

/// The tasks that are due with the usual settings, with lost ones.
const ALL_DUE: Due = Due {
    unsent_after: Duration::from_secs(10),
    lost_after: Duration::from_secs(900),
    include_lost: true,
    max_attempts: 10,
};

/// The statements whose costs grew with the table or the backlog before they had limits.
async fn blocks_of_all(pool: &PgPool) -> Vec<(String, i64)> {
    let due = ALL_DUE;
    let (from, older_than) = (None, Duration::from_secs(60));
    let mut read = Vec::new();
    for newest_first in [false, true] {
        macro_rules! walk {
            ($name:literal, $range:expr) => {
                let (range, limit) = (&$range, 500);
                let take = TakeDue {
                    due,
                    range,
                    newest_first,
                    limit,
                };
                read.push((
                    format!("TakeDue, {}, {newest_first}", $name),
                    blocks(pool, &take).await,
                ));
                let limit = 1000;
                let count = CountDue {
                    due,
                    range,
                    newest_first,
                    limit,
                };
                read.push((
                    format!("CountDue, {}, {newest_first}", $name),
                    blocks(pool, &count).await,
                ));
            };
        }
        walk!("open", Range::open());
        walk!("scheduled", Range::scheduled());
    }
    let limit = 1000;
    read.push((
        "DeleteExpired".to_owned(),
        blocks(pool, &DeleteExpired { from, limit }).await,
    ));
    read.push((
        "CountExpired".to_owned(),
        blocks(pool, &CountExpired { from, limit }).await,
    ));
    let delete = DeleteSettled {
        older_than,
        from,
        limit,
    };
    read.push(("DeleteSettled".to_owned(), blocks(pool, &delete).await));
    let count = CountSettled {
        older_than,
        from,
        limit,
    };
    read.push(("CountSettled".to_owned(), blocks(pool, &count).await));
    for access in [Access::All, Access::Own("user 0"), Access::Own("nobody")] {
        for status in [
            None,
            Some(Status::Pending),
            Some(Status::Processing),
            Some(Status::Completed),
            Some(Status::Failed),
            Some(Status::Scheduled),
        ] {
            for (sort, skip, count) in [
                (Sort::OldestFirst, 0, true),
                (Sort::NewestFirst, 0, true),
                (Sort::OldestFirst, 1000, false),
            ] {
                let page = &Page {
                    skip,
                    limit: 10,
                    sort,
                    filter: Filter { status, title: None },
                    count,
                    ..Page::default()
                };
                let name = format!(
                    "List, {access:?} {status:?} {sort:?}{}",
                    if count { ", counted" } else { "" }
                );
                read.push((name, blocks(pool, &List { page, access }).await));
            }
        }
    }
    read.push(("ReadOverview".to_owned(), blocks(pool, &ReadOverview).await));
    read.push(("GroupFailures".to_owned(), blocks(pool, &GroupFailures).await));
    for (action, body) in [
        (BulkAction::Retry, json!({"q": "task 1"})),
        (BulkAction::Retry, json!({"error": "none"})),
        (BulkAction::Cancel, json!({"q": "none"})),
        (BulkAction::Cancel, json!({"status": "pending", "created_by": "user 0"})),
        (
            BulkAction::Cancel,
            json!({"status": "scheduled", "created_by": "user 0"}),
        ),
        (BulkAction::Delete, json!({"created_by": "user 1"})),
        (BulkAction::Delete, json!({"created_before": "2000-01-01T00:00:00Z"})),
    ] {
        let name = format!("{action:?} {body}");
        let mut body = body;
        body["action"] = json!(action.as_str());
        let filter = &BulkRequest::parse(body).expect("valid").filter();
        let count = CountMatching { action, filter };
        read.push((format!("CountMatching, {name}"), blocks(pool, &count).await));
        let step = FirstStep { action, filter };
        read.push((format!("ContinueAction, {name}"), blocks(pool, &step).await));
    }
    read
}

/// The table without vacuums of its own, which would renew the statistics.
async fn with_own_statistics(pool: &PgPool) {
    execute(pool, "alter table tasks set (autovacuum_enabled = false)").await;
    // No statement here uses the copies of the titles.
    execute(pool, "alter table tasks disable trigger user").await;
}

const ROWS: i64 = 60_000;

/// Compares the blocks read of up to `4 * ROWS` tasks with others.
fn assert_no_more(large: &[(String, i64)], small: &[(String, i64)]) {
    let mut grown = Vec::new();
    for ((name, small), (_, large)) in std::iter::zip(small, large) {
        // Four times as many rows; the sample grows. A sweep reads the pages of at most 1,000 rows, or
        // none after a vacuum. There were fewer pending tasks than are counted at most.
        let more = match name.as_str() {
            "ReadOverview" => Total::MAX_COUNTED + 4 * ROWS / 512,
            // There were fewer failures than are read at most.
            "GroupFailures" => 10_000,
            // There were fewer tasks of each status than are examined.
            name if name.starts_with("CountMatching") => Total::MAX_COUNTED,
            name if name.starts_with("ContinueAction") => Total::MAX_COUNTED + 10 * CHANGED,
            name if name.ends_with(", counted") => Total::MAX_COUNTED,
            name if name.starts_with("List") => 100,
            _ => 1000,
        };
        if *large > 2 * small + more {
            grown.push(format!("{name}: {small} blocks, now {large}"));
        }
    }
    assert!(grown.is_empty(), "{}", grown.join("\n"));
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn costs_do_not_grow_with_rows(pool: PgPool) {
    with_own_statistics(&pool).await;
    grow(&pool, ROWS).await;
    execute(&pool, "vacuum analyze").await;
    let small = blocks_of_all(&pool).await;
    // With the statistics of then: stale, as after a night without ANALYZE.
    grow(&pool, 3 * ROWS).await;
    let stale = blocks_of_all(&pool).await;
    execute(&pool, "vacuum analyze").await;
    let fresh = blocks_of_all(&pool).await;
    for large in [stale, fresh] {
        assert_no_more(&large, &small);
    }
}

/// Of what statements look for, there is much where the statistics expect little, or little where they
/// expect much.
#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn wrong_statistics_do_not_cost_more(pool: PgPool) {
    with_own_statistics(&pool).await;
    let completed = format!(
        "insert into tasks (title, status, created_at, settled_at)
         select 'task', 'completed', '2020-01-01', '2020-01-01' from generate_series(1, {ROWS})"
    );
    execute(&pool, &completed).await;
    execute(&pool, "vacuum analyze").await;
    grow(&pool, 4 * ROWS).await;
    let unexpected = blocks_of_all(&pool).await;
    execute(&pool, "vacuum analyze").await;
    let expected = blocks_of_all(&pool).await;
    assert_no_more(&unexpected, &expected);
    // The few that remain are neighbors, so pages of them are as dense as before.
    let remaining = format!(
        "update tasks
         set status = 'completed', run_at = null, created_by = null, settled_at = created_at
         where id > {ROWS} + 1000 and (status <> 'completed' or created_by is not null)"
    );
    execute(&pool, &remaining).await;
    execute(&pool, "vacuum").await;
    assert_no_more(&blocks_of_all(&pool).await, &expected);
}

/// The tasks behind the end of a range may have the same status, or be scheduled for the same time.
#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn walk_ends_where_its_range_ends(pool: PgPool) {
    with_own_statistics(&pool).await;
    let insert = async |tasks: i64| {
        let sql = format!(
            "insert into tasks (title, status, run_at, updated_at)
             select 'task', status::task_status, case status when 'scheduled' then timestamptz '2020-01-01' end, '2020-01-01'
             from generate_series(1, {tasks}), unnest(array['pending', 'scheduled']) as statuses (status)"
        );
        execute(&pool, &sql).await;
    };
    insert(100).await;
    macro_rules! blocks_of_ends {
        ($all:expr) => {{
            let all = $all;
            let mut transaction = pool.begin().await.expect("a transaction");
            let mut place = async |newest_first| {
                let (due, range, limit) = (ALL_DUE, &all, 100);
                let take = TakeDue {
                    due,
                    range,
                    newest_first,
                    limit,
                };
                let taken = take.run(&mut transaction).await.expect("taken");
                assert_eq!((taken.to_send.len(), taken.examined), (100, 100));
                taken.last.expect("a place")
            };
            insert(100_000).await;
            let ends = [(false, place(false).await), (true, place(true).await)];
            transaction.rollback().await.expect("rolled back");
            let mut read = Vec::new();
            for (newest_first, place) in ends {
                let mut range = all.clone();
                if newest_first {
                    range.after = place;
                } else {
                    range.before = place;
                }
                let (due, range, limit) = (ALL_DUE, &range, 1000);
                read.push(
                    blocks(
                        &pool,
                        &CountDue {
                            due,
                            range,
                            newest_first,
                            limit,
                        },
                    )
                    .await,
                );
            }
            read
        }};
    }
    let read = [blocks_of_ends!(Range::open()), blocks_of_ends!(Range::scheduled())];
    assert!(read.iter().flatten().all(|blocks| *blocks < 100), "{read:?}");
}

/// Creates, claims and settles a hundred tasks. Returns how many blocks claim and settlement read.
async fn blocks_of_batch(pool: &PgPool) -> i64 {
    let mut transaction = pool.begin().await.expect("a transaction");
    let insert = "insert into tasks (title) select 't' from generate_series(1, 100) returning id";
    let ids: Vec<i64> = sqlx::query_scalar(insert)
        .fetch_all(&mut *transaction)
        .await
        .expect("tasks");
    let ids = ids.into_iter().map(|id| TaskId::try_from(id).expect("an id"));
    let requests: Vec<ClaimRequest> = ids.map(|id| ClaimRequest { id, sent_at: None }).collect();
    transaction.commit().await.expect("committed");

    let mut transaction = pool.begin().await.expect("a transaction");
    let before = fetched(&mut transaction).await;
    let claim = Claim {
        requests: &requests,
        lease: Duration::from_secs(60),
    };
    let claims = claim.run(&mut transaction).await.expect("run");
    let outcomes: Vec<Outcome> = claims
        .into_iter()
        .map(|(id, claim)| match claim {
            ClaimOutcome::Claimed(claimed) => Outcome {
                id,
                fencing_token: claimed.fencing_token,
                status: Status::Completed,
                result: None,
            },
            other => panic!("{other:?}"),
        })
        .collect();
    let settled = Settle(&outcomes).run(&mut transaction).await.expect("run");
    assert_eq!(settled.len(), 100);
    let after = fetched(&mut transaction).await;
    transaction.commit().await.expect("committed");
    after - before
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn open_snapshot_does_not_slow_batches(pool: PgPool) {
    execute(&pool, "alter table tasks set (autovacuum_enabled = false)").await;
    // As the worker of a queue in Postgres does: it looks for tasks, and so passes those that are dead.
    const POLL: &str =
        "select count(*) from (select from tasks where status = 'pending' order by id limit 100) as next";
    let poll = async || {
        let mut transaction = pool.begin().await.expect("a transaction");
        let before = fetched(&mut transaction).await;
        let pending: i64 = sqlx::query_scalar(POLL)
            .fetch_one(&mut *transaction)
            .await
            .expect("a number");
        assert_eq!(pending, 0);
        fetched(&mut transaction).await - before
    };
    let mut holder = pool.acquire().await.expect("a connection");
    let hold = sqlx::raw_sql("begin isolation level repeatable read; select from tasks limit 1");
    hold.execute(&mut *holder).await.expect("a snapshot");

    let (first, first_poll) = (blocks_of_batch(&pool).await, poll().await);
    for _ in 0..30 {
        blocks_of_batch(&pool).await;
    }
    let (last, last_poll) = (blocks_of_batch(&pool).await, poll().await);
    assert!(last <= first * 3 / 2, "{first} blocks, now {last}");
    assert!(
        last_poll > 5 * first_poll,
        "the snapshot has no effect: {first_poll}, {last_poll}"
    );
    let close = sqlx::raw_sql("rollback").execute(&mut *holder).await;
    close.expect("it was open");
}
