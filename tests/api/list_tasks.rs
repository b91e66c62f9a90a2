//! `GET /tasks`

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{Answer, Call, Gateway, count, database, execute, row, task};

async fn list(pool: &PgPool, query: &[(&str, &str)]) -> Answer {
    let database = database(pool);
    let call = query.iter().fold(Call::new("GET", "/tasks"), |call, (name, value)| {
        call.query(name, value)
    });
    call.send(|request| list_tasks::handle(&database, request)).await
}

fn ids(answer: &Answer) -> Vec<i64> {
    let tasks = answer.json();
    let tasks = tasks.as_array().expect("a bare array");
    tasks.iter().map(|task| task["id"].as_i64().expect("an id")).collect()
}

#[sqlx::test(migrator = "shared::store::MIGRATIONS")]
async fn without_tasks_the_list_is_empty(pool: PgPool) {
    let answer = list(&pool, &[]).await;
    assert_eq!((answer.status, answer.json()), (200, json!([])));
}

#[sqlx::test(migrator = "shared::store::MIGRATIONS")]
async fn tasks_come_whole_and_by_ascending_id(pool: PgPool) {
    for title in ["a", "b", "c"] {
        task(&pool, title).await;
    }
    // Updated rows move in the table; the order must not.
    execute(&pool, "update tasks set title = 'A' where id = 1").await;
    let answer = list(&pool, &[]).await;
    assert_eq!(ids(&answer), [1, 2, 3]);
    let stored = row(&pool, 1).await;
    let task = answer.json()[0].clone();
    let members: Vec<&String> = task.as_object().expect("an object").keys().collect();
    assert_eq!(
        members,
        [
            "attempts",
            "created_at",
            "description",
            "id",
            "result",
            "status",
            "title",
            "updated_at"
        ]
    );
    assert_eq!(
        (&task["title"], &task["status"], &task["description"]),
        (&json!("A"), &stored["status"], &Value::Null)
    );
}

#[sqlx::test(migrator = "shared::store::MIGRATIONS")]
async fn skip_and_limit_choose_a_page(pool: PgPool) {
    execute(
        &pool,
        "insert into tasks (title) select 't' from generate_series(1, 120)",
    )
    .await;
    assert_eq!(ids(&list(&pool, &[]).await), (1..=100).collect::<Vec<_>>());
    assert_eq!(ids(&list(&pool, &[("limit", "2")]).await), [1, 2]);
    assert_eq!(ids(&list(&pool, &[("skip", "118")]).await), [119, 120]);
    assert_eq!(ids(&list(&pool, &[("skip", "1"), ("limit", "2")]).await), [2, 3]);
    assert_eq!(list(&pool, &[("skip", "120")]).await.json(), json!([]));
    assert_eq!(list(&pool, &[("skip", "9223372036854775807")]).await.json(), json!([]));
}

#[sqlx::test(migrator = "shared::store::MIGRATIONS")]
async fn both_gateways_hand_on_the_query(pool: PgPool) {
    execute(&pool, "insert into tasks (title) select 't' from generate_series(1, 5)").await;
    let database = database(&pool);
    for gateway in [Gateway::Rest, Gateway::Http] {
        let call = Call::new("GET", "/tasks").query("skip", "3").query("limit", "1");
        let answer = call
            .send_via(gateway, |request| list_tasks::handle(&database, request))
            .await;
        assert_eq!(ids(&answer), [4]);
    }
}

#[sqlx::test(migrator = "shared::store::MIGRATIONS")]
async fn values_outside_the_contract_are_422(pool: PgPool) {
    for (name, value) in [
        ("skip", "-1"),
        ("skip", "abc"),
        ("skip", ""),
        ("skip", "9223372036854775808"),
        ("limit", "0"),
        ("limit", "101"),
        ("limit", "1e2"),
        ("offset", "1"),
        ("after", ""),
        ("after", "1"),
        ("after", "AAAAAAAAAAA"),
    ] {
        let answer = list(&pool, &[(name, value)]).await;
        answer.assert_problem(422, "Unprocessable Entity");
        assert_eq!(answer.pointers(), [format!("#/query/{name}")], "{value}");
    }
    let mut twice = list(&pool, &[("limit", "1"), ("limit", "2"), ("skip", "x")])
        .await
        .pointers();
    twice.sort();
    assert_eq!(twice, ["#/query/limit", "#/query/skip"]);
}

/// Reads the whole list, page by page along the `Link`s; does something between two pages.
async fn read_all(pool: &PgPool, limit: &str, between: impl AsyncFn(usize)) -> Vec<i64> {
    let mut all = Vec::new();
    let mut query = vec![("limit".to_owned(), limit.to_owned())];
    for page in 0.. {
        let parameters: Vec<(&str, &str)> = query.iter().map(|(name, value)| (&**name, &**value)).collect();
        let answer = list(pool, &parameters).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        all.extend(ids(&answer));
        let Some(link) = answer.header("link").strip_prefix("<?") else {
            break;
        };
        let next = link.strip_suffix(">; rel=\"next\"").expect("a link to the next page");
        query = next
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        between(page).await;
    }
    all
}

#[sqlx::test(migrator = "shared::store::MIGRATIONS")]
async fn the_links_lead_through_the_whole_list_and_end_with_it(pool: PgPool) {
    execute(&pool, "insert into tasks (title) select 't' from generate_series(1, 7)").await;
    for limit in ["1", "2", "3", "6", "7", "8", "100"] {
        assert_eq!(
            read_all(&pool, limit, async |_| {}).await,
            [1, 2, 3, 4, 5, 6, 7],
            "{limit}"
        );
    }
}

#[sqlx::test(migrator = "shared::store::MIGRATIONS")]
async fn while_rows_are_updated_deleted_and_created_between_pages_none_that_stays_is_missing_or_repeated(pool: PgPool) {
    const ROWS: i64 = 1000;
    // Those divisible by 5 or 7 come and go: on pages that were read, and on pages still to come.
    let stays = |id: &i64| *id <= ROWS && id % 5 != 0 && id % 7 != 0;
    execute(
        &pool,
        "insert into tasks (title) select 't' from generate_series(1, 1000)",
    )
    .await;
    let disturb = async |page: usize| {
        // Rows move within the table when they are updated: all of them, and so across every page's border.
        execute(&pool, "update tasks set title = title || '.', updated_at = now()").await;
        let (read, unread) = ((page % 20) * 50, (page % 20 + 1) * 50);
        for (divisor, from) in [(5, read), (7, unread)] {
            let delete = format!("delete from tasks where id % {divisor} = 0 and id between {from} and {from} + 49");
            execute(&pool, &delete).await;
        }
        execute(&pool, "insert into tasks (title) values ('new')").await;
    };
    let mut read = read_all(&pool, "50", disturb).await;
    assert!(read.is_sorted(), "{read:?}");
    assert!(count(&pool).await < ROWS, "nothing was deleted");
    read.retain(stays);
    assert_eq!(read, (1..=ROWS).filter(stays).collect::<Vec<_>>());
}
