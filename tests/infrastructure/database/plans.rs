//! Query plans of all statements. (The pages of lists, in detail: `api::list_tasks`.)

use std::time::Duration;

use serde_json::Value;
use shared::{
    domain::TaskId,
    store::{
        Statement,
        processing::{Claim, ClaimOutcome, ClaimRequest},
        tasks::MarkEnqueued,
    },
};
use sqlx::{PgConnection, PgPool};

use crate::support::{execute, plan_nodes, statements, task};

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

/// Text that marks the statements that count rows, and therefore scan a whole table.
const COUNTS: [&str; 2] = ["or id in (", "by_status as ("];

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
async fn only_counting_statements_scan_a_table(pool: PgPool) {
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
    execute(&pool, "vacuum analyze").await;
    let mut connection = pool.acquire().await.expect("a connection");
    let mut checked = 0;
    for (query, arguments) in statements() {
        let plan = plan(&query, arguments, &mut connection).await;
        let scanned = scanned(&plan);
        let counts = COUNTS.iter().any(|count| query.contains(count));
        assert!(counts || scanned.is_empty(), "{scanned:?}: {query}");
        checked += usize::from(!counts);
    }
    assert!(checked > 25, "only {checked} statements");
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
    MarkEnqueued(id)
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
