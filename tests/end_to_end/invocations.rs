//! The emulator's records of invocations, and `make invoke`.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
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

async fn record_of(function: &str, text: &str) -> (PathBuf, Value) {
    eventually(30, "the invocation is recorded", async || {
        let records = records(function);
        records
            .into_iter()
            .rev()
            .find(|(_, record)| record["event"].to_string().contains(text))
    })
    .await
}

#[tokio::test]
async fn last_invocations_are_recorded_and_run_again() {
    let folder = stack().join("invocations");
    fs::create_dir_all(&folder).expect("the emulator's switch");
    let id = create("Recorded", "once").await;
    let (file, record) = record_of("CreateTaskFunction", "Recorded").await;
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
    assert!(!fs::read_to_string(&file).expect("a record").contains(TOKEN));
    let response = &record["response"];
    assert_eq!(
        (&response["statusCode"], &record["is_error"]),
        (&json!(201), &json!(false))
    );
    assert!(
        record["seconds"]
            .as_f64()
            .is_some_and(|seconds| seconds > 0.0 && seconds < 60.0)
    );
    let mode = |path: &Path| fs::metadata(path).expect("it exists").permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(file.parent().expect("a folder"))), (0o600, 0o700));

    // The message that the processor got.
    let (batch, record) = record_of("TaskProcessorFunction", &format!("\\\"task_id\\\":{id}")).await;
    assert_eq!(record["response"], json!({"batchItemFailures": []}));
    let again = invoke("task-processor", batch.to_str().expect("text"));
    assert!(
        again.contains(r#"again"#) && again.matches(r#"{"batchItemFailures":[]}"#).count() == 2,
        "{again}"
    );
    // A bare event.
    let event = stack().join("event.json");
    fs::write(
        &event,
        record_of("CreateTaskFunction", "Recorded").await.1["event"].to_string(),
    )
    .expect("written");
    let again = invoke("create-task", event.to_str().expect("text"));
    assert!(
        again.contains(r#""statusCode":201"#) && !again.contains("recorded"),
        "{again}"
    );

    for number in 0..11 {
        create(&format!("Record {number}"), "").await;
    }
    // The last one is recorded after its response.
    record_of("CreateTaskFunction", "Record 10").await;
    let titles = |records: &[(PathBuf, Value)]| {
        let is_one = |number: &i32| {
            records.iter().any(|(_, record)| {
                record["event"]["body"]
                    .to_string()
                    .contains(&format!("Record {number}\\"))
            })
        };
        (0..11).filter(is_one).count()
    };
    let kept = records("CreateTaskFunction");
    assert!(kept.len() <= 10 && titles(&kept) >= 8, "{} records", kept.len());
    fs::remove_dir_all(&folder).expect("the switch is off");
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
