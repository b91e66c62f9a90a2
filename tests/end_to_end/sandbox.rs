//! The sandbox's resources, deployed into the emulator as far as it supports them
//! (dev/tools/emulated_sandbox.py): the migrator as a CloudFormation custom resource, roles,
//! versions behind aliases, an issuer that publishes its keys.

use std::{path::Path, time::SystemTime};

use local_issuer::{AUDIENCE, ISSUER, LocalIssuer};
use migrator::MIGRATIONS;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{
    env, eventually,
    issuer::{JwksServer, Key, KeysResponse},
    token,
};

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

    rotate_keys(&issuer).await;
}

/// "Rotate the issuer's keys" in docs/operations.md.
async fn rotate_keys(issuer: &JwksServer) {
    let list = async |token: &str| json(call(Method::GET, "/tasks?limit=1").bearer_auth(token)).await.0;
    let old = LocalIssuer::open(Path::new(&env("ISSUER_KEY"))).expect("the stack's key");
    let mut keys: Value = serde_json::from_str(&old.jwks()).expect("a key set");
    // Different tokens, because the policy for a token is cached.
    let sign = |seconds| old.token("alice", "", std::time::Duration::from_secs(seconds));
    let key = Key::es256();
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    let claims = json!({"iss": ISSUER, "aud": AUDIENCE, "nbf": now, "iat": now, "exp": now + 300});
    let new = key.token_with("new", claims);
    assert_eq!(list(&new).await, 401, "the issuer has not published the new key");

    // Planned: the new key beside the old one.
    keys["keys"].as_array_mut().expect("keys").push(key.jwk("new"));
    issuer.respond_with(KeysResponse::Body(keys.to_string()));
    eventually(30, "the new key is fetched", async || {
        (list(&new).await == 200).then_some(())
    })
    .await;
    assert_eq!(list(&sign(300)).await, 200);

    // Stolen: the authorizer accepts the withdrawn key until its environments have been replaced.
    issuer.publish(&[key.jwk("new")]);
    assert_eq!(list(&sign(301)).await, 200);
    replace_authorizer_environments().await;
    eventually(30, "the withdrawn key is refused", async || {
        (list(&sign(302)).await == 401).then_some(())
    })
    .await;
    assert_eq!(list(&new).await, 200);
}

/// Calls UpdateFunctionConfiguration, as the runbook does with the AWS CLI.
async fn replace_authorizer_environments() {
    let functions = format!("{}/2015-03-31/functions", env("AWS_ENDPOINT_URL"));
    let authorization = "AWS4-HMAC-SHA256 Credential=local/20260101/us-east-1/lambda/aws4_request, \
                         SignedHeaders=host, Signature=0";
    let send = async |request: RequestBuilder| {
        let (status, body) = json(request.header("authorization", authorization)).await;
        assert_eq!(status, 200, "{body}");
        body
    };
    let client = reqwest::Client::new();
    let listed = send(client.get(format!("{functions}/?MaxItems=1000"))).await;
    let authorizer = listed["Functions"]
        .as_array()
        .expect("functions")
        .iter()
        .find(|function| function["Environment"]["Variables"]["JWKS_URL"] == json!(env("SANDBOX_JWKS_URL")));
    let name = authorizer.expect("the authorizer")["FunctionName"]
        .as_str()
        .expect("a name");
    let timeout = json!({"Timeout": 4});
    send(client.put(format!("{functions}/{name}/configuration")).json(&timeout)).await;
}
