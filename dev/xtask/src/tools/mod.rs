//! The lowest layer: processes, files, threads, the terminal, and installed programs.

pub mod debian;
pub mod files;
pub mod git;
pub mod http;
pub mod parallel;
pub mod process;
pub mod python;
pub mod terminal;
