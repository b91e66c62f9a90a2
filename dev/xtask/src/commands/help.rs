//! `make help`

use std::fmt::Write;

use clap::Command;

/// A line for each make target: the description of its command, and the variables that only it
/// reads.
pub fn text(runner: &Command) -> String {
    let mut text = String::new();
    for command in runner.get_subcommands().filter(|command| !command.is_hide_set()) {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let variables: Vec<_> = command
            .get_arguments()
            .filter_map(|argument| argument.get_env())
            .map(|variable| format!("{}=…", variable.to_string_lossy()))
            .collect();
        let variables = match variables.is_empty() {
            true => String::new(),
            false => format!(" ({})", variables.join(", ")),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  make {:<17} {about}{variables}", command.get_name());
    }
    text
}
