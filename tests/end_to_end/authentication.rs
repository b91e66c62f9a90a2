//! The stack with `AUTH=closed`: API Gateway calls the authorizer, which requires tokens.

use std::{path::Path, time::Duration};

use local_issuer::LocalIssuer;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::support::{env, token};

const MINUTE: Duration = Duration::from_secs(60);

async fn call(method: Method, path: &str, token: Option<&str>) -> Response {
    let request = reqwest::Client::new().request(method, format!("{}{path}", env("CLOSED_API_URL")));
    let request = token
        .into_iter()
        .fold(request, |request, token| request.bearer_auth(token));
    request
        .json(&json!({"title": "t"}))
        .send()
        .await
        .expect("the stack responds")
}

async fn assert_problem(response: Response, status: u16, title: &str) {
    let path = response.url().path().to_owned();
    assert_eq!(response.status(), status, "{path}");
    assert_eq!(response.headers()["content-type"], "application/problem+json", "{path}");
    let problem: Value = response.json().await.expect("JSON");
    assert_eq!(
        (&problem["status"], &problem["title"]),
        (&json!(status), &json!(title)),
        "{path}"
    );
}

#[tokio::test]
async fn only_public_routes_work_without_token() {
    for path in [
        "/",
        "/health",
        "/docs",
        "/docs/docs.js",
        "/redoc",
        "/openapi.json",
        "/admin/dashboard",
    ] {
        for method in [Method::GET, Method::HEAD] {
            assert_eq!(call(method, path, None).await.status(), 200, "{path}");
        }
    }
    assert_problem(call(Method::GET, "/nope", None).await, 404, "Not Found").await;
    let foreign = LocalIssuer::open(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("foreign.key")).expect("a key");
    let foreign = foreign.token("mallory", "admin", MINUTE);
    for token in [None, Some("nonsense"), Some(foreign.as_str())] {
        for (method, path) in [
            (Method::GET, "/ready"),
            (Method::GET, "/tasks"),
            (Method::POST, "/tasks"),
            (Method::GET, "/tasks/1"),
            (Method::DELETE, "/tasks/1"),
            (Method::GET, "/admin/status"),
            (Method::PUT, "/admin/processing"),
            (Method::POST, "/admin/redrive"),
        ] {
            let response = call(method, path, token).await;
            assert_eq!(response.headers()["www-authenticate"], "Bearer", "{path}");
            assert_problem(response, 401, "Unauthorized").await;
        }
        assert_eq!(call(Method::HEAD, "/tasks", token).await.status(), 401);
    }
}

#[tokio::test]
async fn user_token_reaches_own_tasks_and_admin_token_everything() {
    let (user, admin) = (token("bob", ""), token("alice", "admin"));
    let created = call(Method::POST, "/tasks", Some(&user)).await;
    assert_eq!(created.status(), 201);
    let task: Value = created.json().await.expect("JSON");
    assert_eq!(
        call(Method::GET, &format!("/tasks/{}", task["id"]), Some(&user))
            .await
            .status(),
        200
    );
    let path = format!("/tasks/{}", task["id"]);
    let other = token("carol", "");
    assert_problem(call(Method::GET, &path, Some(&other)).await, 404, "Not Found").await;
    assert_eq!(call(Method::GET, &path, Some(&admin)).await.status(), 200);
    for (method, path, status) in [
        (Method::GET, "/admin/status".to_owned(), 200),
        (Method::GET, format!("/admin/tasks/{}", task["id"]), 200),
        (Method::POST, "/admin/redrive".to_owned(), 202),
    ] {
        assert_problem(call(method.clone(), &path, Some(&user)).await, 403, "Forbidden").await;
        assert_eq!(call(method, &path, Some(&admin)).await.status(), status, "{path}");
    }
}

#[tokio::test]
async fn viewer_token_reads_everything_and_changes_nothing() {
    let (user, viewer) = (token("bob", ""), token("vera", "viewer"));
    let task: Value = call(Method::POST, "/tasks", Some(&user))
        .await
        .json()
        .await
        .expect("JSON");
    let path = format!("/tasks/{}", task["id"]);
    for read in [
        "/tasks",
        &path,
        "/admin/status",
        "/admin/actions",
        "/admin/processing",
        &format!("/admin{path}"),
    ] {
        assert_eq!(call(Method::GET, read, Some(&viewer)).await.status(), 200, "{read}");
    }
    assert_eq!(call(Method::HEAD, &path, Some(&viewer)).await.status(), 200);
    for (method, path) in [
        (Method::POST, "/tasks"),
        (Method::PUT, &path),
        (Method::PATCH, &path),
        (Method::DELETE, &path),
        (Method::POST, &format!("{path}/process")),
        (Method::POST, &format!("{path}/cancel")),
        (Method::PUT, "/admin/processing"),
        (Method::POST, "/admin/redrive"),
    ] {
        assert_problem(call(method, path, Some(&viewer)).await, 403, "Forbidden").await;
    }
    let unchanged: Value = call(Method::GET, &path, Some(&user)).await.json().await.expect("JSON");
    assert_eq!(unchanged["title"], task["title"]);
}
