//! How long a candidate waits for `make grade`: the kit's part of `make bench LOOP=1`.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xtask::{
    commands::local_loop::{self, Clone, Cost, Row},
    stack::settings::Settings,
};

/// Measures in a fresh clone, and writes the results to interview/README.md.
pub fn run(settings: &Settings) -> Result<()> {
    local_loop::in_clone(settings, "interview/README.md", |clone, rows| {
        clone.make_target(&["up"])?;
        clone.make_target(&["exercise", "N=lost-messages"])?;
        rows.push(Row {
            what: "first `make grade` after `make up`",
            measured: grade(settings, clone)?,
            goal: 45.0,
            release: None,
        });
        clone.edit_function(2)?;
        rows.push(Row {
            what: "`make grade` again, after one line",
            measured: grade(settings, clone)?,
            goal: 8.0,
            release: None,
        });
        clone.git(&["checkout", "--quiet", "."])?;
        clone.make_target(&["exercise-reset"]).map(drop)
    })
}

/// Grades the start of the exercise, which fails some checks, so that make fails as well.
fn grade(settings: &Settings, clone: &Clone) -> Result<Cost> {
    let file = settings.root.join(".local/measured-grade.json");
    let cost = clone.make_target(&["--ignore-errors", "grade", &format!("JSON={}", file.display())])?;
    let report = fs::read_to_string(&file).context("the measured grade has written no report")?;
    fs::remove_file(&file)?;
    let report: Value = serde_json::from_str(&report)?;
    ensure!(report["total"].as_u64() > Some(1), "no checks ran: {report}");
    Ok(cost)
}
