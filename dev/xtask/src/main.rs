//! Runs the stack on this machine. `make help` lists what a person types; each target is one of these.

mod aws;
mod bench;
mod check;
mod containers;
mod dead_letters;
mod deploy;
mod dev;
mod emulator;
mod exercises;
mod files;
mod functions;
mod git;
mod grade;
mod local_loop;
mod openapi;
mod package;
mod postgres;
mod process;
mod programs;
mod queries;
mod report;
mod sam_local;
mod sandbox;
mod settings;
mod stack;
mod suite;
mod test;
mod tools;
mod ui;
mod verify;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};

use crate::{exercises::State, settings::Settings, stack::Stack};

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what is missing, start everything, deploy template.yaml, print the URLs
    Up,
    /// Stop everything; the data stays
    Down,
    /// Forget the data: stop, then delete the database and the emulator's state
    CleanData,
    /// Print the API's URL
    Url,
    /// Follow the functions' logs
    Logs,
    /// Bring the stack up; then compile each change and swap it in
    Dev,
    /// Serve the routes in containers of AWS's Lambda image (`sam local start-api`)
    SamLocal,
    /// Deploy to the AWS account that you are logged in to, after a table of what that costs
    DeploySandbox,
    /// Delete all that `deploy-sandbox` made
    DestroySandbox,
    /// List the dead-letter queue, and why its tasks failed
    Dlq,
    /// Send what is in the dead-letter queue to the task queue again
    Redrive,
    /// Print a token for the local API when it is closed
    Token {
        /// Whom it names
        #[arg(long, env = "SUBJECT", default_value = "developer")]
        subject: String,
        /// What they may do beside the usual: `admin`, or nothing
        #[arg(long, env = "SCOPE", default_value = "admin")]
        scope: String,
    },
    /// Format, lints, and the tests that need no deployment
    Check,
    /// Run every test against a stack of its own
    Test {
        /// Only the tests whose name has this in it
        #[arg(long, env = "T")]
        filter: Option<String>,
    },
    /// What needs release builds or much time: sizes, instructions, exercises, the whole contract, faults
    Verify,
    /// Create tasks while the processor, Postgres and SQS are made to fail; count what is lost or done twice
    Chaos {
        /// How many tasks
        #[arg(long, env = "TASKS", default_value_t = 2000)]
        tasks: u32,
        /// Repeats the faults of an earlier run
        #[arg(long, env = "SEED")]
        seed: Option<u64>,
    },
    /// Measure cold starts, requests, batches and more; print a table and write docs/performance.md
    Bench {
        /// Measures instead how long a person waits: `make up`, `check`, `test`, `grade` after typical changes
        #[arg(long, env = "LOOP", value_parser = clap::builder::BoolishValueParser::new(), default_value = "0",
            action = clap::ArgAction::Set)]
        local_loop: bool,
    },
    /// Count the functions' instructions; write what `make test` compares with
    BenchCounts,
    /// Make the test stack's Postgres fail
    #[command(hide = true)]
    FailPostgres {
        fault: PostgresFault,
        /// Of which stack
        #[arg(long, env = "TEST_STACK", default_value = "test")]
        of: String,
    },
    /// Run the tests with coverage: a table here, HTML in coverage/
    Coverage,
    /// Refresh .sqlx after a change of a query or a migration
    Sqlx,
    /// Hold the running API against openapi.json, with thousands of requests
    Contract,
    /// Refresh openapi.json after a change of what the API takes or answers
    Openapi,
    /// Check template.yaml (SAM, cfn-lint, checkov) and openapi.json (Redocly)
    Lint,
    /// Begin an exercise, on a branch of its own
    Exercise {
        /// Which one: a folder in exercises/
        #[arg(long, env = "N")]
        name: Option<String>,
    },
    /// Check what you have of the exercise that you are in
    Grade {
        /// Which one
        #[arg(long, env = "N")]
        name: Option<String>,
    },
    /// End the exercise that you are in; your work is kept as a commit
    ExerciseReset {
        /// Which one
        #[arg(long, env = "N")]
        name: Option<String>,
    },
    /// Run the checks of an exercise against what is committed
    #[command(hide = true)]
    ProveExercise { name: String, state: State },
    /// Stop a stack when the standard input ends
    #[command(hide = true)]
    StopStackAtEof { name: String },
}

/// What can happen to Postgres.
#[derive(Clone, Copy, ValueEnum)]
enum PostgresFault {
    /// Stopped in order, and started again
    Restart,
    /// Killed, and started again
    Crash,
    /// Frozen
    Pause,
    /// No longer frozen
    Resume,
}

fn main() {
    if let Err(error) = run(Arguments::parse().command) {
        ui::fail(&error);
        std::process::exit(1);
    }
}

fn run(command: Command) -> Result<()> {
    let settings = Settings::from_env()?;
    match command {
        Command::Up => stack::up(&Stack::local(&settings)?, settings.profile),
        Command::Down => stack::down(&Stack::local(&settings)?),
        Command::CleanData => stack::clean_data(&Stack::local(&settings)?),
        Command::Url => stack::deployed(&Stack::started(&settings)?).map(|deployed| deployed.print_url()),
        Command::Logs => deploy::follow_logs(&Stack::started(&settings)?),
        Command::Dev => dev::run(&Stack::local(&settings)?),
        Command::SamLocal => sam_local::serve(&settings),
        Command::DeploySandbox => sandbox::deploy(&settings),
        Command::DestroySandbox => sandbox::destroy(&settings),
        Command::Dlq => dead_letters::list(&settings),
        Command::Redrive => dead_letters::redrive(&settings),
        Command::Token { subject, scope } => stack::token(&Stack::started(&settings)?, &subject, &scope),
        Command::Check => check::run(&settings),
        Command::Test { filter } => test::run(&settings, filter.as_deref()),
        Command::Verify => verify::run(&settings),
        Command::Chaos { tasks, seed } => test::chaos(&settings, tasks, seed),
        Command::Bench { local_loop: false } => bench::run(&settings),
        Command::Bench { local_loop: true } => local_loop::run(&settings),
        Command::BenchCounts => bench::write_counts(&settings),
        Command::FailPostgres { fault, of } => Stack::of_its_own(&settings, &of)?.fail_postgres(fault),
        Command::Coverage => test::coverage(&settings),
        Command::Sqlx => test::refresh_queries(&settings),
        Command::Contract => test::contract(&settings),
        Command::Openapi => openapi::refresh(&settings.root),
        Command::Lint => deploy::lint(&Stack::local(&settings)?),
        Command::Exercise { name } => exercises::begin(&settings.root, name.as_deref()),
        Command::Grade { name } => grade::run(&settings, name.as_deref()),
        Command::ExerciseReset { name } => exercises::reset(&settings.root, name.as_deref()),
        Command::ProveExercise { name, state } => grade::prove(&settings, &name, state),
        Command::StopStackAtEof { name } => test::stop_at_eof(&settings, &name),
    }
}
