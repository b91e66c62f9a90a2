//! The report about graded work.

use std::fmt::Write;

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};

/// The most characters of a reason that are shown. The full output is in the log.
const LONGEST: usize = 300;

/// How many compiler errors are shown, and how many lines.
const ERRORS: usize = 3;
const LINES: usize = 40;

/// A hidden check and its outcome.
#[derive(Debug, PartialEq, Eq)]
pub struct Check {
    /// The test's name.
    pub name: String,
    outcome: Outcome,
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    /// With the reason.
    Failed(String),
}

impl Check {
    /// True if it passed.
    pub fn passed(&self) -> bool {
        self.outcome == Outcome::Passed
    }

    /// One that passed.
    pub fn ok(name: &str) -> Self {
        let (name, outcome) = (name.to_owned(), Outcome::Passed);
        Self { name, outcome }
    }

    /// One that failed, and why.
    pub fn failed(name: &str, reason: impl Into<String>) -> Self {
        let (name, outcome) = (name.to_owned(), Outcome::Failed(reason.into()));
        Self { name, outcome }
    }

    /// One that failed for these reasons, or passed if there are none.
    pub fn of(name: &str, reasons: &[String]) -> Self {
        match reasons {
            [] => Self::ok(name),
            _ => Self::failed(name, reasons.join("; ")),
        }
    }

    /// The reason for a failure.
    pub fn reason(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Passed => None,
            Outcome::Failed(reason) => Some(reason),
        }
    }
}

/// The names of the tests in a source file, in order.
pub fn names(source: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[tokio::test") || line == "#[test]" {
            is_test = true;
        } else if let Some((_, rest)) = line.split_once("fn ").filter(|_| is_test) {
            names.extend(rest.split('(').next().map(str::to_owned));
            is_test = false;
        }
    }
    names
}

/// The outcomes of these tests, from their program's output (libtest's JSON events). Fails if it is
/// not complete: a function under test may have ended its program, or written between its lines.
pub fn read(names: &[String], lines: &[String]) -> Result<Vec<Check>> {
    let mut events: Vec<Value> = Vec::new();
    for line in lines {
        match serde_json::from_str(line) {
            Ok(event) => events.push(event),
            Err(_) if line.contains("\"type\"") => bail!("the report of the checks is damaged: {line}"),
            Err(_) => {}
        }
    }
    let ends: Vec<&Value> = events
        .iter()
        .filter(|event| event["type"] == "suite" && event["event"] != "started")
        .collect();
    let [end] = ends[..] else {
        bail!("the report of the checks has {} ends, not one", ends.len());
    };
    let check = |name: &String| {
        let of_test = events
            .iter()
            .filter(|event| event["type"] == "test" && event["name"] == name.as_str());
        let outcomes = of_test.filter(|event| event["event"] != "started").collect::<Vec<_>>();
        // Another process that writes to the same pipe can only add outcomes.
        let failed = outcomes.iter().find(|event| event["event"] != "ok");
        let outcome = match (failed, &outcomes[..]) {
            (None, [_]) => Outcome::Passed,
            (None, [_, _, ..]) => Outcome::Failed("it was reported more than once".to_owned()),
            (failed, _) => Outcome::Failed(reason(
                failed.and_then(|event| event["stdout"].as_str()).unwrap_or_default(),
            )),
        };
        let name = name.clone();
        Check { name, outcome }
    };
    let checks: Vec<Check> = names.iter().map(check).collect();
    let passed = checks.iter().filter(|check| check.passed()).count();
    ensure!(
        end["passed"].as_u64() >= u64::try_from(passed).ok(),
        "{passed} checks are reported as passed, and their program counts {}",
        end["passed"]
    );
    Ok(checks)
}

/// The reason for a failure in one line, extracted from the test's output.
fn reason(printed: &str) -> String {
    let message = printed
        .lines()
        .skip_while(|line| !line.contains(" panicked at "))
        .skip(1)
        .take_while(|line| !line.starts_with("note: "));
    let message: Vec<&str> = message
        .map(|line| line.trim())
        .filter(|line| !line.is_empty())
        .collect();
    let reason = match message[..] {
        [] => "it did not finish".to_owned(),
        [first, ref rest @ ..] => match first.strip_prefix("assertion `left == right` failed") {
            Some(what) => comparison(what.trim_start_matches(": "), rest),
            None => message.join(" "),
        },
    };
    match reason.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &reason[..end]),
        None => reason,
    }
}

