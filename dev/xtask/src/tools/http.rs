//! Requests to a stack.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use ureq::Agent;

/// How long a request may take, and a task until it is completed.
const TIME: Duration = Duration::from_secs(30);

/// A client whose requests may take this long.
pub fn agent(timeout: Duration) -> Agent {
    Agent::config_builder().timeout_global(Some(timeout)).build().into()
}

/// The JSON document at this URL.
pub fn get(url: &str) -> Result<Value> {
    let response = agent(TIME).get(url).call().with_context(|| format!("GET {url}"))?;
    Ok(serde_json::from_reader(response.into_body().into_reader())?)
}

/// Creates a task by a POST to this URL, and waits until it is completed; returns its id.
pub fn task_is_processed(url: &str) -> Result<i64> {
    let task = json!({"title": "Count the words of this"}).to_string();
    let request = agent(TIME).post(url).header("content-type", "application/json");
    let response = request.send(task).with_context(|| format!("POST {url}"))?;
    let created: Value = serde_json::from_reader(response.into_body().into_reader())?;
    let id = created["id"].as_i64().context("a task has an id")?;
    let end = Instant::now() + TIME;
    while Instant::now() < end {
        if get(&format!("{url}/{id}"))?["status"] == "completed" {
            return Ok(id);
        }
        thread::sleep(Duration::from_millis(200));
    }
    bail!("task {id} was not completed within {} s", TIME.as_secs());
}
