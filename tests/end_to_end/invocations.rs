//! The emulator's records of invocations, and `make invoke`.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{documents::ROOT, env, eventually};

const TOKEN: &str = "Bearer not-for-the-disk";

fn stack() -> PathBuf {
    Path::new(ROOT).join(".local").join(env("TEST_STACK"))
}

/// The records of the open stack's function, the oldest first, with their files.
fn records(function: &str) -> Vec<(PathBuf, Value)> {
    let folders = fs::read_dir(stack().join("invocations")).expect("the folder of the records");
    let folders = folders.map(|folder| folder.expect("a folder").path());
    let is_its = |folder: &PathBuf| {
        let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
        // Other stacks in the same emulator have other names: task-api-closed-GetTaskFunction-1.
        name.starts_with(&format!("task-api-{function}-"))
    };
    let Some(folder) = folders.into_iter().find(is_its) else {
        return Vec::new();
    };
    let files = fs::read_dir(folder)
        .expect("the records")
        .map(|file| file.expect("a file").path());
    let mut files: Vec<_> = files
        .filter(|file| file.extension().is_some_and(|end| end == "json"))
        .collect();
    files.sort();
    // The oldest may be deleted meanwhile.
    let read = |file: PathBuf| {
        Some((
            file.clone(),
            serde_json::from_slice(&fs::read(file).ok()?).expect("JSON"),
        ))
    };
    files.into_iter().filter_map(read).collect()
}

async fn create(title: &str, description: &str) -> i64 {
    let response = reqwest::Client::new()
        .post(format!("{}/tasks", env("API_URL")))
        .header("authorization", TOKEN)
        .header("cookie", TOKEN)
        .json(&json!({"title": title, "description": description}))
        .send()
        .await
        .expect("the stack responds");
    assert_eq!(response.status(), 201);
    let task: Value = response.json().await.expect("a task");
    task["id"].as_i64().expect("an id")
}

/// A record of a new task: of its creation, or of its message. The others of the last ten may be of
/// other tests' tasks, so one that was pushed out before it was found is made again.
async fn record_of_new_task(function: &str) -> (PathBuf, Value) {
    eventually(60, "the invocation is recorded", async || {
        let id = create("Recorded", "once").await;
        let message = format!("\\\"task_id\\\":{id}}}");
        let creation = format!("\\\"id\\\":{id},");
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let found = records(function).into_iter().find(|(_, record)| {
                record["event"].to_string().contains(&message) || record["response"].to_string().contains(&creation)
            });
            if found.is_some() {
                return found;
            }
        }
        None
    })
    .await
}

/// A copy of a record, which is not pushed out.
fn copy(name: &str, content: &Value) -> String {
    let file = stack().join(name);
    fs::write(&file, content.to_string()).expect("written");
    file.to_str().expect("text").to_owned()
}

#[tokio::test]
async fn last_invocations_are_recorded_and_run_again() {
    let folder = stack().join("invocations");
    fs::create_dir_all(&folder).expect("the emulator's switch");
    let (file, record) = record_of_new_task("CreateTaskFunction").await;
    for (headers, redacted) in [
        ("headers", json!("redacted")),
        ("multiValueHeaders", json!(["redacted"])),
    ] {
        let headers = record["event"][headers].as_object().expect("headers");
        let credentials = headers
            .iter()
            .filter(|(name, _)| ["authorization", "cookie"].contains(&&*name.to_lowercase()));
        let credentials: Vec<&Value> = credentials.map(|(_, value)| value).collect();
        assert_eq!(credentials, [&redacted, &redacted]);
    }
    assert!(!record.to_string().contains(TOKEN));
    assert_eq!(
        (&record["response"]["statusCode"], &record["is_error"]),
        (&json!(201), &json!(false))
    );
    assert!(
        record["seconds"]
            .as_f64()
            .is_some_and(|seconds| seconds > 0.0 && seconds < 60.0)
    );
    let mode = |path: &Path| Some(fs::metadata(path).ok()?.permissions().mode() & 0o777);
    let its_folder = file.parent().expect("a folder");
    assert_eq!(mode(its_folder), Some(0o700));
    for (file, _) in records("CreateTaskFunction") {
        assert!([Some(0o600), None].contains(&mode(&file)), "{}", file.display());
    }

    let (_, batch) = record_of_new_task("TaskProcessorFunction").await;
    assert_eq!(batch["response"], json!({"batchItemFailures": []}));
    let again = invoke("task-processor", &copy("record.json", &batch));
    assert!(
        again.contains("again") && again.matches(r#"{"batchItemFailures":[]}"#).count() == 2,
        "{again}"
    );
    let again = invoke("create-task", &copy("event.json", &record["event"]));
    assert!(
        again.contains(r#""statusCode":201"#) && !again.contains("recorded"),
        "{again}"
    );

    for number in 0..11 {
        create(&format!("Record {number}"), "").await;
    }
    eventually(30, "the last ten are kept", async || {
        let kept = records("CreateTaskFunction");
        let is_old = |(_, record): &(PathBuf, Value)| record["event"].to_string().contains("Recorded");
        (kept.len() == 10 && !kept.iter().any(is_old)).then_some(())
    })
    .await;
    // Renamed first: the emulator may be writing another record.
    let off = stack().join("invocations-off");
    fs::rename(&folder, &off).expect("the switch is off");
    fs::remove_dir_all(&off).expect("deleted");
}

/// What `make invoke` prints.
fn invoke(function: &str, event: &str) -> String {
    let mut invoke = Command::new(env("XTASK"));
    invoke.current_dir(ROOT).args([
        "invoke",
        "--of",
        &env("TEST_STACK"),
        "--function",
        function,
        "--event",
        event,
    ]);
    let output = invoke.env_remove("DATABASE_URL").output().expect("the runner starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}
