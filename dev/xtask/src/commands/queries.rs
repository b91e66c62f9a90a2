//! .sqlx: the descriptions of queries with which `sqlx::query!` compiles without a database.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
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

/// Replaces .sqlx.
fn refresh(root: &Path, database_url: &str, log: &Path) -> Result<()> {
    let fresh = describe(root, database_url, log)?;
    let committed = root.join(".sqlx");
    files::remove_if_exists(fs::remove_dir_all(&committed))?;
    fs::rename(fresh, committed)?;
    Ok(())
}

/// Fails if .sqlx is out of date.
pub fn check(root: &Path, database_url: &str, log: &Path) -> Result<()> {
    let fresh = describe(root, database_url, log)?;
    ensure!(
        contents(&fresh)? == contents(&root.join(".sqlx"))?,
        ".sqlx is out of date: a query or a migration has changed. Run `make sqlx` and commit the result"
    );
    Ok(())
}

/// Describes the queries of the workspace to a fresh folder, and returns it.
fn describe(root: &Path, database_url: &str, log: &Path) -> Result<PathBuf> {
    let step = Step::start("queries", "checking them against the schema");
    let fresh = root.join(".local/sqlx");
    files::empty_folder(&fresh)?;
    let mut check = process::cargo("cargo", root);
    // The whole workspace, to reuse the dependencies that clippy has checked.
    check.args(["check", "--workspace", "--lib"]);
    describe_with(&mut check, root, database_url, &fresh, log)?;
    step.done(&format!("{} queries match the schema", contents(&fresh)?.len()));
    Ok(fresh)
}

/// Runs a cargo command that compiles `shared`: its query macros let the database at `url` describe
/// each query, and write the descriptions to the folder `to`. `root` is the folder of the sources.
pub fn describe_with(cargo: &mut Command, root: &Path, url: &str, to: &Path, log: &Path) -> Result<()> {
    // The macros run only when their crate is compiled, and cargo compiles it only if a source
    // looks changed.
    let source = File::options().append(true).open(root.join("shared/core/src/lib.rs"))?;
    let modified = source.metadata()?.modified()?;
    source.set_modified(SystemTime::now())?;
    cargo
        .env("SQLX_OFFLINE", "false")
        .env("SQLX_OFFLINE_DIR", to)
        .env("DATABASE_URL", url);
    let compiled = process::run(cargo, log, |_| {});
    source.set_modified(modified)?;
    compiled
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
