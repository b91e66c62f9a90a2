//! What a person sees: one line for each step, alive while it runs. Steps may run side by side.

use std::{
    cell::Cell,
    io::{self, IsTerminal},
    sync::{LazyLock, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use dialoguer::{Confirm, Input};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// The steps that run now, one below the other.
static RUNNING: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// The steps that are done: name, what was reached, seconds.
static DONE: Mutex<Vec<(&str, String, f64)>> = Mutex::new(Vec::new());

/// Elsewhere than on a terminal, the progress of a step is printed no more often than this.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// A step of a command. On a terminal its line moves; elsewhere its progress is printed line by line.
pub struct Step {
    name: &'static str,
    started: Instant,
    spinner: Option<ProgressBar>,
    printed: Cell<Option<Instant>>,
}

impl Step {
    /// Begins a step and says what it is doing.
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
        step.says(doing);
        step
    }

    /// Says what the step is doing now.
    pub fn says(&self, doing: &str) {
        match &self.spinner {
            Some(spinner) => spinner.set_message(doing.to_owned()),
            None if self.printed.get().is_some_and(|last| last.elapsed() < PROGRESS_EVERY) => {}
            None => {
                eprintln!("  … {:<10} {doing}", self.name);
                self.printed.set(Some(Instant::now()));
            }
        }
    }

    /// Ends the step and says what has been reached.
    pub fn done(self, what: &str) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
            RUNNING.remove(spinner);
        }
        let seconds = self.started.elapsed().as_secs_f64();
        say(&format!("  ✓ {:<10} {what} ({seconds:.1} s)", self.name));
        let mut done = DONE.lock().unwrap_or_else(PoisonError::into_inner);
        done.push((self.name, what.to_owned(), seconds));
    }
}

impl Drop for Step {
    /// A step that failed leaves no line that moves.
    fn drop(&mut self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}

/// Prints a table of all steps with their seconds, the longest first.
pub fn print_seconds() {
    let mut done = DONE.lock().unwrap_or_else(PoisonError::into_inner).clone();
    done.sort_by(|(.., one), (.., other)| other.total_cmp(one));
    println!("\n  seconds  step (some ran side by side)");
    for (name, what, seconds) in done {
        println!("  {seconds:>7.1}  {name:<10} {what}");
    }
}

/// Prints a line above the steps that run.
pub fn say(line: &str) {
    RUNNING.suspend(|| eprintln!("{line}"));
}

/// Says why a command failed, and what led to it.
pub fn fail(error: &anyhow::Error) {
    say(&format!("\nerror: {error:#}"));
}

/// Asks until the complaint is none; an empty response takes the default.
pub fn ask(question: &str, default: &str, complaint: impl Fn(&str) -> Option<&'static str>) -> Result<String> {
    Input::new()
        .with_prompt(question)
        .default(default.to_owned())
        .show_default(!default.is_empty())
        .allow_empty(true)
        .validate_with(|text: &String| complaint(text).map_or(Ok(()), Err))
        .interact_text()
        .context("this question needs a terminal")
}

/// Asks for a yes; `YES=1` says it without a terminal.
pub fn agree(question: &str) -> Result<bool> {
    Confirm::new()
        .with_prompt(question)
        .default(false)
        .interact()
        .context("this question needs a terminal; YES=1 answers it")
}
