//! docs/operations.md: every alarm has a chapter, and everything that the commands name exists.

use support::documents::{file, regex, without_code};

const PARTS: [&str; 3] = ["**Means.** ", "**Look first.** ", "**Do.** "];

/// The mark of a block of commands that no test can run.
const MARK: &str = "# needs an account";

/// All mistakes in the document.
fn mistakes(document: &str, template: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let (text, blocks) = without_code(document);
    let alarms = regex(r"(?m)^  (\w+):\n    Type: AWS::CloudWatch::Alarm$");
    let alarms: Vec<&str> = alarms
        .captures_iter(template)
        .map(|found| found.extract::<1>().1[0])
        .collect();
    for alarm in &alarms {
        let Some((_, chapter)) = text.split_once(&format!("\n### {alarm}\n")) else {
            wrong.push(format!("{alarm} has no chapter"));
            continue;
        };
        let chapter = chapter.split("\n#").next().expect("there is always a first part");
        let missing = PARTS.iter().filter(|part| !chapter.contains(&format!("\n{part}")));
        wrong.extend(missing.map(|part| format!("{alarm} lacks {part}")));
    }
    for found in regex(r"(?m)^### (\w+Alarm)$").captures_iter(document) {
        if !alarms.contains(&&found[1]) {
            wrong.push(format!("there is no {}", &found[1]));
        }
    }

    for block in &blocks {
        if block.lines().nth(1) != Some(MARK) {
            wrong.push(format!("a block without {MARK:?}: {block}"));
        }
    }
    let commands = blocks.concat();
    for found in regex(r"\$\(resource (\w+)\)").captures_iter(&commands) {
        if !is_resource(&found[1], template) {
            wrong.push(format!("there is no resource {}", &found[1]));
        }
    }
    let (_, outputs) = template.split_once("\nOutputs:\n").expect("outputs");
    for found in regex(r"\$\(output (\w+)\)").captures_iter(&commands) {
        if !outputs.contains(&format!("  {}:\n", &found[1])) {
            wrong.push(format!("there is no output {}", &found[1]));
        }
    }
    wrong
}

/// Whether this is a logical id of the template, or one that SAM generates from a function and its
/// event.
fn is_resource(id: &str, template: &str) -> bool {
    let (_, resources) = template.split_once("\nResources:\n").expect("resources");
    let mut defined = resources.split("\n  ").filter_map(|block| block.split_once(':'));
    let is_event = |function: &str| {
        let event = id.strip_prefix(function).filter(|event| !event.is_empty());
        let event = event.and_then(|event| regex(&format!(r"(?m)^        {event}:$")).find(resources));
        function.ends_with("Function") && event.is_some()
    };
    defined.any(|(name, _)| name == id || is_event(name))
}

fn texts() -> (String, String) {
    (
        file("docs/operations.md").expect("the runbook"),
        file("template.yaml").expect("the template"),
    )
}

#[test]
fn runbook_covers_alarms_and_names_real_resources() {
    let (document, template) = texts();
    assert_eq!(mistakes(&document, &template), [""; 0]);
}

#[test]
fn runbook_mistakes_are_detected() {
    let (document, template) = texts();
    for (right, wrong) in [
        ("### QueueAgeAlarm\n", "### The queue is old\n"),
        ("### DeadLetterAlarm\n", "### DeadLettersAlarm\n"),
        ("**Look first.** ", "Look first. "),
        ("# needs an account\n", ""),
        ("$(resource ApiLogs)", "$(resource ApiLog)"),
        (
            "$(resource TaskReconcilerFunctionSchedule)",
            "$(resource TaskReconcilerFunctionTimer)",
        ),
        ("$(output FunctionLogGroup)", "$(output FunctionLogs)"),
    ] {
        assert!(document.contains(right), "{right:?} is missing");
        let document = document.replacen(right, wrong, 1);
        assert!(!mistakes(&document, &template).is_empty(), "{wrong:?}");
    }
}
