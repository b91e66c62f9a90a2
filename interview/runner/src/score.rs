//! `make score`: each interviewer's scores of a record, sealed until all are there, then compared.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};
use xtask::tools::terminal;

use crate::{
    git::Git,
    page::{self, escape},
    record::{self, Record},
    rubric::{Rubric, Score, average},
};

/// The refs of sealed scores.
const REFS: &str = "refs/interview-scores/";

/// Scores of a row that differ by this much need a look at the evidence.
const FAR: u8 = 2;

/// The options of `make score`.
#[derive(Args)]
pub struct Options {
    /// The record
    #[arg(long, env = "S")]
    pub session: Option<String>,
    /// Your name
    #[arg(long, env = "INTERVIEWER")]
    pub interviewer: Option<String>,
    /// How many score it before the scores are compared
    #[arg(long, env = "INTERVIEWERS", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=9))]
    pub interviewers: u8,
    /// Read your scores from this YAML file instead of asking
    #[arg(long, env = "SCORES")]
    pub scores: Option<PathBuf>,
}

/// An interviewer's scores.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scores {
    pub record: String,
    pub interviewer: String,
    /// When they were sealed.
    pub sealed_at: String,
    /// How many scores were compared.
    pub interviewers: u8,
    pub rows: Vec<Score>,
}

/// The content of a file with scores.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rows {
    rows: Vec<Score>,
}

/// Asks for scores, seals them, and compares them with the others' once all are there.
pub fn run(root: &Path, options: &Options) -> Result<()> {
    let git = Git::open(root)?;
    let record = Record::find(&git, options.session.as_deref())?;
    let rubric = Rubric::of(&git, &record.start.kit)?;
    let done = revealed(&git, &record)?;
    if !done.is_empty() {
        ensure!(
            options.interviewer.is_none() && options.scores.is_none(),
            "the scores of {} have been compared, and are final. To see them again: make score S={}",
            record.id,
            record.id
        );
        return show(root, &record, &done);
    }
    println!(
        "\n{} · {} · record {}",
        record.start.exercise,
        record.candidate(),
        record.id
    );
    let interviewer = match &options.interviewer {
        Some(interviewer) => interviewer.trim().to_owned(),
        None => terminal::ask("Your name", "", |name| {
            record::slug(name).is_empty().then_some("a name with letters or digits")
        })
        .context("to answer without a terminal: make score INTERVIEWER=<name> SCORES=<file>.yaml")?,
    };
    ensure_sealable(&git, &record, &interviewer, options.interviewers)?;
    let slug = record::slug(&interviewer);
    if sealed(&git, &record.id)?
        .iter()
        .any(|other| record::slug(&other.interviewer) == slug)
    {
        terminal::say(&format!(
            "  • replaces   the sealed scores of {interviewer}; another person of this name needs another one"
        ));
    }
    let rows = match &options.scores {
        Some(file) => read(&rubric, file)?,
        None => rubric
            .ask()
            .context("to answer without a terminal: make score INTERVIEWER=<name> SCORES=<file>.yaml")?,
    };
    seal(&git, &record, &interviewer, options.interviewers, rows)?;
    let all = sealed(&git, &record.id)?;
    let missing = usize::from(options.interviewers).saturating_sub(all.len());
    if missing > 0 {
        println!(
            "\nYour scores are sealed. They are compared when {missing} more {} scored: \
             make score S={} INTERVIEWER=<name>\nUntil then you can replace them with the same command.\n",
            if missing == 1 {
                "interviewer has"
            } else {
                "interviewers have"
            },
            record.id
        );
        return Ok(());
    }
    show(root, &record, &all)
}

/// Scores from a file.
fn read(rubric: &Rubric, file: &Path) -> Result<Vec<Score>> {
    let example = "rows:\n  - row: Diagnosis\n    score: 3\n    because: one observation";
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let rows: Rows = serde_saphyr::from_str(&text)
        .with_context(|| format!("{} is not readable; it should be like\n{example}\n", file.display()))?;
    rubric
        .validate(&rows.rows)
        .with_context(|| format!("{} is incomplete", file.display()))?;
    Ok(rows.rows)
}

