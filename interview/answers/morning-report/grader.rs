//! morning-report: which false and unsupported statements of the draft the review names.
// functions: health

use std::{fs, path::Path};

/// The most findings: a review that names every statement helps no one.
const MOST: usize = 10;

/// A reason that fits more defects than this names none.
const MOST_EFFECTS: usize = 4;

/// A statement's line, the severity, and groups of words of which the reason has one each.
type Defect = (usize, &'static str, &'static [&'static [&'static str]]);

const DEFECTS: [Defect; 8] = [
    (7, "blocking", &[&["l68", "l32"]]),
    (8, "blocking", &[&["l35", "l39"]]),
    (10, "blocking", &[&["l18"], &["l38"]]),
    (
        11,
        "important",
        &[&[
            "cause",
            "because",
            "coincid",
            "correlat",
            "not show",
            "nothing shows",
            "no line",
            "no evidence",
            "not in the evidence",
            "unknown",
            "after is not",
            "guess",
        ]],
    ),
    (13, "blocking", &[&["l43", "l44", "l45", "l46", "l51"]]),
    (14, "blocking", &[&["l58", "l72", "l60", "l61", "l62", "l63", "l59"]]),
    (16, "blocking", &[&["l54", "l73"]]),
    (
        17,
        "important",
        &[&[
            "duration",
            "latenc",
            "how long",
            "how fast",
            "millisecond",
            "p50",
            "p99",
            "percentile",
            "no times",
            "response time",
            "took",
        ]],
    ),
];

/// Statements that the evidence supports.
const DECOYS: [usize; 4] = [6, 9, 12, 15];

struct Finding {
    line: usize,
    severity: String,
    reason: String,
}

/// The review's findings, or what is wrong with its format.
fn review() -> Result<Vec<Finding>, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = "interview/briefs/morning-report/review.md";
    let text = fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with(['#', '<', '>']));
    lines
        .map(|(number, line)| finding(line).ok_or(format!("line {number} is not a finding: {line}")))
        .collect()
}

/// `path:line | severity | why`
fn finding(text: &str) -> Option<Finding> {
    let text = text.trim_start_matches(['-', '*', ' ']);
    let (place, rest) = text.split_once('|')?;
    let (severity, reason) = rest.split_once('|')?;
    let (path, line) = place.trim().trim_matches('`').rsplit_once(':')?;
    let (severity, reason) = (severity.trim().to_lowercase(), reason.trim().to_lowercase());
    let is_known = ["blocking", "important", "nit"].contains(&&*severity);
    let is_of_draft = path.trim_start_matches("./").ends_with("draft.md");
    let line = line.trim().parse().ok()?;
    (is_known && is_of_draft && !reason.is_empty()).then_some(Finding { line, severity, reason })
}

fn explains(finding: &Finding, defect: &Defect) -> bool {
    let says = |words: &&[&str]| words.iter().any(|word| finding.reason.contains(word));
    defect.2.iter().all(says)
}

/// Fails unless the review names this many defects.
fn assert_named(wanted: usize) {
    let mut review = review().unwrap_or_default();
    if review.len() > MOST {
        review.clear();
    }
    review.retain(|finding| DEFECTS.iter().filter(|defect| explains(finding, defect)).count() <= MOST_EFFECTS);
    let is_named = |defect: &&Defect| {
        let names =
            |finding: &Finding| finding.line == defect.0 && finding.severity == defect.1 && explains(finding, defect);
        review.iter().any(names)
    };
    let named = DEFECTS.iter().filter(is_named).count();
    assert!(
        named >= wanted,
        "it names {named}, at their lines, with their severities, and with what decides them"
    );
}

#[tokio::test]
async fn every_line_of_the_review_is_a_finding() {
    if let Err(reason) = review() {
        panic!("{reason}");
    }
}

#[tokio::test]
async fn review_has_at_most_10_findings() {
    let count = review().unwrap_or_default().len();
    assert!(count <= MOST, "{count} findings, more than {MOST}");
}

#[tokio::test]
async fn nothing_correct_is_called_blocking() {
    let review = review().unwrap_or_default();
    let wrong = review
        .iter()
        .filter(|finding| finding.severity == "blocking" && DECOYS.contains(&finding.line));
    let wrong: Vec<String> = wrong.map(|finding| format!("line {}", finding.line)).collect();
    assert!(wrong.is_empty(), "look again at {}", wrong.join(", "));
}

#[tokio::test]
async fn review_names_2_of_8_defects() {
    assert_named(2);
}

#[tokio::test]
async fn review_names_4_of_8_defects() {
    assert_named(4);
}

#[tokio::test]
async fn review_names_6_of_8_defects() {
    assert_named(6);
}

#[tokio::test]
async fn review_names_all_8_defects() {
    assert_named(8);
}
