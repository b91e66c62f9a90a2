//! How long a candidate waits for `make grade`: the kit's part of `make bench LOOP=1`.

use anyhow::Result;
use xtask::{
    commands::local_loop::{self, Row},
    stack::settings::Settings,
};

/// Measures in a fresh clone, and writes the results to interview/README.md.
pub fn run(settings: &Settings) -> Result<()> {
    local_loop::in_clone(settings, "interview/README.md", |clone, rows| {
        clone.make_target(&["up"])?;
        clone.make_target(&["exercise", "N=lost-messages"])?;
        rows.push(Row {
            what: "first `make grade` after `make up`",
            measured: clone.make_target(&["grade"])?,
            goal: 45.0,
            release: None,
        });
        clone.edit_function(2)?;
        rows.push(Row {
            what: "`make grade` again, after one line",
            measured: clone.make_target(&["grade"])?,
            goal: 8.0,
            release: None,
        });
        clone.git(&["checkout", "--quiet", "."])?;
        clone.make_target(&["exercise-reset"]).map(drop)
    })
}
