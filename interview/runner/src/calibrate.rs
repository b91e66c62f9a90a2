//! `make calibrate`: three samples of an exercise to score without knowing which is which, and how
//! far the scores are from the reference.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde::Deserialize;
use std::path::PathBuf;
use xtask::{commands::environment::with_stack, stack::settings::Settings, tools::terminal};

use crate::{
    git::Git,
    kit::{ANSWERS, Exercise, Kit, State},
    page::{self, escape},
    report::{self, Check},
    rubric::{Rubric, Score},
    workshop::{Graded, Services, Work, Workshop},
};

/// The samples' folders in `interview/answers/<name>/samples`.
pub const SAMPLES: [&str; 3] = ["weak", "good", "excellent"];

/// What `make grade` reported about a sample, in its folder: [`record`] writes it.
const REPORT: &str = "report.txt";

/// Their names while they are scored.
const LETTERS: [&str; 3] = ["A", "B", "C"];

/// The options of `make calibrate`.
#[derive(Args)]
pub struct Options {
    /// A folder in interview/briefs
    #[arg(long, env = "N")]
    pub name: Option<String>,
    /// Read your scores from this YAML file instead of asking
    #[arg(long, env = "SCORES")]
    pub scores: Option<PathBuf>,
}

/// A sample: what a candidate did and said.
struct Sample {
    kind: &'static str,
    /// The patch, or patches, to read.
    work: String,
    transcript: String,
    /// What `make grade` reported about it.
    report: String,
    reference: Vec<Score>,
}

/// `scores.yaml` of a sample.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// Its patch, in the exercise's folder of answers: `samples/weak/work.patch`, `solution.patch`.
    pub work: String,
    /// The reference scores.
    pub rows: Vec<Score>,
}

/// Shows the samples, asks for scores, and prints the distances.
pub fn run(root: &Path, options: &Options) -> Result<()> {
    let git = Git::open(root)?;
    let head = git.commit("HEAD").context("there is no commit yet")?;
    let with_samples = exercises_with_samples(&git, &head)?;
    let name = options.name.as_deref().with_context(|| {
        format!(
            "no exercise is named. For example: make calibrate N=lost-messages. With samples: {}",
            with_samples.join(", ")
        )
    })?;
    ensure!(
        with_samples.iter().any(|known| known == name),
        "there are no samples of {name:?}, only of these exercises: {}",
        with_samples.join(", ")
    );
    let rubric = Rubric::of(&git, &head)?;
    let samples = blind(name, samples(&git, &head, &rubric, name)?);
    let page = page::write(
        root,
        "calibration",
        &format!("{name}.html"),
        &format!("Calibration: {name}"),
        &html(name, &samples),
    )?;
    println!("\nThree submissions of {name}, to read before you score them: {page}");
    let scores = match &options.scores {
        Some(file) => read(&rubric, file)?,
        None => ask(&rubric, &format!("make calibrate N={name}"))?,
    };
    println!("\n{}", distances(&samples, &scores));
    Ok(())
}

fn exercises_with_samples(git: &Git, kit: &str) -> Result<Vec<String>> {
    let mut names = Kit::of(git, kit)?.names();
    names.retain(|name| !git.folder(kit, &format!("{ANSWERS}/{name}/samples")).is_empty());
    Ok(names)
}

fn samples(git: &Git, kit: &str, rubric: &Rubric, name: &str) -> Result<Vec<Sample>> {
    let answers = format!("{ANSWERS}/{name}");
    let file = |path: &str| {
        let path = format!("{answers}/{path}");
        git.file(kit, &path).with_context(|| format!("there is no {path}"))
    };
    let samples = SAMPLES.into_iter().map(|kind| {
        let path = format!("samples/{kind}/scores.yaml");
        let reference: Reference =
            serde_saphyr::from_str(&file(&path)?).with_context(|| format!("{answers}/{path} is not readable"))?;
        rubric
            .validate(&reference.rows)
            .with_context(|| format!("{answers}/{path}"))?;
        Ok(Sample {
            kind,
            work: file(&reference.work)?,
            transcript: file(&format!("samples/{kind}/transcript.md"))?,
            report: file(&format!("samples/{kind}/{REPORT}")).unwrap_or_else(|_| "not graded yet".to_owned()),
            reference: reference.rows,
        })
    });
    samples.collect()
}

