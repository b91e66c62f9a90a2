//! The sandbox's resources, deployed into the emulator as far as it supports them
//! (dev/tools/emulated_sandbox.py): the migrator as a CloudFormation custom resource, roles,
//! versions behind aliases, an issuer that publishes its keys.

use std::path::Path;

use local_issuer::LocalIssuer;
use migrator::MIGRATIONS;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{env, eventually, issuer::JwksServer, token};

/// Starts the issuer at the address with which the stack was deployed.
async fn issuer() -> JwksServer {
    let issuer = LocalIssuer::open(Path::new(&env("ISSUER_KEY"))).expect("the stack's key");
    let url = env("SANDBOX_JWKS_URL");
    let address = url.trim_start_matches("http://").trim_end_matches("/keys");
    JwksServer::start_at(address, issuer.jwks()).await
}

fn call(method: Method, path: &str) -> RequestBuilder {
    reqwest::Client::new().request(method, format!("{}{path}", env("SANDBOX_API_URL")))
}

async fn json(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.expect("the stack responds");
    (response.status().as_u16(), response.json().await.expect("JSON"))
}

#[tokio::test]
async fn migrator_runs_before_functions_are_created() {
    let pool = PgPool::connect(&env("SANDBOX_DATABASE_URL"))
        .await
        .expect("the database");
    let applied: i64 = sqlx::query_scalar("select count(*) from _sqlx_migrations where success")
        .fetch_one(&pool)
        .await
        .expect("the migrations");
    assert_eq!(usize::try_from(applied), Ok(MIGRATIONS.iter().count()));
    let may: Vec<bool> = sqlx::query_scalar(
        "select has_table_privilege(role, 'tasks', action)
         from (values ('reader', 'select'), ('reader', 'insert'), ('writer', 'insert'), ('processor', 'delete'))
              as privilege (role, action)",
    )
    .fetch_all(&pool)
    .await
    .expect("the roles");
    assert_eq!(may, [true, false, true, false]);
}

#[tokio::test]
async fn task_created_with_issuer_token_is_processed() {
    let issuer = issuer().await;
    let new = json!({"title": "t", "description": "in the sandbox"});
    let (status, problem) = json(call(Method::POST, "/tasks").json(&new)).await;
    assert_eq!((status, &problem["title"]), (401, &json!("Unauthorized")));
    assert_eq!(issuer.fetches(), 0, "no keys are fetched without a token");

    let token = token("alice", "");
    let (status, task) = json(call(Method::POST, "/tasks").bearer_auth(&token).json(&new)).await;
    assert_eq!((status, &task["status"]), (201, &json!("pending")), "{task}");
    assert_eq!(issuer.fetches(), 1);
    let path = format!("/tasks/{}", task["id"]);
    let completed = eventually(30, "the task is completed", async || {
        let (status, task) = json(call(Method::GET, &path).bearer_auth(&token)).await;
        assert_eq!(status, 200, "{task}");
        (task["status"] == "completed").then_some(task)
    });
    assert_eq!(completed.await["title"], "t");
    assert_eq!(issuer.fetches(), 1, "the keys are cached");
    let (status, _) = json(call(Method::GET, "/admin/status").bearer_auth(&token)).await;
    assert_eq!(status, 403);
}
