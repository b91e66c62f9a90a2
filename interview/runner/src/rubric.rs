//! The rubric, interview/rubric.toml: the rows that an exercise is scored by, and what 1 to 4 mean.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use xtask::tools::terminal;

use crate::git::Git;

/// The file.
pub const RUBRIC: &str = "interview/rubric.toml";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rubric {
    #[serde(rename = "row")]
    pub rows: Vec<Row>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// `Diagnosis`
    pub name: String,
    /// What it is about.
    pub about: String,
    pub one: Level,
    pub two: Level,
    pub three: Level,
    pub four: Level,
}

/// What a score means.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Level {
    pub description: String,
    pub example: String,
}

/// The score of a row, with an observation as its reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Score {
    pub row: String,
    pub score: u8,
    pub because: String,
}

impl Rubric {
    /// Of a commit with the kit.
    pub fn of(git: &Git, kit: &str) -> Result<Self> {
        let text = git.file(kit, RUBRIC);
        Self::parse(&text.with_context(|| format!("there is no {RUBRIC} in the commit {kit}"))?)
    }

    /// Reads the file's text.
    pub fn parse(text: &str) -> Result<Self> {
        let rubric: Self = toml::from_str(text).with_context(|| format!("{RUBRIC} is not readable"))?;
        ensure!(!rubric.rows.is_empty(), "{RUBRIC} has no row");
        Ok(rubric)
    }

    /// Fails unless there is a score from 1 to 4 for each row, in their order, each with a reason.
    pub fn validate(&self, scores: &[Score]) -> Result<()> {
        let rows: Vec<&str> = self.rows.iter().map(|row| row.name.as_str()).collect();
        let scored: Vec<&str> = scores.iter().map(|score| score.row.as_str()).collect();
        ensure!(
            scored == rows,
            "the rows are {}, and not, in this order, {}",
            scored.join(", "),
            rows.join(", ")
        );
        for Score { row, score, because } in scores {
            ensure!((1..=4).contains(score), "{row}: a score is 1, 2, 3 or 4, not {score}");
            ensure!(
                !because.trim().is_empty(),
                "{row}: a score needs an observation as its reason (`because`)"
            );
        }
        Ok(())
    }

    /// Asks for a score and a reason for each row.
    pub fn ask(&self) -> Result<Vec<Score>> {
        let rows = self.rows.iter().map(|row| {
            println!("\n{}: {}", row.name, row.about);
            for (number, level) in (1..).zip([&row.one, &row.two, &row.three, &row.four]) {
                println!("  {number}  {}\n     for example: {}", level.description, level.example);
            }
            let score = terminal::ask(&row.name, "", |text| match text.trim() {
                "1" | "2" | "3" | "4" => None,
                _ => Some("1, 2, 3 or 4"),
            })?;
            let because = terminal::ask("because (one observation)", "", |text| {
                text.trim().is_empty().then_some("what did you see or hear?")
            })?;
            Ok(Score {
                row: row.name.clone(),
                score: score.trim().parse()?,
                because: because.trim().to_owned(),
            })
        });
        rows.collect()
    }
}

/// The average of some scores.
pub fn average(scores: &[Score]) -> f64 {
    let sum: u32 = scores.iter().map(|score| u32::from(score.score)).sum();
    let count = u32::try_from(scores.len()).unwrap_or(1).max(1);
    f64::from(sum) / f64::from(count)
}
