//! .sqlx: what `sqlx::query!` knows of the schema, so that a build needs no database.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context, Result, ensure};

use crate::{
    commands::environment::{TEST, with_stack},
    stack::{settings::Settings, start},
    tools::{files, process, terminal::Step},
};

/// `make sqlx`
pub fn run(settings: &Settings) -> Result<()> {
    with_stack(settings, TEST, |stack| {
        refresh(&settings.root, &start::database(stack)?, &stack.log("queries"))
    })
}

/// Writes .sqlx anew.
fn refresh(root: &Path, database_url: &str, log: &Path) -> Result<()> {
    let fresh = describe(root, database_url, log)?;
    let committed = root.join(".sqlx");
    files::remove_if_exists(fs::remove_dir_all(&committed))?;
    fs::rename(fresh, committed)?;
    Ok(())
}

/// Fails if the committed .sqlx does not fit the queries and the schema.
pub fn check(root: &Path, database_url: &str, log: &Path) -> Result<()> {
    let fresh = describe(root, database_url, log)?;
    ensure!(
        contents(&fresh)? == contents(&root.join(".sqlx"))?,
        ".sqlx does not fit the queries and migrations: run `make sqlx` and commit the result"
    );
    Ok(())
}

/// Has the compiler ask the database about every query; returns the folder with the responses.
fn describe(root: &Path, database_url: &str, log: &Path) -> Result<PathBuf> {
    let step = Step::start("queries", "checking them against the schema");
    let fresh = root.join(".local/sqlx");
    files::empty_folder(&fresh)?;
    // The macros ask while their crate is compiled, and cargo compiles it only if it looks changed.
    let source = File::options().append(true).open(root.join("shared/core/src/lib.rs"))?;
    let modified = source.metadata()?.modified()?;
    source.set_modified(SystemTime::now())?;
    let mut check = process::cargo("cargo", root);
    // All crates are selected, as everywhere, so that clippy's dependencies serve; only the one with the queries is new.
    check.args(["check", "--workspace", "--lib"]);
    check
        .env("SQLX_OFFLINE", "false")
        .env("SQLX_OFFLINE_DIR", &fresh)
        .env("DATABASE_URL", database_url);
    let checked = process::run(&mut check, log, |_| {});
    source.set_modified(modified)?;
    checked?;
    step.done(&format!("{} fit the schema", contents(&fresh)?.len()));
    Ok(fresh)
}

fn contents(folder: &Path) -> Result<BTreeMap<OsString, String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    entries
        .map(|entry| {
            let entry = entry?;
            Ok((entry.file_name(), fs::read_to_string(entry.path())?))
        })
        .collect()
}
