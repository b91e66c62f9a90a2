//! File operations that the standard library lacks.

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    path::Path,
};

/// Turns the error of a removal that found nothing into success.
pub fn remove_if_exists(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// Locks a file against other processes and threads until the value is dropped. Calls `waiting`
/// before it blocks.
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

/// Deletes the folder and its contents, and creates it again.
pub fn empty_folder(folder: &Path) -> io::Result<()> {
    remove_if_exists(fs::remove_dir_all(folder))?;
    fs::create_dir_all(folder)
}