/// Grades the samples of an exercise, and records the reports beside their scores.
pub fn record(settings: &Settings, name: &str) -> Result<()> {
    let git = Git::open(&settings.root)?;
    let kit = git.index()?.of_working_tree()?.tree()?;
    let kit = Kit::of(&git, &kit)?;
    let exercise = kit.exercise(name)?;
    let workshop = Workshop::open(settings)?;
    let start = exercise.tree(&workshop, State::Start)?;
    let mut trees = Vec::new();
    for kind in SAMPLES {
        let folder = settings.root.join(exercise.answer_path(&format!("samples/{kind}")));
        let scores = fs::read_to_string(folder.join("scores.yaml"))?;
        let reference: Reference = serde_saphyr::from_str(&scores)?;
        trees.push((kind, folder, exercise.submitted(&workshop, &start, &reference.work)?));
    }
    let grade = |services: Option<&Services>| -> Result<()> {
        for (kind, folder, tree) in &trees {
            terminal::say(&format!("  • grading    {name}, {kind}"));
            let checks = graded(&git, &workshop, &exercise, &start, tree, services)?;
            let report = report::of_checks(&checks);
            println!("\n{report}");
            fs::write(folder.join(REPORT), report)?;
        }
        Ok(())
    };
    if exercise.key()?.is_some() {
        return grade(None);
    }
    with_stack(settings, "grader", |stack| {
        let services = Services::start(stack)?;
        grade(Some(&services))
    })
}

fn graded(
    git: &Git,
    workshop: &Workshop,
    exercise: &Exercise,
    start: &str,
    tree: &str,
    services: Option<&Services>,
) -> Result<Vec<Check>> {
    let work = Work { exercise, start, tree };
    let services = || services.cloned().context("only texts are graded without services");
    match workshop.grade(git, &work, None, services)? {
        Graded::Checked(checks) => Ok(checks),
        Graded::Broken(errors) => bail!("the sample does not compile:\n{errors}"),
    }
}

/// The samples in an order that depends on the exercise's name only, so that all interviewers speak
/// of the same A.
fn blind(name: &str, mut samples: Vec<Sample>) -> Vec<Sample> {
    let sum: usize = name.bytes().map(usize::from).sum();
    samples.rotate_left(sum % LETTERS.len());
    if sum / LETTERS.len() % 2 == 1 {
        samples.swap(0, 1);
    }
    samples
}

fn html(name: &str, samples: &[Sample]) -> String {
    let mut html = format!(
        "<h1>Calibration: {}</h1>\n<p>Three submissions. Score each by the rubric before you look at the reference.</p>\n",
        escape(name)
    );
    for (letter, sample) in LETTERS.iter().zip(samples) {
        html += &format!(
            "<h2>Submission {letter}</h2>\n<h3>What happened</h3>\n<pre class=\"text\">{}</pre>\n<h3>What make grade reported</h3>\n<pre>{}</pre>\n<h3>The work</h3>\n{}",
            escape(sample.transcript.trim()),
            escape(sample.report.trim_matches('\n')),
            page::diff(&sample.work)
        );
    }
    html
}

/// Scores by letter.
type ByLetter = BTreeMap<String, Vec<Score>>;

fn read(rubric: &Rubric, file: &Path) -> Result<ByLetter> {
    let example = "A:\n  - row: Diagnosis\n    score: 3\n    because: one observation\nB: …";
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let scores: ByLetter = serde_saphyr::from_str(&text)
        .with_context(|| format!("{} is not readable; it should be like\n{example}\n", file.display()))?;
    ensure!(
        scores.keys().eq(LETTERS.iter()),
        "{} does not have exactly A, B and C",
        file.display()
    );
    for (letter, rows) in &scores {
        rubric
            .validate(rows)
            .with_context(|| format!("{}, submission {letter}", file.display()))?;
    }
    Ok(scores)
}

fn ask(rubric: &Rubric, command: &str) -> Result<ByLetter> {
    let scores = LETTERS.into_iter().map(|letter| {
        println!("\nSubmission {letter}");
        let rows = rubric
            .ask()
            .with_context(|| format!("to answer without a terminal: {command} SCORES=<file>.yaml"))?;
        Ok((letter.to_owned(), rows))
    });
    scores.collect()
}

/// How far scores are from the references, with the references' reasons where they differ.
fn distances(samples: &[Sample], scores: &ByLetter) -> String {
    let mut text = String::new();
    let (mut total, mut signed, mut count) = (0_i32, 0_i32, 0_i32);
    for (letter, sample) in LETTERS.iter().zip(samples) {
        let yours = scores.get(*letter).map(Vec::as_slice).unwrap_or_default();
        text += &format!("Submission {letter}: {}\n", sample.kind);
        for (yours, reference) in yours.iter().zip(&sample.reference) {
            let difference = i32::from(yours.score) - i32::from(reference.score);
            total += difference.abs();
            signed += difference;
            count += 1;
            text += &format!("  {:<14} {} (reference {})", yours.row, yours.score, reference.score);
            if difference != 0 {
                text += &format!("  {difference:+}\n      you: {}", yours.because);
            }
            text += "\n";
            if difference != 0 {
                text += &format!("      reference: {}\n", reference.because);
            }
        }
        text += "\n";
    }
    let mean = |sum: i32| f64::from(sum) / f64::from(count.max(1));
    text += &format!("Mean distance: {:.2} per row", mean(total));
    text += &match signed {
        0 => "; neither stricter nor more generous than the reference\n".to_owned(),
        _ if signed > 0 => format!("; more generous than the reference by {:.2}\n", mean(signed)),
        _ => format!("; stricter than the reference by {:.2}\n", -mean(signed)),
    };
    text
}
