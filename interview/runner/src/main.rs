//! The interview kit's commands. `make help` lists them.

mod bench;
mod calibrate;
mod exercises;
mod grade;
mod hint;
mod incident;
mod kit;
mod learn;
mod pack;
mod page;
mod proof;
mod record;
mod replay;
mod report;
mod review;
mod rubric;
mod score;
mod session;
mod words;
mod workshop;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};
use incident::commands;
use xtask::{
    commands::{environment, help},
    stack::settings::Settings,
    tools::{git, terminal},
};

#[derive(Parser)]
#[command(disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the targets
    #[command(hide = true)]
    Help,
    /// Start an exercise from interview/briefs, on a separate branch
    Exercise {
        /// A folder in interview/briefs
        #[arg(long, env = "N")]
        name: Option<String>,
    },
    /// Start an exercise or an incident with a candidate, on record, or show its clock
    Session(session::Options),
    /// Print the next hint of the current exercise or incident
    Hint,
    /// Check your work on the current exercise or incident
    Grade(grade::Options),
    /// Compile the checks of the current exercise
    #[command(hide = true)]
    Prepare,
    /// End the current exercise; your work is kept as a commit
    ExerciseReset {
        /// A folder in interview/briefs
        #[arg(long, env = "N")]
        name: Option<String>,
    },
    /// Write an exercise as an archive and a repository, for the candidate's machine
    Pack(pack::Options),
    /// Print what a session recorded, and write it as a page
    Replay {
        /// The record
        #[arg(long, env = "S")]
        session: Option<String>,
    },
    /// Score a session by the rubric; compared once both interviewers have
    Score(score::Options),
    /// Score three samples of an exercise, and compare with the reference
    Calibrate(calibrate::Options),
    /// The exercises in order, with your progress; after a pass, the reference
    Learn {
        /// A folder in interview/briefs
        #[arg(long, env = "N")]
        name: Option<String>,
    },
    /// Break the running stack, for a candidate who repairs it; again: the brief
    Incident {
        /// A folder in interview/incidents, or its number
        #[arg(long, env = "N")]
        name: Option<String>,
    },
    /// List the possible causes of an incident, or name one
    Cause {
        /// The cause
        #[arg(long, env = "IS")]
        is: Option<String>,
        /// What shows it
        #[arg(long, env = "EVIDENCE")]
        evidence: Option<String>,
    },
    /// End the incident and restore the stack, whatever was done to it
    IncidentReset,
    /// What goes on during an incident
    #[command(hide = true)]
    IncidentTraffic { folder: PathBuf },
    /// Base the exercises on the current commit, and prove them
    ExerciseBase,
    /// Test the kit itself (part of `make check` and `make test`)
    #[command(hide = true)]
    Check,
    /// Prove every exercise and incident that has changed (part of `make verify`)
    #[command(hide = true)]
    Prove {
        /// A folder in interview/briefs or interview/incidents
        #[arg(long, env = "N")]
        name: Option<String>,
    },
    /// Time grading (part of `make bench LOOP=1`)
    #[command(hide = true)]
    Bench,
    /// Grade the samples of an exercise, and record the reports
    #[command(hide = true)]
    GradeSamples {
        /// A folder in interview/briefs
        #[arg(long, env = "N")]
        name: String,
    },
    /// Stop a stack when standard input ends
    #[command(hide = true)]
    StopStackAtEof { name: String },
}

fn main() -> ExitCode {
    terminal::exit_code(run(Arguments::parse().command))
}

fn run(command: Command) -> Result<()> {
    let settings = Settings::from_env()?;
    match command {
        Command::Help => {
            print!("{}", help::text(&Arguments::command()));
            Ok(())
        }
        Command::Exercise { name } => exercises::begin(&settings, name.as_deref()),
        Command::Prepare => exercises::prepare(&settings),
        Command::Session(options) => session::run(&settings, &options),
        Command::Hint => hint::run(&settings.root),
        Command::Replay { session } => replay::run(&settings.root, session.as_deref()),
        Command::Score(options) => score::run(&settings.root, &options),
        Command::Calibrate(options) => calibrate::run(&settings.root, &options),
        Command::Learn { name } => learn::run(&settings.root, name.as_deref()),
        Command::Pack(options) => pack::run(&settings, &options),
        Command::Incident { name } => commands::show_or_begin(&settings, name.as_deref()),
        Command::Cause { is, evidence } => commands::name_cause(&settings, is.as_deref(), evidence.as_deref()),
        Command::IncidentReset => commands::reset(&settings),
        Command::IncidentTraffic { folder } => incident::run_traffic(&folder),
        Command::Grade(options) => grade::run(&settings, &options),
        Command::ExerciseReset { name } => exercises::reset(&settings.root, name.as_deref()),
        Command::ExerciseBase => proof::rebase(&settings),
        Command::Check => proof::check(&settings),
        Command::Prove { name } => proof::run(&settings, name.as_deref()),
        Command::Bench => bench::run(&settings),
        Command::GradeSamples { name } => calibrate::record(&settings, &name),
        Command::StopStackAtEof { name } => environment::stop_at_eof(&settings, &name),
    }
}
