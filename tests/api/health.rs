//! `GET /health` and `GET /ready`

use serde_json::json;
use sqlx::PgPool;

use crate::support::{App, Gateway, Proxy};

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn liveness_does_not_use_database(pool: PgPool) {
    let proxy = Proxy::start(&pool).await;
    for app in [App::with_database(proxy.database(&pool)), App::without_database()] {
        for gateway in [Gateway::Rest, Gateway::Http] {
            let response = app.without_authorizer().get("/health").via(gateway).await;
            assert_eq!((response.status(), response.header("cache-control")), (200, "no-store"));
            assert_eq!(response.json(), json!({"status": "healthy"}));
        }
    }
    assert_eq!(proxy.round_trips(), 0);
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn readiness_requires_caller_and_database(pool: PgPool) {
    let app = App::new(&pool);
    for gateway in [Gateway::Rest, Gateway::Http] {
        let response = app.get("/ready").via(gateway).await;
        assert_eq!((response.status(), response.header("cache-control")), (200, "no-store"));
        assert_eq!(response.json(), json!({"status": "ready"}));
    }
    assert_eq!(app.as_user("bob").get("/ready").await.status(), 200);

    let proxy = Proxy::start(&pool).await;
    let app = App::with_database(proxy.database(&pool)).without_authorizer();
    app.get("/ready").await.assert_problem(401, "Unauthorized");
    assert_eq!(
        proxy.round_trips(),
        0,
        "an unauthenticated request reached the database"
    );

    let response = App::without_database().get("/ready").await;
    response.assert_problem(503, "Service Unavailable");
    assert_eq!(response.header("retry-after"), "2");
}
