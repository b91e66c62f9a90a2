//! `GET /health`

use serde_json::json;
use sqlx::PgPool;

use crate::support::{Call, Gateway, database, database_that_is_down};

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn with_a_database_it_is_healthy(pool: PgPool) {
    let database = database(&pool);
    for gateway in [Gateway::Rest, Gateway::Http] {
        let call = Call::new("GET", "/health");
        let answer = call
            .send_via(gateway, |request| health::handle(&database, request))
            .await;
        assert_eq!((answer.status, answer.header("cache-control")), (200, "no-store"));
        assert_eq!(
            answer.json(),
            json!({"status": "healthy", "checks": {"database": "up"}})
        );
    }
}

#[tokio::test]
async fn without_one_it_is_503_and_says_so() {
    let database = database_that_is_down();
    let answer = Call::new("GET", "/health")
        .send(|request| health::handle(&database, request))
        .await;
    assert_eq!(answer.status, 503);
    assert_eq!(
        answer.json(),
        json!({"status": "unhealthy", "checks": {"database": "down"}})
    );
}
