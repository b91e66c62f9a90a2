//! slow-list: a page of a caller's tasks takes one round trip and an index scan.
// functions: list-tasks

use grading::{Function, Response, TestEnvironment, events, eventually, migrations};
use serde_json::Value;
use sqlx::{Connection, PgConnection};

/// How many tasks the large table has. Every fifth belongs to `big`, and every thousandth of those
/// has failed; of the others, every second.
const TASKS: i64 = 200_000;

/// How many blocks a page of 100 tasks may read. The tasks and their index path take about 105; all
/// tasks of a large caller take 3,600.
const BLOCKS: i64 = 800;

/// The slow release's migration, and the checksum of its file.
const RELEASED: i64 = 11;
const CHECKSUM: &str =
    "72832975189669a876892b104d7d6e5e15b09e63ef3976fc0e95332d282a62c82ea08f924417d3459cabe2ac65be5b9f";

fn list(caller: &str, query: &[(&str, &str)]) -> Value {
    let list = events::by(events::rest("GET", "/tasks", None), caller, false);
    let with = |event, (name, value): &(&str, &str)| events::with_query(event, name, value);
    query.iter().fold(list, with)
}

fn ids(response: &Response) -> Vec<i64> {
    assert_eq!(response.status, 200, "the status of GET /tasks: {}", response.body);
    let tasks = response.json();
    let tasks = tasks.as_array().expect("an array");
    tasks.iter().filter_map(|task| task["id"].as_i64()).collect()
}

