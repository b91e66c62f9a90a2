//! The interview kit's commands. `make help` lists them.

mod bench;
mod exercises;
mod git;
mod grade;
mod kit;
mod proof;
mod report;
mod review;
mod workshop;

use std::process::ExitCode;

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
    Grade(grade::Options),
    /// End the current exercise; your work is kept as a commit
    ExerciseReset {
        /// A folder in interview/briefs
        #[arg(long, env = "N")]
        name: Option<String>,
    },
    /// Base the exercises on the current commit, and prove them
    ExerciseBase,
    /// Test the kit itself (part of `make check` and `make test`)
    #[command(hide = true)]
    Check,
    /// Prove every exercise that has changed (part of `make verify`)
    #[command(hide = true)]
    Prove {
        /// A folder in interview/briefs
        #[arg(long, env = "N")]
        name: Option<String>,
    },
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
        Command::Grade(options) => grade::run(&settings, &options),
        Command::ExerciseReset { name } => exercises::reset(&settings.root, name.as_deref()),
        Command::ExerciseBase => proof::rebase(&settings),
        Command::Check => proof::check(&settings),
        Command::Prove { name } => proof::run(&settings, name.as_deref()),
        Command::Bench => bench::run(&settings),
        Command::StopStackAtEof { name } => environment::stop_at_eof(&settings, &name),
    }
}
