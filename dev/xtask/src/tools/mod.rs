//! What the rest is made of: processes, files, threads, the terminal, and the programs that are installed.

pub mod debian;
pub mod files;
pub mod parallel;
pub mod process;
pub mod python;
pub mod terminal;