/// The query of a `Link` header's relation.
fn link(response: &Response, relation: &str) -> Option<Vec<(String, String)>> {
    let relation = format!(">; rel=\"{relation}\"");
    let links = response.header("link").split(", ");
    let mut queries = links.filter_map(|link| link.strip_prefix("<?")?.strip_suffix(&relation));
    let pairs = queries.next()?.split('&');
    let pairs = pairs.filter_map(|pair| pair.split_once('='));
    Some(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

fn as_texts(query: &[(String, String)]) -> Vec<(&str, &str)> {
    query.iter().map(|(name, value)| (&**name, &**value)).collect()
}

/// Follows the links of a list from page to page.
async fn read_all(function: &mut Function, caller: &str, query: &[(&str, &str)], relation: &str) -> Vec<Vec<i64>> {
    let mut response = function.call(&list(caller, query)).await;
    let mut pages = vec![ids(&response)];
    while let Some(query) = link(&response, relation) {
        response = function.call(&list(caller, &as_texts(&query))).await;
        pages.push(ids(&response));
        assert!(pages.len() < 1000, "the links do not end");
    }
    pages
}

/// Some tasks of two callers.
async fn small_table(environment: &TestEnvironment) {
    environment
        .execute(
            "insert into tasks (title, created_by)
             select 'task ' || n, case n % 2 when 0 then 'even' else 'odd' end from generate_series(1, 50) as n",
        )
        .await;
}

/// Fills the table as after some years.
async fn large_table(environment: &TestEnvironment) {
    let mut connection = PgConnection::connect(&measured(environment))
        .await
        .expect("a connection");
    // Maintaining the search index would take most of the time, and no check here searches.
    for sql in [
        "drop index if exists tasks_title_bigrams".to_owned(),
        format!(
            "insert into tasks (title, status, created_by, enqueued_at, settled_at)
             select 'Process user data',
                    case when n % 5000 = 0 or n % 5 > 0 and n % 2 = 0 then 'failed'::task_status else 'completed' end,
                    case n % 5 when 0 then 'big' else 'customer ' || n % 1000 end, now(), now()
             from generate_series(1, {TASKS}) as n"
        ),
        "vacuum analyze tasks".to_owned(),
    ] {
        let done = sqlx::raw_sql(&sql).execute(&mut connection).await;
        done.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    connection.close().await.expect("it ends");
}

/// The database's URL for sessions whose reads are counted.
fn measured(environment: &TestEnvironment) -> String {
    let separator = if environment.database_url.contains('?') {
        '&'
    } else {
        '?'
    };
    format!("{}{separator}application_name=measured", environment.database_url)
}

/// The blocks of the table and its indexes read so far. A session reports its reads when it ends.
async fn blocks_read(environment: &TestEnvironment) -> i64 {
    eventually(10, "the measured sessions have ended", async || {
        let open = "select count(*) from pg_stat_activity
                    where datname = current_database() and application_name = 'measured'";
        (environment.rows(open).await[0]["count"] == 0).then_some(())
    })
    .await;
    let read = "select heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit as blocks
                from pg_statio_user_tables where relname = 'tasks'";
    environment.rows(read).await[0]["blocks"].as_i64().expect("a number")
}

/// How many blocks one response to this list takes, and its tasks.
async fn cost(environment: &TestEnvironment, caller: &str, query: &[(&str, &str)]) -> (i64, Vec<i64>) {
    const TIMES: i64 = 4;
    let before = blocks_read(environment).await;
    let mut function = environment
        .function("list-tasks")
        .with("DATABASE_URL", &measured(environment))
        .start()
        .await;
    let mut found = Vec::new();
    for _ in 0..TIMES {
        found = ids(&function.call(&list(caller, query)).await);
    }
    drop(function);
    ((blocks_read(environment).await - before) / TIMES, found)
}

/// The first ids of `big` from there.
fn of_big(from: i64, count: usize) -> Vec<i64> {
    (from..).filter(|id| id % 5 == 0).take(count).collect()
}

#[tokio::test]
async fn list_has_the_callers_tasks_in_order() {
    let environment = TestEnvironment::new().await;
    small_table(&environment).await;
    let mut function = environment.function("list-tasks").start().await;
    let even: Vec<i64> = (2..=50).step_by(2).collect();
    assert_eq!(
        ids(&function.call(&list("even", &[])).await),
        even,
        "the tasks of `even`"
    );
    let newest = function.call(&list("even", &[("sort", "-id"), ("limit", "3")])).await;
    assert_eq!(ids(&newest), [50, 48, 46], "the newest of `even`");
    assert_eq!(newest.json()[0]["title"], "task 50", "a task's title");
    let none: [i64; 0] = [];
    assert_eq!(
        ids(&function.call(&list("no-one", &[])).await),
        none,
        "the tasks of `no-one`"
    );
    let all = events::by(events::rest("GET", "/tasks", None), "admin", true);
    assert_eq!(
        ids(&function.call(&all).await),
        (1..=50).collect::<Vec<_>>(),
        "the tasks that an admin sees"
    );
}

#[tokio::test]
async fn links_visit_every_task_once_under_concurrent_writes() {
    let environment = TestEnvironment::new().await;
    small_table(&environment).await;
    let mut function = environment.function("list-tasks").start().await;
    for (sort, mut expected) in [
        ("id", (1..=49).collect::<Vec<i64>>()),
        ("-id", (1..=49).rev().collect()),
    ] {
        expected.retain(|id| id % 2 == 1);
        let pages = read_all(&mut function, "odd", &[("limit", "10"), ("sort", sort)], "next").await;
        assert_eq!(pages.concat(), expected, "all pages by {sort}");
        assert_eq!(pages.len(), 3, "the number of pages by {sort}");
    }
    let first = function.call(&list("odd", &[("limit", "10")])).await;
    // On a page already read: an offset would now miss a task.
    environment.execute("delete from tasks where id in (1, 3)").await;
    let next = link(&first, "next").expect("there is a next page");
    let second = function.call(&list("odd", &as_texts(&next))).await;
    assert_eq!(ids(&second)[0], 21, "the first task of the second page");
    let previous = link(&second, "prev").expect("there is a previous page");
    let previous = function.call(&list("odd", &as_texts(&previous))).await;
    assert_eq!(
        ids(&previous),
        (5..=19).step_by(2).collect::<Vec<_>>(),
        "the first page, reached backwards"
    );
}

#[tokio::test]
async fn page_of_any_size_needs_one_round_trip() {
    let environment = TestEnvironment::new().await;
    small_table(&environment).await;
    let proxy = environment.proxy().await;
    let mut function = environment.function("list-tasks").through(&proxy).start().await;
    for limit in ["1", "10", "25"] {
        let mut used = Vec::new();
        // The first page prepares the statement.
        for _ in 0..3 {
            let before = proxy.round_trips();
            ids(&function.call(&list("even", &[("limit", limit)])).await);
            used.push(proxy.round_trips() - before);
        }
        assert_eq!(used[1..], [1, 1], "the round trips of warm pages of {limit}");
    }
}

#[tokio::test]
async fn page_of_a_caller_with_many_tasks_reads_few_blocks() {
    let environment = TestEnvironment::new().await;
    large_table(&environment).await;
    let (blocks, found) = cost(&environment, "big", &[("limit", "100")]).await;
    assert_eq!(found, of_big(1, 100), "the first page");
    assert!(
        blocks <= BLOCKS,
        "a page of 100 tasks reads {blocks} blocks, more than {BLOCKS}"
    );
    let (blocks, found) = cost(&environment, "big", &[("limit", "100"), ("sort", "-id")]).await;
    assert_eq!(found[0], TASKS, "the newest task");
    assert!(
        blocks <= BLOCKS,
        "a page of the 100 newest reads {blocks} blocks, more than {BLOCKS}"
    );
}

#[tokio::test]
async fn middle_page_costs_as_much_as_the_first() {
    let environment = TestEnvironment::new().await;
    large_table(&environment).await;
    // A cursor in the middle.
    let mut function = environment.function("list-tasks").start().await;
    let response = function.call(&list("big", &[("skip", "19999"), ("limit", "1")])).await;
    let place = ids(&response)[0];
    let next = link(&response, "next").expect("there is a next page");
    let (_, cursor) = next.iter().find(|(name, _)| name == "after").expect("a cursor");
    for (query, expected) in [
        ([("limit", "100"), ("after", cursor)], of_big(place + 1, 100)),
        ([("limit", "100"), ("before", cursor)], of_big(place - 500, 100)),
    ] {
        let (blocks, found) = cost(&environment, "big", &query).await;
        assert_eq!(found, expected, "the page beside {place}");
        assert!(
            blocks <= BLOCKS,
            "a page of 100 tasks in the middle reads {blocks} blocks, more than {BLOCKS}"
        );
    }
}

#[tokio::test]
async fn page_of_rare_failed_tasks_reads_few_blocks() {
    let environment = TestEnvironment::new().await;
    large_table(&environment).await;
    let (blocks, found) = cost(&environment, "big", &[("limit", "100"), ("status", "failed")]).await;
    assert_eq!(
        found,
        (5000..=TASKS).step_by(5000).collect::<Vec<_>>(),
        "the failed tasks"
    );
    assert!(
        blocks <= BLOCKS,
        "a page of 40 failed tasks reads {blocks} blocks, more than {BLOCKS}"
    );
}

#[tokio::test]
async fn released_migrations_are_unchanged() {
    let migrations = migrations().await;
    let mut versions: Vec<i64> = migrations.iter().map(|migration| migration.version).collect();
    versions.sort_unstable();
    assert!(
        versions.starts_with(&(1..=RELEASED).collect::<Vec<_>>()),
        "migrations are missing: {versions:?}"
    );
    let released = migrations.iter().find(|migration| migration.version == RELEASED);
    let checksum = released.map(|migration| migration.checksum.iter().map(|byte| format!("{byte:02x}")).collect());
    let checksum: String = checksum.unwrap_or_default();
    assert!(
        checksum == CHECKSUM,
        "migration {RELEASED} has run in production and was changed: the migrator refuses"
    );
}

#[tokio::test]
async fn new_indexes_are_built_without_blocking_writers() {
    let environment = TestEnvironment::new().await;
    let migrations = migrations().await;
    let new = migrations.iter().filter(|migration| migration.version > RELEASED);
    let mut made = 0;
    for migration in new {
        let lines = migration
            .sql
            .lines()
            .map(|line| line.split("--").next().unwrap_or_default());
        let sql = lines.collect::<Vec<_>>().join(" ").to_lowercase();
        let sql = sql
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .replace("create unique index", "create index");
        let (version, indexes) = (migration.version, sql.matches("create index").count());
        made += indexes;
        let concurrent = sql.matches("create index concurrently").count();
        assert!(
            indexes == concurrent,
            "migration {version} blocks all writers of the table while it builds an index"
        );
        assert!(
            indexes == 0 || migration.no_tx,
            "migration {version} cannot run in a transaction"
        );
        // The migrator runs it again if it was interrupted (migrations/README.md).
        if migration.no_tx {
            let again = sqlx::raw_sql(&migration.sql).execute(&environment.pool).await;
            assert!(
                again.is_ok(),
                "migration {version} has no transaction, and is not idempotent: {again:?}"
            );
        }
    }
    assert!(made > 0, "no migration after {RELEASED} builds an index");
}