/// Formats a failed `assert_eq!(actual, expected, "what")`.
fn comparison(what: &str, sides: &[&str]) -> String {
    let side = |name: &str| sides.iter().find_map(|line| line.strip_prefix(name)).unwrap_or("?");
    let [actual, expected] = ["left: ", "right: "].map(|name| plain(side(name)));
    let what = if what.is_empty() { "got" } else { what };
    // JSON within a list of strings is easier to read unescaped.
    format!("{what}: {actual}, not {expected}").replace("\\\"", "\"")
}

/// A debug-formatted JSON value without its variant: `String("a")` is `"a"`.
fn plain(value: &str) -> &str {
    let kinds = ["String(", "Number(", "Bool("].iter();
    let bare = kinds
        .filter_map(|kind| value.strip_prefix(kind)?.strip_suffix(')'))
        .next();
    bare.unwrap_or(if value == "Null" { "null" } else { value })
}

/// One sentence per check, and how many passed.
pub fn of_checks(checks: &[Check]) -> String {
    let mut text = String::new();
    for Check { name, outcome } in checks {
        let sentence = name.replace('_', " ");
        // Writing to a String cannot fail.
        let _ = match outcome {
            Outcome::Passed => writeln!(text, "  ✓ {sentence}"),
            Outcome::Failed(reason) => writeln!(text, "  ✗ {sentence}\n      {reason}"),
        };
    }
    let passed = checks.iter().filter(|check| check.passed()).count();
    let _ = writeln!(text, "\n{passed} of {} checks passed", checks.len());
    text
}

/// The report for programs.
pub fn as_json(exercise: &str, checks: &[Check]) -> Value {
    let passed = checks.iter().filter(|check| check.passed()).count();
    let each = checks.iter().map(|check| {
        let (name, passed, reason) = (&check.name, check.passed(), check.reason());
        json!({"name": name, "passed": passed, "reason": reason})
    });
    let (each, total) = (each.collect::<Vec<_>>(), checks.len());
    json!({"exercise": exercise, "passed": passed, "total": total, "checks": each})
}

/// The names of tests by outcome, from their program's output.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    pub passed: Vec<String>,
    pub failed: Vec<String>,
    pub ignored: Vec<String>,
    /// Those that were started, and have no outcome.
    pub unfinished: Vec<String>,
}

impl Outcomes {
    pub fn read(lines: &[String]) -> Self {
        let mut outcomes = Self::default();
        for line in lines {
            let event: Value = serde_json::from_str(line).unwrap_or_default();
            let (Some(name), Some(what)) = (event["name"].as_str(), event["event"].as_str()) else {
                continue;
            };
            let of_outcome = match what {
                "started" => &mut outcomes.unfinished,
                "ok" => &mut outcomes.passed,
                "failed" => &mut outcomes.failed,
                "ignored" => &mut outcomes.ignored,
                _ => continue,
            };
            of_outcome.push(name.to_owned());
            if what != "started" {
                outcomes.unfinished.retain(|unfinished| unfinished != name);
            }
        }
        outcomes
    }
}

/// True if these errors are the machine's rather than the code's.
pub fn is_of_machine(errors: &str) -> bool {
    [
        "No space left on device",
        "could not execute process",
        "failed to download",
        "failed to get",
        "failed to write",
        "(signal: 9",
    ]
    .iter()
    .any(|cause| errors.contains(cause))
}

