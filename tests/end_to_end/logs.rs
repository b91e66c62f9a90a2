//! `make logs`.

use std::{collections::BTreeSet, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::timeout,
};

use crate::support::{
    SAM_PYTHON,
    documents::ROOT,
    functions::{FUNCTIONS, function_name},
};

#[tokio::test]
async fn logs_of_all_functions_are_followed() {
    let mut logs = Command::new(SAM_PYTHON)
        .current_dir(ROOT)
        .args(["dev/tools/logs.py", "--stack-name", "task-api", "--tail", "--debug"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("Python starts");
    let mut lines = BufReader::new(logs.stderr.take().expect("a pipe")).lines();
    // The runner migrates the local database.
    let names = FUNCTIONS.iter().map(|function| function.name.to_owned());
    let mut missing: BTreeSet<String> = names.filter(|name| name != "migrator").collect();
    let all_are_fetched = async {
        while let Some(line) = lines.next_line().await.expect("text") {
            if line.contains("Fetching logs")
                && let Some((_, group)) = line.split_once("/aws/lambda/task-api-")
            {
                let logical_id = group.split('-').next().unwrap_or_default();
                missing.remove(&function_name(logical_id));
            }
            if missing.is_empty() {
                return;
            }
        }
    };
    let in_time = timeout(Duration::from_secs(60), all_are_fetched).await;
    assert!(in_time.is_ok() && missing.is_empty(), "not followed: {missing:?}");
}
