//! The blocks that statements read of few and of many tasks, with statistics from before and after
//! the tasks that they look for. Blocks do not depend on the machine's load.

use serde_json::Value;
use sqlx::{PgConnection, PgPool};

use crate::support::{execute, plan_nodes, statements};

const FEW: i64 = 20_000;
const MANY: i64 = 200_000;

/// How many of the tasks wait.
const WAITING: i64 = 1000;

/// The statement whose text contains this.
fn statement(part: &str) -> String {
    let found: Vec<String> = statements()
        .into_iter()
        .map(|(query, _)| query)
        .filter(|query| query.contains(part))
        .collect();
    assert_eq!(found.len(), 1, "{part}: {found:?}");
    found[0].clone()
}

/// Runs a statement and returns the blocks it read, and the rows that its joins compared in vain. It
/// has no effect.
async fn cost(query: &str, arguments: &str, mode: &str, connection: &mut PgConnection) -> (i64, i64) {
    let mut run = async |sql: String| {
        let done = sqlx::raw_sql(&sql).execute(&mut *connection).await;
        done.unwrap_or_else(|error| panic!("{error}: {sql}"));
    };
    run(format!(
        "begin; set local plan_cache_mode = {mode}; prepare statement as {query}"
    ))
    .await;
    let plan: Value = sqlx::query_scalar(&format!(
        "explain (analyze, buffers, format json) execute statement ({arguments})"
    ))
    .fetch_one(&mut *connection)
    .await
    .unwrap_or_else(|error| panic!("{error}: {query}"));
    let done = sqlx::raw_sql("rollback; deallocate statement")
        .execute(connection)
        .await;
    done.expect("it was prepared");
    let plan = &plan[0]["Plan"];
    let number = |node: &Value, name: &str| node[name].as_i64().unwrap_or_default();
    let blocks = number(plan, "Shared Hit Blocks") + number(plan, "Shared Read Blocks");
    let loops = |node: &Value| number(node, "Actual Loops");
    let compared = plan_nodes(plan)
        .into_iter()
        .map(|node| number(node, "Rows Removed by Join Filter") * loops(node))
        .sum();
    (blocks, compared)
}

