//! `make dev`: watches the sources, rebuilds what changed and swaps it into the stack of `make up`.

use std::{
    ffi::OsStr,
    path::{Component, Path},
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use notify::{Event, EventKind, RecursiveMode, Watcher, recommended_watcher};

use crate::{
    commands::{invoke, up},
    stack::{Stack, deploy, functions, migrations, start},
};

/// Changes within this time are one: an editor may write a file in several steps, and `git switch`
/// writes many files.
const QUIET: Duration = Duration::from_millis(100);

/// The watched folders: the sources of the functions. Builds write nothing in them.
const SOURCES: [&str; 3] = ["functions", "migrations", "shared"];

/// The watched files in the project's folder.
const FILES: [&str; 5] = [
    "Cargo.lock",
    "Cargo.toml",
    "openapi.json",
    "samconfig.toml",
    "template.yaml",
];

/// Starts the stack, then applies changes until interrupted.
pub fn run(stack: &Stack) -> Result<()> {
    invoke::record(stack)?;
    up::up(stack, functions::Profile::Local)?;
    let (sender, changes) = mpsc::channel();
    let root = stack.root.clone();
    let mut watcher = recommended_watcher(move |event: notify::Result<Event>| {
        if event.as_ref().map_or(true, |event| is_change(&root, event)) {
            // The receiver is dropped when the command ends.
            let _ = sender.send(event.map(drop));
        }
    })?;
    // The folder, not its files: an editor replaces a file, which ends a watch of the file.
    watcher.watch(&stack.root, RecursiveMode::NonRecursive)?;
    for folder in SOURCES {
        let folder = stack.root.join(folder);
        let watched = watcher.watch(&folder, RecursiveMode::Recursive);
        watched.with_context(|| format!("cannot watch {}", folder.display()))?;
    }
    println!(
        "Watching {}/. Changes are compiled and swapped in; Ctrl-C ends this and leaves the stack running.",
        SOURCES.join("/, ")
    );
    while let Ok(change) = changes.recv() {
        change.context("cannot watch the project")?;
        while changes.recv_timeout(QUIET).is_ok() {}
        if let Err(error) = bring_up_to_date(stack) {
            println!("error: {error:#}\nThe previous code keeps serving.");
        }
    }
    Ok(())
}

/// Compiles, migrates and deploys the changes.
fn bring_up_to_date(stack: &Stack) -> Result<()> {
    let started = Instant::now();
    let _lock = stack.lock()?;
    ensure!(
        stack.aws_is_running()?,
        "the stack was stopped; start it again: make up"
    );
    let programs = functions::build_quietly(&stack.root)?;
    let database_url = stack.database_url()?;
    migrations::migrate_from(&stack.root.join("migrations"), &database_url)?;
    let deployment = start::local_deployment(stack, deploy::STACK_NAME, &database_url, stack.settings.auth)?;
    if deploy::template(stack, &deployment)? {
        println!("template.yaml, its parameters or the set of functions changed: deployed");
    }
    let (swapped, _) = deploy::code(stack, &deployment, &programs)?;
    let seconds = started.elapsed().as_secs_f64();
    match swapped.len() {
        0 => println!("no function changed ({seconds:.1} s)"),
        1..=3 => println!("{} swapped in {seconds:.1} s", swapped.join(", ")),
        many => println!("{many} functions swapped in {seconds:.1} s"),
    }
    Ok(())
}

/// True if the event may change the deployment. Reading a file, as the compiler does, is no change.
fn is_change(root: &Path, event: &Event) -> bool {
    let is_write = matches!(
        event.kind,
        EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_)
    );
    is_write && event.paths.iter().any(|path| is_source(root, path))
}

/// True if the functions or their deployment depend on this file.
fn is_source(root: &Path, path: &Path) -> bool {
    let Ok(path) = path.strip_prefix(root) else {
        return false;
    };
    let (mut components, name) = (
        path.components(),
        path.file_name().unwrap_or_default().to_string_lossy(),
    );
    // Temporary files of vim (also 4913) and emacs.
    let is_temporary = name.starts_with(['.', '#']) || name.ends_with('~') || name.parse::<u32>().is_ok();
    let among = |names: &[&str], name: &OsStr| names.iter().any(|known| name == OsStr::new(known));
    match (components.next(), components.next()) {
        (Some(Component::Normal(file)), None) => among(&FILES, file),
        (Some(Component::Normal(folder)), Some(_)) => among(&SOURCES, folder) && !is_temporary,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watched_sources_exist() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for path in SOURCES.iter().chain(&FILES) {
            assert!(root.join(path).exists(), "{path}");
        }
    }

    #[test]
    fn files_of_editors_and_builds_are_ignored() {
        let root = Path::new("/project");
        for source in [
            "shared/core/src/lib.rs",
            "migrations/0011_x.sql",
            "template.yaml",
            "functions/api-docs/page/docs.js",
        ] {
            assert!(is_source(root, &root.join(source)), "{source}");
        }
        for other in [
            "target/debug/x",
            "shared/core/src/.lib.rs.swp",
            "shared/core/src/4913",
            "shared/core/src/lib.rs~",
            "README.md",
            "tests/a.rs",
        ] {
            assert!(!is_source(root, &root.join(other)), "{other}");
        }
        assert!(!is_source(root, Path::new("/elsewhere/shared/src/lib.rs")));
    }

    #[test]
    fn reading_a_source_is_no_change() {
        use notify::event::{AccessKind, ModifyKind};

        let (root, source) = (
            Path::new("/project"),
            Path::new("/project/shared/src/lib.rs").to_owned(),
        );
        let event = |kind| Event::new(kind).add_path(source.clone());
        assert!(is_change(root, &event(EventKind::Modify(ModifyKind::Any))));
        assert!(!is_change(root, &event(EventKind::Access(AccessKind::Any))));
    }
}
