//! What a person sees: one line for each step, alive while it runs.

use std::{
    cell::Cell,
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// A step of a command. On a terminal its line moves; elsewhere its news are printed one below the other.
pub struct Step {
    name: &'static str,
    started: Instant,
    spinner: Option<ProgressBar>,
    printed: Cell<Option<Instant>>,
}

/// Elsewhere than on a terminal, news of a step are printed no more often than this.
const NEWS_EVERY: Duration = Duration::from_secs(10);

impl Step {
    /// Begins a step and says what it is doing.
    pub fn start(name: &'static str, doing: &str) -> Self {
        let spinner = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("  {spinner} {prefix:<10} {wide_msg} {elapsed}");
            let spinner = ProgressBar::new_spinner()
                .with_style(style.expect("a valid template"))
                .with_prefix(name);
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
            None if self.printed.get().is_some_and(|last| last.elapsed() < NEWS_EVERY) => {}
            None => {
                eprintln!("  … {:<10} {doing}", self.name);
                self.printed.set(Some(Instant::now()));
            }
        }
    }

    /// Says a line of cargo's if it tells what is compiled now.
    pub fn follows_cargo(&self, line: &str) {
        let line = line.trim_start();
        if line.starts_with("Compiling") {
            self.says(line);
        }
    }

    /// Ends the step and says what has been reached.
    pub fn done(self, what: &str) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
        let seconds = self.started.elapsed().as_secs_f64();
        eprintln!("  ✓ {:<10} {what} ({seconds:.1} s)", self.name);
    }
}

/// Says why a command failed, and what led to it.
pub fn fail(error: &anyhow::Error) {
    eprintln!("\nerror: {error:#}");
}
