//! `GET /health`

use serde_json::json;
use sqlx::PgPool;

use crate::support::{App, Gateway};

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn reachable_database_is_healthy(pool: PgPool) {
    let app = App::new(&pool);
    for gateway in [Gateway::Rest, Gateway::Http] {
        let response = app.get("/health").via(gateway).await;
        assert_eq!((response.status(), response.header("cache-control")), (200, "no-store"));
        assert_eq!(
            response.json(),
            json!({"status": "healthy", "checks": {"database": "up"}})
        );
    }
}

#[tokio::test]
async fn unreachable_database_is_503() {
    let response = App::without_database().get("/health").await;
    assert_eq!(response.status(), 503);
    assert_eq!(
        response.json(),
        json!({"status": "unhealthy", "checks": {"database": "down"}})
    );
}
