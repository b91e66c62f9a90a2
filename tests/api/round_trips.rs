//! Each function's round trips to Postgres, counted on the wire. (Batches: `worker::processor`.)

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{App, Proxy, functions::FUNCTIONS, task};

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn round_trips_match_functions_table(pool: PgPool) {
    let proxy = Proxy::start(&pool).await;
    let app = App::with_database(proxy.database(&pool));
    let send = async |request: &str| {
        let id = task(&pool, "t").await;
        let before = proxy.round_trips();
        match request.split_once(' ') {
            Some((method, path)) => {
                let body = ["POST /tasks", "PATCH /tasks/{id}"]
                    .contains(&request)
                    .then(|| json!({"title": "new"}));
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
