//! What the standard library lacks about files.

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    path::Path,
};

/// What was removed need not have been there.
pub fn remove_if_exists(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// Locks a file until the value is dropped, against other processes and other threads. Calls `waiting` if it is taken.
pub fn lock(path: &Path, waiting: impl FnOnce()) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let file = File::create(path)?;
    if file.try_lock().is_err() {
        waiting();
        file.lock()?;
    }
    Ok(file)
}

/// Deletes the folder and what is in it, and creates it again.
pub fn empty_folder(folder: &Path) -> io::Result<()> {
    remove_if_exists(fs::remove_dir_all(folder))?;
    fs::create_dir_all(folder)
}
