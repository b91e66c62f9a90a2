//! The runner's command line: each make target is a subcommand. `make help` lists them.

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};
use xtask::{
    commands::{
        bench, chaos, check, counts, coverage, dead_letters, dev, environment, help,
        invoke::{self, Debug},
        lint, local_loop, openapi, queries, sam_local, sandbox, test, up, verify, verify_containers,
    },
    stack::{Stack, postgres::PostgresFault, settings::Settings},
    tools::terminal,
};

/// The settings that several commands share.
const SETTINGS: &str = "
  Settings that `make up` saves for the next commands: AWS_PORT (4566), POSTGRES_PORT (55432), DATABASE_URL,
  AUTH (open or closed), AWS (ministack or localstack). Others: PROFILE (local or release), RUST_LOG,
  STACK (a deployed stack, for dlq and redrive), SAM_PORT (3000), YES=1 (skip confirmation)";

#[derive(Parser)]
#[command(disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the targets
    Help,
    /// Install what is missing, start everything, deploy template.yaml, print the URLs
    Up,
    /// Stop everything and keep the data
    Down,
    /// Stop everything and delete the data
    CleanData,
    /// Print the API's URL: export API=$(make url)
    Url,
    /// Follow the functions' logs
    Logs,
    /// Start the stack, then rebuild and swap functions on each change
    Dev,
    /// Run a function again with its last event, or one from a file; list them (docs/development.md)
    Invoke {
        /// The function; none lists what `make dev` has recorded
        #[arg(long = "function", env = "FN")]
        function: Option<String>,
        /// `last`, or a file
        #[arg(long, env = "EVENT", default_value = "last")]
        event: String,
        /// `attach` or `launch`: for a debugger
        #[arg(long, env = "DEBUGGER")]
        debug: Option<Debug>,
        /// A test's stack, whose emulator is at AWS_ENDPOINT_URL
        #[arg(long, hide = true)]
        of: Option<String>,
    },
    /// Build the functions for AWS's Lambda image on this machine, into target/lambda
    Build,
    /// Serve the routes on http://127.0.0.1:3000 in AWS's Lambda image (needs Docker)
    SamLocal,
    /// Show the costs, ask for confirmation, and deploy to the AWS account that you are logged in
    /// to
    DeploySandbox,
    /// Ask for confirmation and delete everything that deploy-sandbox created
    DestroySandbox,
    /// List the dead-letter queue and why its tasks failed
    Dlq,
    /// List the dead-letter queue, ask for confirmation, and redrive it to the task queue
    Redrive,
    /// Print a token for the closed API
    Token {
        /// The token's subject
        #[arg(long, env = "SUBJECT", default_value = "developer")]
        subject: String,
        /// The token's scope: `admin`, `viewer`, or empty
        #[arg(long, env = "SCOPE", default_value = "admin")]
        scope: String,
    },
    /// Check the format, run the linters and the tests that need no deployment: a minute
    Check,
    /// Install what is missing and run every test against a real Postgres and SQS
    Test {
        /// Run only the tests whose names contain this
        #[arg(long, env = "T")]
        filter: Option<String>,
    },
    /// Run what needs release builds or much time: sizes, instruction counts, arm64, long contract
    /// and fault tests
    Verify,
    /// Run docker-compose.yml, and the deployed tests against LocalStack (needs Docker)
    VerifyContainers,
    /// Inject faults while 2,000 tasks run; report lost and duplicated work
    Chaos {
        /// The number of tasks
        #[arg(long, env = "TASKS", default_value_t = 2000)]
        tasks: u32,
        /// Repeat the faults of the run with this seed
        #[arg(long, env = "SEED")]
        seed: Option<u64>,
    },
    /// Test the running API against openapi.json with thousands of requests
    Contract,
    /// Measure cold starts, requests, batches, or the local loop; update docs/performance.md
    Bench {
        /// Measure how long `make up`, `make check` and `make test` take after typical changes
        #[arg(long, env = "LOOP", value_parser = clap::builder::BoolishValueParser::new(), default_value = "0",
            action = clap::ArgAction::Set)]
        local_loop: bool,
    },
    /// Measure other task processors, and the API in Python, beside ours; update docs/performance.md
    BenchPeers {
        /// The number of tasks that each processes
        #[arg(long, env = "TASKS", default_value_t = 20_000)]
        tasks: u32,
        /// The number of tasks that are waiting in one of the scenarios
        #[arg(long, env = "WAITING", default_value_t = 100_000)]
        waiting: u32,
    },
    /// Measure statements and sweeps with millions of tasks; update docs/performance.md
    Scale {
        /// The number of tasks, in millions; each takes a gigabyte of disk
        #[arg(long, env = "MILLIONS", default_value_t = 20.0)]
        millions: f64,
        /// The number of tasks that are created while SQS is unavailable
        #[arg(long, env = "UNSENT", default_value_t = 1_000_000)]
        unsent: u32,
    },
    /// Create tasks at a constant rate while everything fails, workers are slow, or nothing happens;
    /// report lost and duplicated work, times and CPU
    Load {
        /// retry-storm, slow-consumer or steady
        #[arg(long, env = "SCENARIO", value_parser = ["retry-storm", "slow-consumer", "steady"], default_value = "steady")]
        scenario: String,
        /// How long tasks are created
        #[arg(long, env = "MINUTES", default_value_t = 30.0)]
        minutes: f64,
        /// How many tasks are created in a second
        #[arg(long, env = "RATE", default_value_t = 200)]
        rate: u32,
    },
    /// Update the instruction counts that `make verify` compares with
    BenchCounts,
    /// Run the tests with coverage: print a table, write HTML to coverage/
    Coverage,
    /// Format the Rust code
    Fmt,
    /// Lint template.yaml (SAM, cfn-lint, checkov) and openapi.json (Redocly)
    Lint,
    /// Update .sqlx after a change to a query or a migration
    Sqlx,
    /// Update openapi.json after a change to the API
    Openapi,
    /// Inject a fault into a stack's Postgres
    #[command(hide = true)]
    FailPostgres {
        fault: PostgresFault,
        /// The name of the stack
        #[arg(long, env = "TEST_STACK", default_value = "test")]
        stack: String,
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
            println!("{}{SETTINGS}", help::text(&Arguments::command()));
            Ok(())
        }
        Command::Up => up::up(&Stack::local(&settings)?, settings.profile),
        Command::Down => up::down(&Stack::local(&settings)?),
        Command::CleanData => up::clean_data(&Stack::local(&settings)?),
        Command::Url => up::url(&Stack::started(&settings)?),
        Command::Logs => up::logs(&Stack::started(&settings)?),
        Command::Dev => dev::run(&Stack::local(&settings)?),
        Command::Invoke {
            function,
            event,
            debug,
            of,
        } => invoke::run(&settings, of.as_deref(), function.as_deref(), &event, debug),
        Command::Build => up::build(&settings.root),
        Command::SamLocal => sam_local::serve(&settings),
        Command::DeploySandbox => sandbox::deploy(&settings),
        Command::DestroySandbox => sandbox::destroy(&settings),
        Command::Dlq => dead_letters::list(&settings),
        Command::Redrive => dead_letters::redrive(&settings),
        Command::Token { subject, scope } => up::token(&Stack::started(&settings)?, &subject, &scope),
        Command::Check => check::run(&settings),
        Command::Test { filter } => test::run(&settings, filter.as_deref()),
        Command::Verify => verify::run(&settings),
        Command::VerifyContainers => verify_containers::run(&settings),
        Command::Chaos { tasks, seed } => chaos::run(&settings, tasks, seed),
        Command::Bench { local_loop: false } => bench::run(&settings),
        Command::Bench { local_loop: true } => local_loop::run(&settings),
        Command::BenchPeers { tasks, waiting } => bench::run_peers(&settings, tasks, waiting),
        Command::Scale { millions, unsent } => bench::run_scale(&settings, millions, unsent),
        Command::Load {
            scenario,
            minutes,
            rate,
        } => bench::run_load(&settings, &scenario, minutes, rate),
        Command::BenchCounts => counts::write(&settings),
        Command::FailPostgres { fault, stack } => Stack::separate(&settings, &stack)?.fail_postgres(fault),
        Command::Coverage => coverage::run(&settings),
        Command::Sqlx => queries::run(&settings),
        Command::Contract => openapi::contract(&settings),
        Command::Openapi => openapi::refresh(&settings.root),
        Command::Fmt => check::fmt(&settings.root),
        Command::Lint => lint::run(&Stack::local(&settings)?),
        Command::StopStackAtEof { name } => environment::stop_at_eof(&settings, &name),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn document_shows_help_text() {
        let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/development.md");
        let document = fs::read_to_string(document).expect("the document");
        let help = format!("```text\n{}{SETTINGS}\n```\n", help::text(&Arguments::command()));
        assert!(document.contains(&help), "docs/development.md must contain:\n\n{help}");
    }
}
