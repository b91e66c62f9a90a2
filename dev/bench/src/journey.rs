//! End-to-end latency, from the client's request to the completed task, on the deployed stack.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use time::OffsetDateTime;
use tokio::{task::JoinSet, time::interval};

use crate::{
    fixture::Fixture,
    measure::Times,
    report::{Row, in_units},
};

/// How many tasks are created each second, and for how many seconds.
const RATE: u32 = 50;
const SECONDS: u32 = 60;

/// How long the last task may take to complete.
const PATIENCE: Duration = Duration::from_secs(120);

/// Creates tasks at a constant rate, and reads when they were completed.
pub async fn measure(fixture: &Fixture) -> Result<Vec<Row>> {
    let client = reqwest::Client::new();
    let url = format!("{}/tasks", fixture.api_url);
    let body = json!({"title": "Process user data", "description": "Count the words of this"});
    let mut requests = JoinSet::new();
    let mut ticks = interval(Duration::from_secs(1) / RATE);
    for _ in 0..RATE * SECONDS {
        ticks.tick().await;
        let request = client.post(&url).json(&body);
        requests.spawn(async move {
            let sent_at = OffsetDateTime::now_utc();
            let response = request.send().await?.error_for_status()?;
            let responded_at = OffsetDateTime::now_utc();
            let task: Value = response.json().await?;
            anyhow::Ok((task["id"].as_i64().context("a task has an id")?, sent_at, responded_at))
        });
    }
    let created = requests.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;

    let ids: Vec<i64> = created.iter().map(|(id, ..)| *id).collect();
    let mut connection = PgConnection::connect_with(&fixture.stack).await?;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let settled: Vec<(i64, OffsetDateTime)> = loop {
        let settled = "select id, settled_at from tasks where id = any ($1) and status = 'completed'";
        let settled = sqlx::query_as(settled).bind(&ids).fetch_all(&mut connection).await?;
        if settled.len() == ids.len() {
            break settled;
        }
        let missing = ids.len() - settled.len();
        ensure!(
            tokio::time::Instant::now() < deadline,
            "{missing} tasks were not completed within {PATIENCE:?}"
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    let settled: std::collections::HashMap<i64, OffsetDateTime> = settled.into_iter().collect();
    let (mut responded, mut completed) = (Times::default(), Times::default());
    for (id, sent_at, responded_at) in created {
        responded.add((responded_at - sent_at).try_into()?, true);
        completed.add((settled[&id] - sent_at).try_into().unwrap_or_default(), true);
    }
    let row = |figure: &str, times: &Times| {
        let [median, late] = [50, 99].map(|percent| in_units(times.percentile(percent)));
        let figure = format!("{figure}, {RATE} tasks/s for {SECONDS} s, in the emulator");
        Row::absolute(figure, format!("p50 {median}, p99 {late}"))
    };
    Ok(vec![
        row("create → completed", &completed),
        row("create → 201", &responded),
    ])
}
