//! review-pull-request: which of the planted defects the review names, by location.
// functions: create-task, delete-task, list-tasks, task-processor

use std::{fs, path::Path};

/// How many lines a finding may be off.
const TOLERANCE: usize = 3;

/// The most findings: a review that names every line helps no one.
const MOST: usize = 30;

/// A part of the pull request: a file, and texts in the part's first and last lines.
type Place = (&'static str, &'static str, &'static str);

const BULK: &str = "shared/core/src/store/bulk.rs";
const CLEAR: &str = "functions/delete-task/src/clear.rs";
const EXPORT: &str = "functions/list-tasks/src/export.rs";
const IMPORT: &str = "functions/create-task/src/import.rs";
const MIGRATION: &str = "migrations/0011_imports.sql";
const PROCESSOR: &str = "functions/task-processor/src/batch.rs";
const TEMPLATE: &str = "template.yaml";

/// The planted defects, each with the locations at which a finding may name it.
const DEFECTS: [&[Place]; 12] = [
    &[
        (
            BULK,
            "if let Some(status) = self.status",
            "and created_by = '{created_by}'",
        ),
        (
            EXPORT,
            "status: parameter(\"status\")",
            "created_by: parameter(\"created_by\")",
        ),
    ],
    &[
        (CLEAR, "let _caller = ", "let _caller = "),
        (CLEAR, "database.run(&Clear", "database.run(&Clear"),
        (BULK, "pub struct Clear {", "pub struct Clear {"),
        (BULK, "delete from tasks", "order by id limit $2"),
    ],
    &[(EXPORT, "headers.get(\"x-export-token\")", "if given != Some(")],
    &[(BULK, "\"storing an import\"", "\"storing an import\"")],
    &[(BULK, "// Tasks are stored only if SQS", "transaction.commit()")],
    &[(BULK, "// It is one transaction", "// It is one transaction")],
    &[(
        PROCESSOR,
        "// The work is done: after a large import",
        "\"outcomes were not stored\"",
    )],
    &[(IMPORT, "// SQS throttles: give it", "std::thread::sleep")],
    &[
        (BULK, "sqlx::query_as(&query)", "sqlx::query_as(&query)"),
        (EXPORT, "database.run(&export)", "Response::new(Body::Text(csv))"),
    ],
    &[(EXPORT, "let after: i64 = ", "let after: i64 = ")],
    &[(TEMPLATE, "# Imports send batches.", "Action: \"sqs:*\"")],
    &[(MIGRATION, "-- For exports", "create index tasks_by_source")],
];

/// Code that looks wrong but is right.
const DECOYS: [Place; 3] = [
    (
        MIGRATION,
        "alter table tasks add column source",
        "alter table tasks add column source",
    ),
    (BULK, "self.order.columns()", "self.order.columns()"),
    (
        EXPORT,
        "expect(\"digits are a valid header value\")",
        "expect(\"digits are a valid header value\")",
    ),
];

struct Finding {
    path: String,
    line: usize,
    severity: String,
}

fn file(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The review's findings, or what is wrong with its format.
fn review() -> Result<Vec<Finding>, String> {
    let text = file("interview/briefs/review-pull-request/review.md");
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with(['#', '<', '>']));
    lines
        .map(|(number, line)| finding(line).ok_or(format!("line {number} is not a finding: {line}")))
        .collect()
}

/// `path:line | severity | what and why`; a range of lines is also accepted, as in `path:12-18`.
fn finding(text: &str) -> Option<Finding> {
    let text = text.trim_start_matches(['-', '*', ' ']);
    let (place, rest) = text.split_once('|')?;
    let (severity, what) = rest.split_once('|')?;
    let (path, line) = place.trim().trim_matches('`').rsplit_once(':')?;
    let severity = severity.trim().to_lowercase();
    let is_known = ["blocking", "important", "nit"].contains(&&*severity);
    let line = line.split('-').next()?.trim().parse().ok()?;
    let path = path.trim_start_matches("./").to_owned();
    (is_known && !what.trim().is_empty()).then_some(Finding { path, line, severity })
}

/// The number of lines between a finding and a location; `None` if it is in another file.
fn distance(finding: &Finding, (path, first, last): Place) -> Option<usize> {
    if finding.path != path {
        return None;
    }
    let text = file(path);
    let number = |part: &str| {
        let index = text.lines().position(|line| line.contains(part));
        index.map(|index| index + 1)
    };
    let (Some(first), Some(last)) = (number(first), number(last)) else {
        panic!("{path} differs from the pull request: restore it (git checkout), the review is of that version");
    };
    Some(match finding.line {
        line if line < first => first - line,
        line if line > last => line - last,
        _ => 0,
    })
}

fn is_a_decoy(finding: &Finding) -> bool {
    DECOYS.iter().any(|decoy| distance(finding, *decoy) == Some(0))
}

/// The defects that a finding names: the nearest ones.
fn defects(finding: &Finding) -> Vec<usize> {
    if is_a_decoy(finding) {
        return Vec::new();
    }
    let away: Vec<(usize, usize)> = DEFECTS
        .iter()
        .enumerate()
        .filter_map(|(defect, places)| {
            let away = places.iter().filter_map(|place| distance(finding, *place)).min()?;
            (away <= TOLERANCE).then_some((away, defect))
        })
        .collect();
    let nearest = away.iter().map(|(away, _)| *away).min();
    away.into_iter()
        .filter(|(away, _)| Some(*away) == nearest)
        .map(|(_, defect)| defect)
        .collect()
}

/// Fails unless the review has the defect of this number, counted from 1.
fn assert_named(number: usize) {
    let review = review().unwrap_or_default();
    let named = review.iter().any(|finding| defects(finding).contains(&(number - 1)));
    assert!(named, "no finding is at its location");
}

#[tokio::test]
async fn every_line_of_the_review_is_a_finding() {
    if let Err(reason) = review() {
        panic!("{reason}");
    }
}

#[tokio::test]
async fn review_has_at_most_thirty_findings() {
    let count = review().unwrap_or_default().len();
    assert!(count <= MOST, "{count} findings, more than {MOST}");
}

#[tokio::test]
async fn finding_01_security_is_in_the_review() {
    assert_named(1);
}

#[tokio::test]
async fn finding_02_security_is_in_the_review() {
    assert_named(2);
}

#[tokio::test]
async fn finding_03_security_is_in_the_review() {
    assert_named(3);
}

#[tokio::test]
async fn finding_04_security_is_in_the_review() {
    assert_named(4);
}

#[tokio::test]
async fn finding_05_reliability_is_in_the_review() {
    assert_named(5);
}

#[tokio::test]
async fn finding_06_reliability_is_in_the_review() {
    assert_named(6);
}

#[tokio::test]
async fn finding_07_reliability_is_in_the_review() {
    assert_named(7);
}

#[tokio::test]
async fn finding_08_reliability_is_in_the_review() {
    assert_named(8);
}

#[tokio::test]
async fn finding_09_reliability_is_in_the_review() {
    assert_named(9);
}

#[tokio::test]
async fn finding_10_contract_is_in_the_review() {
    assert_named(10);
}

#[tokio::test]
async fn finding_11_permissions_is_in_the_review() {
    assert_named(11);
}

#[tokio::test]
async fn finding_12_migration_is_in_the_review() {
    assert_named(12);
}

#[tokio::test]
async fn nothing_correct_is_called_blocking() {
    let review = review().unwrap_or_default();
    let wrong = review
        .iter()
        .filter(|finding| finding.severity == "blocking" && is_a_decoy(finding));
    let wrong: Vec<String> = wrong
        .map(|finding| format!("{}:{}", finding.path, finding.line))
        .collect();
    assert!(
        wrong.is_empty(),
        "it may look wrong, but think again: {}",
        wrong.join(", ")
    );
}