/// Fills the table as in production: nearly all tasks are settled. Statistics are those from before
/// the waiting ones.
async fn fill(pool: &PgPool, tasks: i64) {
    for sql in [
        "truncate tasks restart identity",
        "truncate task_titles",
        "drop index task_titles_parts",
        "alter table tasks disable trigger tasks_title_inserted",
        &format!(
            "insert into tasks (title, status, enqueued_at, settled_at, created_by)
             select 'task ' || n || case when n % {FEW} = 7 then ' ~needle' else '' end,
                    case n % 100 when 0 then 'failed'::task_status else 'completed' end, now(), now(), 'user ' || n % 100
             from generate_series(1, {tasks} - {WAITING}) as n"
        ),
        "insert into task_titles select id, title from tasks",
        r#"create index task_titles_parts on task_titles using gin (title_parts(title) collate "C")"#,
        "vacuum analyze tasks, task_titles",
        "alter table tasks enable trigger tasks_title_inserted",
        &format!(
            "insert into tasks (title, enqueued_at, fencing_token)
             select 'waiting', now(), 1 from generate_series(1, {WAITING})"
        ),
    ] {
        execute(pool, sql).await;
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn statements_read_as_much_of_many_tasks_as_of_few(pool: PgPool) {
    let (claim, settle) = (statement("claimable as ("), statement("as outcome ("));
    let (judge, search) = (statement("generate_series(0, 127)"), "found as materialized (");
    let searches = statements()
        .into_iter()
        .map(|(query, _)| query)
        .filter(|query| query.contains(search));
    let walks = statements()
        .into_iter()
        .map(|(query, _)| query)
        .filter(|query| query.contains("is_last"));
    let (searches, walks): (Vec<String>, Vec<String>) = (searches.collect(), walks.collect());
    assert_eq!((searches.len(), walks.len()), (2, 6));
    // All costs, in the same order for each size.
    let mut costs: Vec<Vec<(String, i64)>> = Vec::new();
    for tasks in [FEW, MANY] {
        fill(&pool, tasks).await;
        let mut connection = pool.acquire().await.expect("a connection");
        let mut of_size = Vec::new();
        let waiting = format!("array(select id from tasks where id > {tasks} - {WAITING})::bigint[]",);
        let ids: Vec<i64> = (tasks - WAITING + 1..=tasks).collect();
        let ids = format!("{ids:?}").replace('[', "'{").replace(']', "}'");
        let all = |value: &str| format!("array_fill({value}, array[{WAITING}])");
        for statistics in ["stale", "fresh"] {
            for mode in ["force_custom_plan", "force_generic_plan"] {
                let mut measure = async |name: &str, query: &str, arguments: &str, most: i64| {
                    let (blocks, compared) = cost(query, arguments, mode, &mut connection).await;
                    let name = format!("{name}, {statistics}, {mode}");
                    assert!(compared <= WAITING, "{name}: {compared} rows compared in vain");
                    assert!(blocks <= most, "{name}: {blocks} blocks of {tasks} tasks");
                    of_size.push((name, blocks));
                };
                let claims = format!("{ids}, {}, 60", all("null::timestamptz"));
                // Without what earlier measurements rolled back.
                execute(&pool, "vacuum tasks").await;
                measure("claim", &claim, &claims, 40 * WAITING).await;
                let outcomes = format!(
                    "{ids}, {}, {}, {}",
                    all("1::bigint"),
                    all("'completed'::text"),
                    all("'r'::text")
                );
                execute(
                    &pool,
                    &format!("update tasks set lease_expires_at = now() where id = any ({waiting})"),
                )
                .await;
                execute(&pool, "vacuum tasks").await;
                measure("settle", &settle, &outcomes, 60 * WAITING).await;
                execute(
                    &pool,
                    &format!("update tasks set lease_expires_at = null where id = any ({waiting})"),
                )
                .await;

                measure("judge", &judge, "'needle', 10000", 2000).await;
                for query in &searches {
                    let from = if query.contains("< $1") { i64::MAX } else { 0 };
                    for text in ["~", "needle"] {
                        let arguments = format!("{from}, 0, 101, '{text}', null, null");
                        measure(&format!("search {text}"), query, &arguments, 2000).await;
                    }
                }
                // The walks at their worst: nothing matches.
                // To read a table of this size as a whole would cost Postgres less than as many random reads.
                let walk_mode = format!("{mode}; set local enable_seqscan = off");
                for query in &walks {
                    let from = if query.contains("< $1") { i64::MAX } else { 0 };
                    let status = if query.contains("::text::task_status") {
                        ", 'completed'"
                    } else {
                        ""
                    };
                    let owner = if query.contains("created_by = ") {
                        ", 'user 7'"
                    } else {
                        ""
                    };
                    let arguments = format!("{from}, 101, 5000, 'absent', null{status}{owner}");
                    let (blocks, _) = cost(query, &arguments, &walk_mode, &mut connection).await;
                    assert!(
                        blocks <= 5100,
                        "walk, {statistics}, {mode}: {blocks} blocks of {tasks} tasks"
                    );
                }
            }
            execute(&pool, "analyze").await;
        }
        costs.push(of_size);
    }
    for ((name, few), (_, many)) in costs[0].iter().zip(&costs[1]) {
        // Indexes are a level deeper, of which an outcome visits several. The needle occurs once in so many.
        let is_bounded = name.starts_with("search");
        assert!(is_bounded || *many <= few * 2 + 50, "{name}: {few} and {many} blocks");
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn old_snapshot_does_not_slow_batches(pool: PgPool) {
    let (claim, settle) = (statement("claimable as ("), statement("as outcome ("));
    fill(&pool, FEW).await;
    // A backup, or a forgotten session: no version that it can see may be removed.
    let mut holder = pool.acquire().await.expect("a connection");
    sqlx::raw_sql("begin isolation level repeatable read; select count(*) from tasks")
        .execute(&mut *holder)
        .await
        .expect("a snapshot");
    let mut connection = pool.acquire().await.expect("a connection");
    let mut blocks = Vec::new();
    for round in 0..20 {
        let first = FEW + 1 + round * 500;
        execute(
            &pool,
            "insert into tasks (title, enqueued_at) select 't', now() from generate_series(1, 500)",
        )
        .await;
        let ids: Vec<i64> = (first..first + 500).collect();
        let ids = format!("{ids:?}").replace('[', "'{").replace(']', "}'");
        let all = |value: &str| format!("array_fill({value}, array[500])");
        let claims = format!("{ids}, {}, 60", all("null::timestamptz"));
        let outcomes = format!(
            "{ids}, {}, {}, {}",
            all("1::bigint"),
            all("'completed'::text"),
            all("'r'::text")
        );
        let mut of_round = 0;
        for (query, arguments) in [(&claim, &claims), (&settle, &outcomes)] {
            of_round += cost(query, arguments, "auto", &mut connection).await.0;
            let prepare = format!("prepare statement as {query}");
            let execute = format!("execute statement ({arguments})");
            for sql in [&prepare, &execute, "deallocate statement"] {
                sqlx::raw_sql(sql).execute(&mut *connection).await.expect("valid");
            }
        }
        blocks.push(of_round);
    }
    let settled: i64 = sqlx::query_scalar("select count(*) from tasks where id > 20000 and status = 'completed'")
        .fetch_one(&pool)
        .await
        .expect("a count");
    assert_eq!(settled, 20 * 500);
    assert!(blocks[19] <= blocks[1] * 6 / 5, "{blocks:?}");
    sqlx::raw_sql("rollback").execute(&mut *holder).await.expect("ended");
}
