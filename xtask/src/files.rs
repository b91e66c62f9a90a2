//! What the standard library lacks about files.

use std::io::{self, ErrorKind};

/// What was removed need not have been there.
pub fn remove_if_exists(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}
