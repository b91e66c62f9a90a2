//! What a person sees: one line for each step, alive while it runs. Steps may run side by side.

use std::{
    cell::Cell,
    io::{self, BufRead, IsTerminal, Write},
    sync::{LazyLock, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
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

/// Where a person is asked.
pub struct Terminal<I, O> {
    input: I,
    output: O,
}

impl Terminal<io::StdinLock<'static>, io::Stdout> {
    /// The one that the command was typed on.
    pub fn new() -> Self {
        Self {
            input: io::stdin().lock(),
            output: io::stdout(),
        }
    }
}

impl<I: BufRead, O: Write> Terminal<I, O> {
    /// Asks until the complaint is none. An empty answer takes the default, if there is one.
    pub fn ask(
        &mut self,
        question: &str,
        default: Option<&str>,
        complaint: impl Fn(&str) -> Option<&'static str>,
    ) -> Result<String> {
        loop {
            match default {
                None | Some("") => write!(self.output, "{question}: ")?,
                Some(default) => write!(self.output, "{question} [{default}]: ")?,
            }
            let line = self
                .line()?
                .context("this needs an answer, and standard input has ended")?;
            let answer = match default {
                Some(default) if line.is_empty() => default,
                None if line.is_empty() => continue,
                _ => &line,
            };
            match complaint(answer) {
                None => return Ok(answer.to_owned()),
                Some(complaint) => writeln!(self.output, "  {complaint}")?,
            }
        }
    }

    /// Asks for a yes; everything else is a no.
    pub fn agree(&mut self, question: &str) -> Result<bool> {
        write!(self.output, "{question} [y/N] ")?;
        let line = self.line()?.unwrap_or_default();
        Ok(["y", "yes"].contains(&line.to_lowercase().as_str()))
    }

    /// What is typed next; nothing at the end.
    fn line(&mut self) -> Result<Option<String>> {
        self.output.flush()?;
        let mut line = String::new();
        let read = self.input.read_line(&mut line)?;
        Ok((read > 0).then(|| line.trim().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terminal(typed: &str) -> Terminal<&[u8], Vec<u8>> {
        Terminal {
            input: typed.as_bytes(),
            output: Vec::new(),
        }
    }

    #[test]
    fn only_a_yes_is_a_yes() {
        for yes in ["y\n", "Y\n", "yes\n", " YES \n", "y"] {
            assert!(terminal(yes).agree("Deploy it?").expect("an answer"), "{yes:?}");
        }
        for no in ["", "\n", "n\n", "no\n", "yep\n", "\ny\n"] {
            assert!(!terminal(no).agree("Deploy it?").expect("an answer"), "{no:?}");
        }
    }

    #[test]
    fn a_question_is_repeated_until_its_answer_is_valid() {
        let number = |text: &str| text.parse::<u8>().is_err().then_some("A number.");
        let mut asked = terminal("x\n\n 7 \nnext\n");
        assert_eq!(asked.ask("How many", None, number).expect("an answer"), "7");
        assert_eq!(
            String::from_utf8(asked.output).expect("text"),
            "How many:   A number.\nHow many: How many: "
        );
        assert_eq!(asked.input, b"next\n", "only its own lines are read");

        let mut asked = terminal("\n");
        assert_eq!(asked.ask("How many", Some("3"), number).expect("3"), "3");
        assert_eq!(asked.output, b"How many [3]: ");
        let mut asked = terminal("\n");
        assert_eq!(asked.ask("For whom", Some(""), |_| None).expect("an empty answer"), "");
        assert_eq!(asked.output, b"For whom: ");
    }

    #[test]
    fn a_question_without_an_answer_is_an_error() {
        for end in ["", "x\n"] {
            let error = terminal(end)
                .ask("How many", Some("3"), |_| Some("No."))
                .expect_err("an end");
            assert!(error.to_string().contains("standard input has ended"), "{error}");
        }
    }
}