/// The first errors in cargo's output, if any.
pub fn first_errors(lines: &[String]) -> Option<String> {
    let is_error = |line: &str| line.starts_with("error") && !line.starts_with("error: could not compile");
    let mut shown: Vec<&str> = Vec::new();
    let mut errors = 0;
    let mut inside = false;
    for line in lines.iter().filter(|line| !line.starts_with('{')) {
        if is_error(line) {
            errors += 1;
            inside = errors <= ERRORS;
        } else if ["warning", "error", "For more", "Some errors"]
            .iter()
            .any(|end| line.starts_with(end))
        {
            inside = false;
        }
        if inside && shown.len() < LINES {
            shown.push(line);
        }
    }
    let text = shown.join("\n");
    (errors > 0).then(|| text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn checks_follow_source_order() {
        let source = "
            // functions: a
            #[tokio::test]
            async fn zebras_run() {
                fn helper() {}
            }
            async fn helper() {}
            #[tokio::test(flavor = \"multi_thread\")]
            async fn apes_climb() {}";
        assert_eq!(names(source), ["zebras_run", "apes_climb"]);
    }

    const APES: &str = "what it printed

thread 'apes_climb' (123) panicked at interview/grading/tests/grader.rs:7:5:
assertion `left == right` failed: the apes' height
  left: Number(1)
 right: 2
note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace
";

    const CATS: &str = "
thread 'cats_sleep' (124) panicked at interview/grading/tests/grader.rs:9:5:
no cat sleeps,
and it is night
";

    fn events() -> Vec<String> {
        let event = |name: &str, event: &str, stdout: &str| {
            json!({"type": "test", "name": name, "event": event, "stdout": stdout}).to_string()
        };
        vec![
            json!({"type": "suite", "event": "started", "test_count": 4}).to_string(),
            event("apes_climb", "started", ""),
            event("dogs_bark", "started", ""),
            event("apes_climb", "failed", APES),
            "a line of a function".to_owned(),
            event("zebras_run", "ok", ""),
            event("cats_sleep", "failed", CATS),
            end(1),
        ]
    }

    fn end(passed: u64) -> String {
        json!({"type": "suite", "event": "failed", "passed": passed, "failed": 2}).to_string()
    }

    #[test]
    fn report_has_a_sentence_per_check_and_reasons() {
        let names = ["zebras_run", "apes_climb", "cats_sleep", "dogs_bark"].map(str::to_owned);
        let checks = read(&names, &events()).expect("a report");
        let report = "  \
  ✓ zebras run
  ✗ apes climb
      the apes' height: 1, not 2
  ✗ cats sleep
      no cat sleeps, and it is night
  ✗ dogs bark
      it did not finish

1 of 4 checks passed
";
        assert_eq!(of_checks(&checks), report);
        let expected = json!({"exercise": "e", "passed": 1, "total": 4, "checks": [
            {"name": "zebras_run", "passed": true, "reason": null},
            {"name": "apes_climb", "passed": false, "reason": "the apes' height: 1, not 2"},
            {"name": "cats_sleep", "passed": false, "reason": "no cat sleeps, and it is night"},
            {"name": "dogs_bark", "passed": false, "reason": "it did not finish"},
        ]});
        assert_eq!(as_json("e", &checks), expected);
        let outcomes = Outcomes {
            passed: vec!["zebras_run".into()],
            failed: vec!["apes_climb".into(), "cats_sleep".into()],
            ignored: vec![],
            unfinished: vec!["dogs_bark".into()],
        };
        assert_eq!(Outcomes::read(&events()), outcomes);
    }

    #[test]
    fn added_outcome_passes_no_check() {
        let event =
            |event: &str| json!({"type": "test", "name": "apes_climb", "event": event, "stdout": APES}).to_string();
        let read = |lines: &[String]| read(&["apes_climb".to_owned()], lines);
        let reason = |events: &[&str]| {
            let lines: Vec<String> = events.iter().map(|name| event(name)).chain([end(1)]).collect();
            read(&lines).expect("a report")[0].reason().map(str::to_owned)
        };
        assert_eq!(reason(&["ok"]), None);
        for forged in [["ok", "failed"], ["failed", "ok"]] {
            assert_eq!(reason(&forged).as_deref(), Some("the apes' height: 1, not 2"));
        }
        assert_eq!(reason(&["ok", "ok"]).as_deref(), Some("it was reported more than once"));

        let error = |lines: &[String]| read(lines).expect_err("no report").to_string();
        assert!(error(&[event("ok")]).contains("has 0 ends"));
        assert!(error(&[event("ok"), end(1), end(1)]).contains("has 2 ends"));
        assert!(error(&[event("ok"), end(0)]).contains("their program counts 0"));
        let damaged = format!("x{}", event("failed"));
        assert!(error(&[event("ok"), damaged, end(1)]).contains("is damaged"));
    }

    #[test]
    fn failure_of_machine_is_not_the_code_s() {
        assert!(is_of_machine(
            "error: failed to write `a`: No space left on device (os error 28)"
        ));
        assert!(!is_of_machine("error[E0425]: cannot find value `x`\n --> a.rs:2:1"));
    }

    #[test]
    fn long_reason_is_cut() {
        let reason = reason(&CATS.replace("no cat sleeps,", &"ä".repeat(400)));
        assert_eq!(reason, format!("{}…", "ä".repeat(300)));
    }

    #[test]
    fn first_errors_are_shown_without_warnings() {
        let output = "   Compiling a
{\"reason\":\"compiler-artifact\"}
warning: unused
 --> a.rs:1:1

error[E0425]: cannot find value `x`
 --> a.rs:2:1
  |

For more information about this error, try `rustc --explain E0425`.
error: could not compile `a` (lib) due to 1 previous error; 1 warning emitted
warning: build failed, waiting for other jobs to finish...";
        let expected = "error[E0425]: cannot find value `x`\n --> a.rs:2:1\n  |";
        assert_eq!(first_errors(&lines(output)).as_deref(), Some(expected));
        assert_eq!(first_errors(&lines("   Compiling a")), None);
    }
}
