//! `GET /tasks`

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{Answer, Call, Gateway, database, execute, row, task};

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
