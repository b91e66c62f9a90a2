//! `make session`: an exercise with a candidate's name and a time box, on record.

use std::{
    io::{self, IsTerminal},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use xtask::{stack::settings::Settings, tools::terminal::Step};

use crate::{
    exercises::{self, ActiveExercise},
    git::Git,
    incident::{
        State,
        commands::{self, Player},
        spec,
    },
    kit::Kit,
    record::{self, Record},
};

/// The longest name.
const LONGEST_NAME: usize = 100;

/// The options of `make session`.
#[derive(Args)]
pub struct Options {
    /// A folder in interview/briefs or interview/incidents
    #[arg(long, env = "N")]
    pub name: Option<String>,
    /// The candidate's name, or a pseudonym
    #[arg(long, env = "CANDIDATE")]
    pub candidate: Option<String>,
    /// The time box
    #[arg(long, env = "MINUTES", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub minutes: u32,
}

/// Starts a session, or shows the clock of the one in progress.
pub fn run(settings: &Settings, options: &Options) -> Result<()> {
    let git = Git::open(&settings.root)?;
    let id = match (&options.name, in_progress(settings, &git)?) {
        (None, Some(record)) => {
            println!("\n{}\n", summary(&record));
            record.id
        }
        (Some(_), Some(record)) => bail!(
            "a session is in progress: {}.\n\
             To see its clock:   make session\n\
             To continue it:     {}\n\
             To end it first:    {}",
            summary(&record),
            match record.start.incident {
                true => "make incident".to_owned(),
                false => format!("git switch exercise/{}", record.start.exercise),
            },
            match record.start.incident {
                true => "make incident-reset".to_owned(),
                false => format!("make exercise-reset N={}", record.start.exercise),
            },
        ),
        (_, None) => begin(settings, &git, options)?,
    };
    show_clock(&git, &id)
}

/// The session that has neither ended nor lost its branch or its incident, if there is one. It
/// survives whatever happens to the command that started it.
fn in_progress<'a>(settings: &Settings, git: &'a Git) -> Result<Option<Record<'a>>> {
    let incident = commands::in_progress(&settings.root)?;
    let of_incident = incident.as_ref().and_then(State::record);
    for id in record::ids(git)?.into_iter().rev() {
        let Some(record) = Record::readable(git, &id) else {
            continue;
        };
        if record.start.candidate.is_some()
            && record.is_open()
            && (of_incident == Some(&id) || is_current(git, &record))
        {
            return Ok(Some(record));
        }
    }
    Ok(None)
}

/// True if the exercise's branch exists and has this record.
fn is_current(git: &Git, record: &Record) -> bool {
    let active = ActiveExercise::find(git, Some(&record.start.exercise));
    let of_branch = active.and_then(|active| Record::of(git, &active));
    of_branch.is_ok_and(|of_branch| of_branch.is_some_and(|of_branch| of_branch.id == record.id))
}

fn summary(record: &Record) -> String {
    format!(
        "{} with {}, {}",
        record.start.exercise,
        record.candidate(),
        record.clock().unwrap_or_default()
    )
}

/// Starts a session and returns its id.
fn begin(settings: &Settings, git: &Git, options: &Options) -> Result<String> {
    let name = match &options.name {
        Some(name) => name,
        None => {
            let head = git.commit("HEAD").context("there is no commit yet")?;
            let mut names = Kit::of(git, &head)?.names();
            names.extend(spec::names(&settings.root));
            bail!(
                "no session is in progress, and no exercise is named. To start one: \
                 make session N=lost-messages CANDIDATE=Ana MINUTES=60. Available: {}",
                names.join(", ")
            );
        }
    };
    let candidate = valid_candidate(options.candidate.as_deref(), name)?;
    let record = match spec::named(&settings.root, Some(name)) {
        Ok(incident) => {
            let player = Player {
                candidate: Some(candidate),
                minutes: Some(options.minutes),
            };
            Record::open(git, &commands::begin(settings, Some(&incident), player)?)?
        }
        Err(_) => {
            exercises::begin(settings, Some(name))?;
            let active = ActiveExercise::find(git, Some(name))?;
            Record::begin(git, &active, Some(candidate), Some(options.minutes))
                .context("the exercise has started, but not its record; to start again: make exercise-reset")?
        }
    };
    println!(
        "This session is recorded: {what}. The record stays in this repository; nothing leaves this machine.

  Candidate  {candidate}
  Clock      {clock}
  Record     {id}

  make session          shows the clock
  make hint             prints the next hint
",
        id = record.id,
        what = match record.start.incident {
            true => "each `make grade`, `make hint` and `make cause`, with the time and the\nreport",
            false => "each `make grade` and `make hint`, with the time, the result and your\nfiles of that moment",
        },
        clock = record.clock().unwrap_or_default(),
    );
    Ok(record.id)
}

/// The name without surrounding blanks.
fn valid_candidate<'a>(candidate: Option<&'a str>, exercise: &str) -> Result<&'a str> {
    let candidate = candidate.unwrap_or_default().trim();
    ensure!(
        !candidate.is_empty(),
        "a session needs the candidate's name, or a pseudonym: make session N={exercise} CANDIDATE=Ana. \
         To practice without one: make exercise N={exercise}"
    );
    ensure!(
        !candidate.contains(char::is_control) && candidate.chars().count() <= LONGEST_NAME,
        "the candidate's name has control characters or more than {LONGEST_NAME} characters: it is shown in reports"
    );
    Ok(candidate)
}

/// On a terminal, shows the clock until the time box or the session has ended.
fn show_clock(git: &Git, id: &str) -> Result<()> {
    if !io::stderr().is_terminal() || !io::stdin().is_terminal() {
        return Ok(());
    }
    println!("Ctrl-C closes this clock; the session continues.\n");
    let step = Step::start("session", "");
    loop {
        let record = Record::open(git, id)?;
        let minutes = record.start.minutes.unwrap_or_default();
        let clock = record.clock().unwrap_or_default();
        if !record.is_open() || record.minutes_to(record::now()) >= minutes.into() {
            step.done(&clock);
            return Ok(());
        }
        step.show(&clock);
        thread::sleep(Duration::from_secs(5));
    }
}
