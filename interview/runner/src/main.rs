//! The interview kit's commands. `make help` lists them.

mod bench;
mod exercises;
mod git;
mod grade;
mod incident;
mod kit;
mod proof;
mod report;
mod workshop;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};
use xtask::{
    commands::{environment, help},
    stack::settings::Settings,
    tools::terminal,
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
    /// Check your work on the current exercise
    Grade {
        /// A folder in interview/briefs
        #[arg(long, env = "N")]
        name: Option<String>,
    },
    /// End the current exercise; your work is kept as a commit
    ExerciseReset {
        /// A folder in interview/briefs
        #[arg(long, env = "N")]
        name: Option<String>,
    },
    /// Break the running stack, for a candidate who repairs it; for example N=1
    Incident {
        /// A folder in interview/incidents, or its number
        #[arg(long, env = "N")]
        name: Option<String>,
    },
    /// List the possible causes of an incident; IS=<cause> EVIDENCE="…" names one
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
    /// Prove the incidents (part of `make verify`)
    #[command(hide = true)]
    IncidentProof {
        /// A folder in interview/incidents
        #[arg(long, env = "N")]
        name: Option<String>,
    },
    /// What goes on during an incident
    #[command(hide = true)]
    IncidentTraffic { folder: PathBuf },
    /// Base the exercises on the current commit, and prove them
    ExerciseBase,
    /// Test the kit itself (part of `make check` and `make test`)
    #[command(hide = true)]
    Check,
    /// Prove every exercise, if any has changed (part of `make verify`)
    #[command(hide = true)]
    Prove,
    /// Time grading (part of `make bench LOOP=1`)
    #[command(hide = true)]
    Bench,
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
        Command::Incident { name } => incident::begin(&settings, name.as_deref()),
        Command::Cause { is, evidence } => incident::name_cause(&settings, is.as_deref(), evidence.as_deref()),
        Command::IncidentReset => incident::reset(&settings),
        Command::IncidentProof { name } => incident::proof::prove(&settings, name.as_deref()),
        Command::IncidentTraffic { folder } => incident::run_traffic(&folder),
        Command::Grade { .. } if incident::is_active(&settings) => incident::grade::run(&settings),
        Command::Grade { name } => grade::run(&settings, name.as_deref()),
        Command::ExerciseReset { name } => exercises::reset(&settings.root, name.as_deref()),
        Command::ExerciseBase => proof::rebase(&settings),
        Command::Check => proof::check(&settings),
        Command::Prove => proof::run(&settings),
        Command::Bench => bench::run(&settings),
        Command::StopStackAtEof { name } => environment::stop_at_eof(&settings, &name),
    }
}
