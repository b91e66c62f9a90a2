//! Each function's round trips to Postgres, counted on the wire. (Batches: `worker::processor`.)

use std::time::Duration;

use serde_json::{Value, json};
use shared::{
    domain::{Access, Page, Status, TaskId},
    store::{
        Statement,
        operating::ReadOverview,
        processing::{Claim, ClaimRequest, Outcome, Settle},
        tasks::{Find, List},
    },
};
use sqlx::PgPool;

use crate::support::{App, Proxy, functions::FUNCTIONS, mapping, task};

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn round_trips_match_functions_table(pool: PgPool) {
    let proxy = Proxy::start(&pool).await;
    let app = App::with_database(proxy.database(&pool)).with_mapping(mapping::mapping().await.0);
    let send = async |request: &str| {
        let id = task(&pool, "t").await;
        let before = proxy.round_trips();
        match request.split_once(' ') {
            Some((method, path)) => {
                let body = match request {
                    "POST /tasks" | "PATCH /tasks/{id}" => Some(json!({"title": "new"})),
                    "PUT /admin/processing" => Some(json!({"paused": true})),
                    _ => None,
                };
                let request = app.request(method, path.replace("{id}", &id.to_string()));
                let response = body
                    .iter()
                    .fold(request, |request, body: &Value| request.json(body))
                    .await;
                assert!(response.status() < 300, "{method} {path}: {}", response.text());
            }
            None => {
                let swept = app.sweep(None).await;
                assert!(swept.is_ok(), "{swept:?}");
            }
        }
        proxy.round_trips() - before
    };
    for (request, round_trips) in FUNCTIONS.iter().flat_map(|function| function.round_trips) {
        // The first request also connects and prepares its statements.
        let used = [send(request).await, send(request).await, send(request).await];
        assert_eq!(used[1..], [*round_trips; 2], "{request}");
    }
}

/// The round trips of a statement on a connection that has run none before.
async fn first_use(pool: &PgPool, proxy: &Proxy, statement: &impl Statement) -> usize {
    let database = proxy.database(pool);
    database.ping().await.expect("connected");
    let before = proxy.round_trips();
    database.run(statement).await.expect("run");
    proxy.round_trips() - before
}

/// One to prepare it and one to run it: none to look up the type `task_status`.
#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn first_use_of_statement_takes_two_round_trips(pool: PgPool) {
    let proxy = Proxy::start(&pool).await;
    let id = TaskId::try_from(task(&pool, "t").await).expect("an id");
    let access = Access::All;
    let find = first_use(&pool, &proxy, &Find { id, access }).await;
    let page = Page::parse([("status", "pending"), ("q", "t")]).expect("valid");
    let list = first_use(&pool, &proxy, &List { page: &page, access }).await;
    let overview = first_use(&pool, &proxy, &ReadOverview).await;
    let claim = Claim {
        requests: &[ClaimRequest { id, sent_at: None }],
        lease: Duration::from_secs(60),
    };
    let claim = first_use(&pool, &proxy, &claim).await;
    let outcome = Outcome {
        id,
        fencing_token: 1,
        status: Status::Completed,
        result: None,
    };
    let settle = first_use(&pool, &proxy, &Settle(&[outcome])).await;
    assert_eq!([find, list, overview, claim, settle], [2; 5]);
}
