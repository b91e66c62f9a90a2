//! `GET /`, and the 404 and 405 responses to unknown routes

use serde_json::json;
use sqlx::PgPool;

use crate::support::{App, Gateway, count, row, task};

#[tokio::test]
async fn root_describes_api() {
    for gateway in [Gateway::Rest, Gateway::Http] {
        let response = App::without_database().get("/").via(gateway).await;
        assert_eq!(response.status(), 200);
        assert_eq!(
            response.json(),
            json!({
                "message": "Welcome to the task API",
                "version": "1.0.0",
                "endpoints": {
                    "tasks": "/tasks",
                    "task": "/tasks/{id}",
                    "process": "/tasks/{id}/process",
                    "health": "/health",
                    "ready": "/ready",
                    "status": "/admin/status",
                    "dashboard": "/admin/dashboard",
                    "docs": "/docs",
                    "redoc": "/redoc",
                    "openapi": "/openapi.json",
                },
            })
        );
    }
}

#[tokio::test]
async fn unknown_path_is_404() {
    for path in [
        "/nope",
        "//",
        "///",
        "/tasks//",
        "/tasks/1/2/3",
        "/tasks/1/proces",
        "/TASKS",
        "/health/x",
    ] {
        App::without_database().get(path).await.assert_problem(404, "Not Found");
    }
}

#[sqlx::test(migrator = "migrator::MIGRATIONS")]
async fn trailing_slash_is_404_on_every_route(pool: PgPool) {
    let app = App::new(&pool);
    let id = task(&pool, "t").await;
    let before = row(&pool, id).await;
    let (one, process) = (format!("/tasks/{id}"), format!("/tasks/{id}/process"));
    for (method, path) in [
        ("POST", "/tasks"),
        ("GET", "/tasks"),
        ("DELETE", one.as_str()),
        ("POST", process.as_str()),
        ("GET", "/docs"),
        ("GET", "/docs/style.css"),
        ("GET", "/redoc"),
        ("GET", "/openapi.json"),
        ("GET", "/health"),
        ("GET", "/admin/status"),
        ("GET", "/nope"),
    ] {
        let request = app.request(method, path).json(&json!({"title": "t"}));
        // API Gateway may ignore the slash when it selects the function.
        let mut event = request.event();
        event["path"] = json!(format!("{path}/"));
        let same_function = request.send_as(&event).await;
        let fallback = app.request(method, format!("{path}/")).via(Gateway::Http).await;
        for response in [same_function, fallback] {
            response.assert_problem(404, "Not Found");
            let detail = format!("Nothing was found at {path}/ (paths have no trailing slash).");
            assert_eq!(response.json()["detail"], detail);
        }
    }
    assert_eq!((row(&pool, id).await, count(&pool).await), (before, 1));
    assert_eq!(app.messages().await, [""; 0]);
}

/// The base path of a custom domain is part of the event's path.
#[tokio::test]
async fn base_path_of_domain_is_not_part_of_route() {
    let app = App::without_database();
    for base in ["/v1", "/v1/tasks", "/api/v1"] {
        for (method, path, status, allow) in [
            ("GET", "/", 200, ""),
            ("HEAD", "/", 200, ""),
            ("DELETE", "/", 405, "GET, HEAD"),
            ("DELETE", "/health", 405, "GET, HEAD"),
            ("PATCH", "/tasks", 405, "GET, HEAD, POST"),
            ("POST", "/tasks/7", 405, "DELETE, GET, HEAD, PATCH, PUT"),
            ("GET", "/tasks/7/process", 405, "POST"),
            ("GET", "/nope", 404, ""),
            ("GET", "/nope/7", 404, ""),
            ("GET", "/docs", 200, ""),
            ("GET", "/docs/style.css", 200, ""),
            ("GET", "/docs/none.css", 404, ""),
            ("GET", "/redoc", 200, ""),
            ("GET", "/openapi.json", 200, ""),
            ("GET", "/health", 200, ""),
        ] {
            let request = app.request(method, path);
            let direct = request.clone().await;
            let mut event = request.event();
            event["path"] = json!(format!("{base}{path}"));
            event["requestContext"]["path"] = event["path"].clone();
            let behind_domain = request.send_as(&event).await;
            assert_eq!(behind_domain, direct, "{method} {base}{path}");
            assert_eq!(
                (direct.status(), direct.header("allow")),
                (status, allow),
                "{method} {path}"
            );
        }
    }
    // The root of a base path, without its slash.
    let request = app.get("/");
    let mut event = request.event();
    event["path"] = json!("/v1");
    assert_eq!(request.send_as(&event).await.status(), 200);
}

#[tokio::test]
async fn unsupported_method_is_405_with_allow() {
    for (method, path, allow) in [
        ("POST", "/", "GET, HEAD"),
        ("POST", "/health", "GET, HEAD"),
        ("DELETE", "/tasks", "GET, HEAD, POST"),
        ("POST", "/tasks/1", "DELETE, GET, HEAD, PATCH, PUT"),
        ("GET", "/tasks/1/process", "POST"),
    ] {
        let response = App::without_database().request(method, path).await;
        response.assert_problem(405, "Method Not Allowed");
        assert_eq!(response.header("allow"), allow, "{method} {path}");
    }
}
