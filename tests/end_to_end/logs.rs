//! `make logs`.

use std::{collections::BTreeSet, fs, path::Path, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::timeout,
};

use crate::support::documents::ROOT;

/// The deployed functions by their names in the template: `GetTaskFunction`.
fn functions() -> BTreeSet<String> {
    let folders = fs::read_dir(Path::new(ROOT).join("functions")).expect("functions/");
    let names = folders.map(|folder| folder.expect("a folder").file_name().into_string().expect("text"));
    // The runner migrates the local database.
    names
        .filter(|name| name != "migrator")
        .map(|name| {
            let words = name.split('-').map(|word| word[..1].to_uppercase() + &word[1..]);
            words.collect::<String>() + "Function"
        })
        .collect()
}

#[tokio::test]
async fn logs_of_all_functions_are_followed() {
    let mut logs = Command::new(Path::new(ROOT).join(".local/tools/sam/bin/python"))
        .current_dir(ROOT)
        .args(["dev/tools/logs.py", "--stack-name", "task-api", "--tail", "--debug"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("Python starts");
    let mut lines = BufReader::new(logs.stderr.take().expect("a pipe")).lines();
    let mut missing = functions();
    assert!(missing.len() > 20, "{missing:?}");
    let all_are_fetched = async {
        while let Some(line) = lines.next_line().await.expect("text") {
            if line.contains("Fetching logs") {
                missing.retain(|function| !line.contains(&format!("-{function}-")));
            }
            if missing.is_empty() {
                return;
            }
        }
    };
    let in_time = timeout(Duration::from_secs(60), all_are_fetched).await;
    assert!(in_time.is_ok() && missing.is_empty(), "not followed: {missing:?}");
}