/// Fails if these scores cannot be sealed: for the name, or for what is sealed already.
fn ensure_sealable(git: &Git, record: &Record, interviewer: &str, interviewers: u8) -> Result<()> {
    ensure!(
        !record::slug(interviewer).is_empty() && !interviewer.contains(char::is_control),
        "{interviewer:?} is no name: it needs letters or digits, and no control characters"
    );
    let others = sealed(git, &record.id)?;
    if let Some(other) = others.iter().find(|other| other.interviewers != interviewers) {
        bail!(
            "{} scored for a comparison of {}, not {interviewers}: set INTERVIEWERS={}",
            other.interviewer,
            other.interviewers,
            other.interviewers
        );
    }
    ensure!(
        revealed(git, record)?.is_empty(),
        "the scores of {} have been compared, and are final",
        record.id
    );
    Ok(())
}

/// Stores an interviewer's scores; those of the same name are replaced.
fn seal(git: &Git, record: &Record, interviewer: &str, interviewers: u8, rows: Vec<Score>) -> Result<()> {
    // Again: meanwhile the others may have scored, and seen all scores.
    ensure_sealable(git, record, interviewer, interviewers)?;
    let slug = record::slug(interviewer);
    let scores = Scores {
        record: record.id.clone(),
        interviewer: interviewer.to_owned(),
        sealed_at: record::rfc3339(record::now()),
        interviewers,
        rows,
    };
    let blob = git.store(&serde_saphyr::to_string(&scores)?)?;
    git.run(["update-ref", &format!("{REFS}{}/{slug}", record.id), &blob])?;
    Ok(())
}

/// All scores of a record.
fn sealed(git: &Git, id: &str) -> Result<Vec<Scores>> {
    let refs = git.run(["for-each-ref", "--format=%(objectname)", &format!("{REFS}{id}/")])?;
    let scores = refs.lines().map(|blob| {
        let text = git.run(["cat-file", "blob", blob])?;
        serde_saphyr::from_str(&text).with_context(|| format!("sealed scores of {id} are not readable"))
    });
    scores.collect()
}

/// The scores of a record, if all interviewers have scored it; otherwise none.
pub fn revealed(git: &Git, record: &Record) -> Result<Vec<Scores>> {
    let mut all = sealed(git, &record.id)?;
    let wanted = all.first().map_or(0, |scores| usize::from(scores.interviewers));
    if all.len() < wanted {
        all.clear();
    }
    Ok(all)
}

/// Prints the comparison, and writes each interviewer's scores.
fn show(root: &Path, record: &Record, all: &[Scores]) -> Result<()> {
    println!("\n{}", comparison(record, all));
    let folder = page::folder(root, &record.id);
    fs::create_dir_all(&folder)?;
    for scores in all {
        let file = folder.join(format!("scores-{}.yaml", record::slug(&scores.interviewer)));
        fs::write(&file, serde_saphyr::to_string(scores)?)?;
        println!("  {}", file.strip_prefix(root).unwrap_or(&file).display());
    }
    println!("\nThe report has them as well: make replay S={}\n", record.id);
    Ok(())
}

/// What the rule of interview/README.md says about scores.
fn decision(rows: &[Score]) -> &'static str {
    let average = average(rows);
    if average >= 3.0 && rows.iter().all(|row| row.score > 1) {
        "yes"
    } else if average >= 2.5 {
        "another interview"
    } else {
        "no"
    }
}

/// The interviewer with the lower average decides.
fn lowest(all: &[Scores]) -> Option<&Scores> {
    all.iter()
        .min_by(|one, other| average(&one.rows).total_cmp(&average(&other.rows)))
}

