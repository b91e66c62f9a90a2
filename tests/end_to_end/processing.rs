//! Pausing and resuming, in the closed stack: no other test needs its processing.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    PAUSING,
    support::{env, eventually, token},
};

/// As an admin.
async fn call(method: Method, path: &str, body: Value) -> (u16, Value) {
    let request = reqwest::Client::new().request(method, format!("{}{path}", env("CLOSED_API_URL")));
    let request = request.bearer_auth(token("alice", "admin")).json(&body);
    let response = request.send().await.expect("the stack responds");
    (response.status().as_u16(), response.json().await.expect("JSON"))
}

/// As `call`, repeated while Lambda does not respond in time: a 503, as the document says.
async fn repeat(method: Method, path: &str, body: Value) -> Value {
    let (status, body) = eventually(30, &format!("{method} {path} responds"), async || {
        let response = call(method.clone(), path, body.clone()).await;
        (response.0 != 503).then_some(response)
    })
    .await;
    assert_eq!(status, 200, "{path}: {body}");
    body
}

async fn get(path: &str) -> Value {
    repeat(Method::GET, path, Value::Null).await
}

async fn set(paused: bool) {
    let body = repeat(Method::PUT, "/admin/processing", json!({"paused": paused})).await;
    assert_eq!(body["paused"], paused, "{body}");
}

/// Waits until the status says so: it has null while Lambda does not respond in time.
async fn eventually_paused(paused: bool) {
    eventually(30, &format!("the status says paused: {paused}"), async || {
        (get("/admin/status").await["paused"] == paused).then_some(())
    })
    .await;
}

#[tokio::test]
async fn task_of_closed_api_stays_pending_while_paused() {
    let _alone = PAUSING.lock().await;
    set(true).await;
    assert_eq!(
        get("/admin/processing").await,
        json!({"paused": true, "state": "Disabled"})
    );
    eventually_paused(true).await;
    // The emulator may be receiving for the last time.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (status, task) = call(Method::POST, "/tasks", json!({"title": "paused"})).await;
    assert_eq!(status, 201, "{task}");
    let path = format!("/tasks/{}", task["id"]);
    // Without the pause it would be completed in one.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(get(&path).await["status"], "pending");

    set(false).await;
    eventually(30, "the task is completed", async || {
        (get(&path).await["status"] == "completed").then_some(())
    })
    .await;
    eventually_paused(false).await;
    let actions = get("/admin/actions").await;
    let actions = actions.as_array().expect("a list").iter();
    let actions = actions.map(|action| json!([action["operator"], action["action"]]));
    let ours = actions.filter(|action| action[1] == "pause" || action[1] == "resume");
    let mut ours: Vec<Value> = ours.collect();
    // A repeated request is recorded again.
    ours.dedup();
    assert_eq!(ours[..2], [json!(["alice", "resume"]), json!(["alice", "pause"])]);
}
