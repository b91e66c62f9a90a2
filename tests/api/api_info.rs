//! `GET /`, and the 404 and 405 responses to unknown routes

use serde_json::json;

use crate::support::{App, Gateway};

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

#[tokio::test]
async fn unsupported_method_is_405_with_allow() {
    for (method, path, allow) in [
        ("POST", "/", "GET"),
        ("HEAD", "/", "GET"),
        ("POST", "/health", "GET"),
        ("DELETE", "/tasks", "GET, POST"),
        ("PATCH", "/tasks/", "GET, POST"),
        ("POST", "/tasks/1", "DELETE, GET, PATCH, PUT"),
        ("GET", "/tasks/1/process", "POST"),
    ] {
        let response = App::without_database().request(method, path).await;
        response.assert_problem(405, "Method Not Allowed");
        assert_eq!(response.header("allow"), allow, "{method} {path}");
    }
}