/// The rows of all interviewers: name, scores, and whether they are far apart.
fn rows(all: &[Scores]) -> Vec<(&str, Vec<u8>, bool)> {
    let first = all.first().map(|scores| scores.rows.as_slice()).unwrap_or_default();
    let row = |row: &'_ Score| -> Vec<u8> {
        let same = all.iter().flat_map(|scores| scores.rows.iter());
        same.filter(|other| other.row == row.row)
            .map(|other| other.score)
            .collect()
    };
    let rows = first.iter().map(|score| {
        let scores = row(score);
        let (least, most) = (scores.iter().min(), scores.iter().max());
        let is_far = least.zip(most).is_some_and(|(least, most)| most - least >= FAR);
        (score.row.as_str(), scores, is_far)
    });
    rows.collect()
}

/// Conflicts with the guide's rules about hints.
fn remarks(record: &Record, all: &[Scores]) -> Vec<String> {
    let hints = record.hints();
    let most = match hints {
        0 | 1 => return Vec::new(),
        2 => 3,
        _ => 2,
    };
    let all = all.iter().filter(|scores| {
        let mut diagnosis = scores.rows.iter().filter(|score| score.row == "Diagnosis");
        diagnosis.any(|score| score.score > most)
    });
    all.map(|scores| {
        format!(
            "{}: after hint {hints}, Diagnosis is at most {most}",
            scores.interviewer
        )
    })
    .collect()
}

fn comparison(record: &Record, all: &[Scores]) -> String {
    let mut text = String::new();
    for (row, scores, is_far) in rows(all) {
        let scores: Vec<String> = scores.iter().map(ToString::to_string).collect();
        let far = if is_far {
            "   far apart: read the evidence, do not take the mean"
        } else {
            ""
        };
        text += &format!("  {row:<14} {}{far}\n", scores.join("   "));
        for scores in all {
            for score in scores.rows.iter().filter(|score| score.row == row) {
                text += &format!("      {} {}: {}\n", score.score, scores.interviewer, score.because);
            }
        }
    }
    text += "\n";
    for scores in all {
        let average = average(&scores.rows);
        text += &format!(
            "  {:<14} average {average:.1}: {}\n",
            scores.interviewer,
            decision(&scores.rows)
        );
    }
    for remark in remarks(record, all) {
        text += &format!("  ! {remark}\n");
    }
    if let Some(lowest) = lowest(all) {
        text += &format!(
            "\nThe decision, that of the lower average, for a candidate of the exercise's level: {}\n",
            decision(&lowest.rows)
        );
    }
    text
}

/// The comparison as a part of a page; nothing before the scores are compared.
pub fn html(record: &Record, all: &[Scores]) -> String {
    let Some(lowest) = lowest(all) else {
        return String::new();
    };
    let mut html = "<h2>Scores</h2>\n<table>\n<thead><tr><th>row</th>".to_owned();
    for scores in all {
        html += &format!("<th>{}</th>", escape(&scores.interviewer));
    }
    html += "</tr></thead>\n<tbody>\n";
    for (row, _, is_far) in rows(all) {
        let far = if is_far { "<br><b>far apart</b>" } else { "" };
        html += &format!("<tr><td>{}{far}</td>", escape(row));
        for score in all
            .iter()
            .flat_map(|scores| &scores.rows)
            .filter(|score| score.row == row)
        {
            html += &format!("<td><b>{}</b> {}</td>", score.score, escape(&score.because));
        }
        html += "</tr>\n";
    }
    html += "<tr><td>average</td>";
    for scores in all {
        html += &format!(
            "<td><b>{:.1}</b> {}</td>",
            average(&scores.rows),
            decision(&scores.rows)
        );
    }
    html += "</tr>\n</tbody>\n</table>\n";
    for remark in remarks(record, all) {
        html += &format!("<p>{}</p>\n", escape(&remark));
    }
    html + &format!(
        "<p>Decision, for a candidate of the exercise's level: <b>{}</b></p>\n",
        decision(&lowest.rows)
    )
}
