//! How Postgres finds the rows of each statement. (The pages of lists, in detail: `api::list_tasks`.)

use std::fs;

use serde_json::Value;
use sqlx::PgPool;

use crate::support::execute;

/// What the statements have in them that look at every row, because they count them.
const COUNTS: [&str; 2] = ["or bigrams(title) @> bigrams($2)", "by_status as ("];

/// The tables that a plan reads from one end to the other.
fn scanned(plan: &Value) -> Vec<String> {
    let below = plan["Plans"].as_array().into_iter().flatten().flat_map(scanned);
    let is_scan = plan["Node Type"] == "Seq Scan";
    let own = is_scan.then(|| plan["Relation Name"].as_str().expect("a table").to_owned());
    own.into_iter().chain(below).collect()
}

#[sqlx::test(migrator = "shared::store::MIGRATIONS")]
async fn no_statement_reads_a_whole_table_except_to_count_it(pool: PgPool) {
    // As after a while: nearly everything is done.
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
    // As for a statement that was run so often that Postgres no longer looks at its arguments.
    let prepare = "set plan_cache_mode = force_generic_plan";
    sqlx::raw_sql(prepare).execute(&mut *connection).await.expect("valid");
    let mut checked = 0;
    // The statements as they were compiled into the functions.
    for entry in fs::read_dir("../.sqlx").expect(".sqlx") {
        let text = fs::read_to_string(entry.expect("an entry").path()).expect("text");
        let statement: Value = serde_json::from_str(&text).expect("JSON");
        let query = statement["query"].as_str().expect("a query");
        let arguments = statement["describe"]["parameters"]["Left"].as_array().expect("types");
        let arguments = vec!["null"; arguments.len()].join(", ");
        let arguments = if arguments.is_empty() {
            arguments
        } else {
            format!("({arguments})")
        };
        let prepare = format!("prepare statement as {query}");
        sqlx::raw_sql(&prepare).execute(&mut *connection).await.expect("valid");
        let plan: Value = sqlx::query_scalar(&format!("explain (format json) execute statement {arguments}"))
            .fetch_one(&mut *connection)
            .await
            .expect("a plan");
        sqlx::raw_sql("deallocate statement")
            .execute(&mut *connection)
            .await
            .expect("valid");
        let scanned = scanned(&plan[0]["Plan"]);
        let counts = COUNTS.iter().any(|count| query.contains(count));
        assert!(counts || scanned.is_empty(), "{scanned:?}: {query}");
        checked += usize::from(!counts);
    }
    assert!(checked > 25, "only {checked} statements");
}
