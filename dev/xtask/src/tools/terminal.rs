//! Terminal output: one line per step, updated while it runs. Steps may run in parallel.

use std::{
    cell::Cell,
    io::{self, IsTerminal},
    process::ExitCode,
    sync::{LazyLock, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use dialoguer::{Confirm, Input};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// The lines of the running steps.
static RUNNING: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// The finished steps: name, result, seconds.
static DONE: Mutex<Vec<(&str, String, f64)>> = Mutex::new(Vec::new());

/// How often the progress of a step is printed when stderr is not a terminal.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// A step of a command: a spinner on a terminal, plain lines elsewhere.
pub struct Step {
    name: &'static str,
    started: Instant,
    spinner: Option<ProgressBar>,
    printed: Cell<Option<Instant>>,
}

impl Step {
    /// Starts a step and shows what it is doing.
    pub fn start(name: &'static str, doing: &str) -> Self {
        let spinner = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("  {spinner} {prefix:<10} {wide_msg} {elapsed}");
            let spinner = ProgressBar::new_spinner()
                .with_style(style.expect("a valid template"))
                .with_prefix(name);
            let spinner = RUNNING.add(spinner);
            spinner.enable_steady_tick(Duration::from_millis(120));
            spinner
        });
        let step = Self {
            name,
            started: Instant::now(),
            spinner,
            printed: Cell::new(None),
        };
        step.show(doing);
        step
    }

    /// Shows what the step is doing now.
    pub fn show(&self, doing: &str) {
        match &self.spinner {
            Some(spinner) => spinner.set_message(doing.to_owned()),
            None if self.printed.get().is_some_and(|last| last.elapsed() < PROGRESS_EVERY) => {}
            None => {
                eprintln!("  … {:<10} {doing}", self.name);
                self.printed.set(Some(Instant::now()));
            }
        }
    }

    /// Ends the step and prints its result.
    pub fn done(self, result: &str) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
            RUNNING.remove(spinner);
        }
        let seconds = self.started.elapsed().as_secs_f64();
        say(&format!("  ✓ {:<10} {result} ({seconds:.1} s)", self.name));
        let mut done = DONE.lock().unwrap_or_else(PoisonError::into_inner);
        done.push((self.name, result.to_owned(), seconds));
    }
}

impl Drop for Step {
    /// Removes the spinner of a failed step.
    fn drop(&mut self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}

/// Prints a table of the finished steps with their seconds, the longest first.
pub fn print_seconds() {
    let mut done = DONE.lock().unwrap_or_else(PoisonError::into_inner).clone();
    done.sort_by(|(.., one), (.., other)| other.total_cmp(one));
    println!("\n  seconds  step (some ran in parallel)");
    for (name, result, seconds) in done {
        println!("  {seconds:>7.1}  {name:<10} {result}");
    }
}

/// Prints a line above the running steps.
pub fn say(line: &str) {
    RUNNING.suspend(|| eprintln!("{line}"));
}

/// The exit code of a command; prints the error and its causes if it failed.
pub fn exit_code(outcome: Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("\nerror: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Asks a question until `validate` returns no error. Enter alone takes the default.
pub fn ask(question: &str, default: &str, validate: impl Fn(&str) -> Option<&'static str>) -> Result<String> {
    Input::new()
        .with_prompt(question)
        .default(default.to_owned())
        .show_default(!default.is_empty())
        .allow_empty(true)
        .validate_with(|text: &String| validate(text).map_or(Ok(()), Err))
        .interact_text()
        .context("cannot ask: this command needs a terminal")
}

/// Asks for confirmation. Callers skip it when `YES=1` is set.
pub fn confirm(question: &str) -> Result<bool> {
    Confirm::new()
        .with_prompt(question)
        .default(false)
        .interact()
        .context("cannot ask for confirmation without a terminal; to confirm: YES=1")
}
