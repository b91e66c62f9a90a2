//! `make lift`, and its proof.

use std::process::ExitCode;

use clap::Parser;
use lift::Arguments;
use xtask::tools::terminal;

fn main() -> ExitCode {
    terminal::exit_code(lift::run(Arguments::parse()))
}
