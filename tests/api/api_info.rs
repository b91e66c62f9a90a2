//! `GET /`, and what no other function serves

use serde_json::json;

use crate::support::{Call, Gateway};

#[tokio::test]
async fn the_root_says_what_this_is() {
    for gateway in [Gateway::Rest, Gateway::Http] {
        let answer = Call::new("GET", "/").send_via(gateway, api_info::handle).await;
        assert_eq!(answer.status, 200);
        assert_eq!(
            answer.json(),
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
async fn an_unknown_path_is_404() {
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
        Call::new("GET", path)
            .send(api_info::handle)
            .await
            .assert_problem(404, "Not Found");
    }
}

#[tokio::test]
async fn a_known_path_with_another_method_is_405_and_names_the_right_ones() {
    for (method, path, allow) in [
        ("POST", "/", "GET"),
        ("HEAD", "/", "GET"),
        ("POST", "/health", "GET"),
        ("DELETE", "/tasks", "GET, POST"),
        ("PATCH", "/tasks/", "GET, POST"),
        ("POST", "/tasks/1", "DELETE, GET, PATCH, PUT"),
        ("GET", "/tasks/1/process", "POST"),
    ] {
        let answer = Call::new(method, path).send(api_info::handle).await;
        answer.assert_problem(405, "Method Not Allowed");
        assert_eq!(answer.header("allow"), allow, "{method} {path}");
    }
}
