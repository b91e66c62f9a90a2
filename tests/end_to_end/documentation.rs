//! Runs every command in a ```console block of README.md, docs/api.md, docs/tour.md and
//! docs/walkthrough.md against the deployed stack and compares the output with the document. A
//! separate test binary, because ids begin at 1 for each document.
//!
//! In a document, a line `…` stands for omitted lines, and `…` in a line for omitted text; times may
//! differ. A command that only reads is repeated until its output matches, since tasks are processed
//! in the background.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use aws_sdk_sqs::Client;
use sqlx::{Connection, PgConnection};
use support::documents::regex;

/// Longer than all retries of a task take.
const PATIENCE: Duration = Duration::from_secs(90);

/// Replaces `make dlq` and `make redrive`, which would use the stack of `make up`.
const MAKE: &str = r#"make() { "$DEAD_LETTERS" "${1/#dlq/list}"; }"#;

/// A command and its documented output.
struct Example {
    command: String,
    output: Vec<String>,
}

fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run the tests with `make test`"))
}

fn examples(document: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut in_block = false;
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        match line.strip_prefix("$ ") {
            _ if line.starts_with("```") => in_block = line == "```console",
            _ if !in_block => {}
            Some(command) => {
                let mut command = command.to_owned();
                while command.ends_with('\\') {
                    command.push('\n');
                    command.push_str(lines.next().expect("a backslash continues the command"));
                }
                let output = Vec::new();
                examples.push(Example { command, output });
            }
            None => {
                let example = examples.last_mut().expect("a block begins with a command");
                example.output.push(line.to_owned());
            }
        }
    }
    for example in &mut examples {
        while example.output.last().is_some_and(String::is_empty) {
            example.output.pop();
        }
    }
    examples
}

fn run(command: &str) -> Vec<String> {
    let mut bash = Command::new("bash");
    bash.current_dir("..").arg("-c").arg(format!("{MAKE}\n{command}"));
    // Inherited by bash; fails here if it is not set.
    env("DEAD_LETTERS");
    bash.env("API", env("API_URL"));
    let output = bash.output().expect("bash starts");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines()
        .map(|line| line.trim_end_matches('\r').to_owned())
        .collect()
}

/// The line with every time replaced by a placeholder.
fn without_times(line: &str) -> String {
    let is_time =
        |text: &str| time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).is_ok();
    let separator = |letter: char| letter == '"' || letter == ' ';
    let words = line.split(separator).filter(|word| is_time(word));
    words.fold(line.to_owned(), |line, time| line.replace(time, "<time>"))
}

fn line_matches(expected: &str, actual: &str) -> bool {
    let pattern = regex::escape(&without_times(expected)).replace('…', ".*");
    regex(&format!("^{pattern}$")).is_match(&without_times(actual))
}

fn matches(expected: &[String], actual: &[String]) -> bool {
    match expected {
        [] => actual.is_empty(),
        [gap, rest @ ..] if gap == "…" => (0..=actual.len()).any(|omitted| matches(rest, &actual[omitted..])),
        [line, rest @ ..] => actual
            .split_first()
            .is_some_and(|(first, tail)| line_matches(line, first) && matches(rest, tail)),
    }
}

/// The state after `make clean-data` and `make up`.
async fn delete_all_data() {
    let mut connection = PgConnection::connect(&env("DATABASE_URL"))
        .await
        .expect("Postgres accepts connections");
    let truncate = sqlx::query("truncate tasks, idempotency_keys, operator_actions restart identity");
    truncate.execute(&mut connection).await.expect("truncated");
    let sqs = Client::from_conf(queue::client_config().expect("the environment of `make test`").build());
    for queue in ["QUEUE_URL", "DEAD_LETTER_QUEUE_URL"] {
        let purge = sqs.purge_queue().queue_url(env(queue));
        purge.send().await.expect("purged");
    }
}

#[test]
fn only_omitted_text_and_times_may_differ() {
    let line = r#"{"id":1,"title":"t","at":"2026-01-01T00:00:00Z","more":[1,2]}"#;
    for expected in [line, r#"{"id":1,…,"at":"2026-01-02T00:00:00Z",…}"#, r#"{"id":1,…}"#] {
        assert!(line_matches(expected, line), "{expected}");
    }
    for expected in [
        r#"{"id":2,…}"#,
        r#"{"id":.,…}"#,
        r#"{"id":1,…]"#,
        r#"{"id":1,"title":"t"}"#,
    ] {
        assert!(!line_matches(expected, line), "{expected}");
    }
}

#[tokio::test]
async fn documented_commands_print_documented_output() {
    for (document, commands) in [
        ("README.md", 2),
        ("docs/api.md", 9),
        ("docs/tour.md", 6),
        ("docs/walkthrough.md", 10),
    ] {
        delete_all_data().await;
        let text = std::fs::read_to_string(Path::new("..").join(document)).expect("the document exists");
        let examples = examples(&text);
        assert_eq!(examples.len(), commands, "{document}'s commands");
        for Example { command, output } in examples {
            let deadline = Instant::now() + PATIENCE;
            let only_reads = command == "make dlq" || command.starts_with("curl $API/") && !command.contains(" -");
            let mut actual = run(&command);
            while only_reads && !matches(&output, &actual) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(200));
                actual = run(&command);
            }
            assert!(
                matches(&output, &actual),
                "{document} documents\n\n$ {command}\n{}\n\nbut the command prints\n\n{}\n",
                output.join("\n"),
                actual.join("\n")
            );
        }
    }
}
