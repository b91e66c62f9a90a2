//! `make lift`: a copy of the project for a service of one's own. docs/lift.md describes it.

mod copy;
mod edits;
mod names;
mod proof;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::{CommandFactory, Parser, Subcommand};
use xtask::{commands::help, stack::settings::Settings, tools::terminal};

use crate::{copy::Copy, names::Names};

/// The command line.
#[derive(Parser)]
#[command(disable_help_subcommand = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the targets
    #[command(hide = true)]
    Help,
    /// Copy the project for a service of one's own: docs/lift.md
    Lift {
        /// What it has instead of tasks: the plural, such as invoices
        #[arg(long, env = "NAME")]
        name: Option<String>,
        /// The singular, if it is not the plural without s
        #[arg(long, env = "SINGULAR")]
        singular: Option<String>,
        /// The folder of the copy
        #[arg(long, env = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Prove that a copy works, unless nothing has changed
    #[command(hide = true)]
    Prove,
}

/// Runs a command.
pub fn run(arguments: Arguments) -> Result<()> {
    let settings = Settings::from_env()?;
    match arguments.command {
        Command::Help => {
            print!("{}", help::text(&Arguments::command()));
            Ok(())
        }
        Command::Lift { name, singular, dir } => {
            let example = "for example: make lift NAME=invoices DIR=../invoices";
            let name = name.filter(|name| !name.is_empty());
            let name =
                name.with_context(|| format!("NAME is missing: what the service has instead of tasks; {example}"))?;
            let dir = dir.filter(|dir| !dir.as_os_str().is_empty());
            let dir = dir.with_context(|| format!("DIR is missing: the folder of the copy; {example}"))?;
            lift(&settings.root, &Names::new(&name, singular.as_deref())?, &dir)
        }
        Command::Prove => proof::run(&settings),
    }
}

fn lift(root: &Path, names: &Names, dir: &Path) -> Result<()> {
    let folder = resolve(dir)?;
    ensure!(
        !folder.starts_with(root),
        "DIR={} is inside this project; take a folder beside it: DIR=../{}",
        dir.display(),
        names.both()[0]
    );
    let copy = Copy::of(root, names)?;
    copy.write(&folder)?;
    let [plural, singular] = names.both();
    terminal::say(&format!(
        "\n{} is a project of its own, with {plural} instead of tasks (one of them: {singular}).\n\n  \
         cd {}\n  make up      # make down here first, or other ports: make up AWS_PORT=4567 POSTGRES_PORT=55433\n  \
         make check\n\ndocs/lift.md, \"Then\", lists what to change first.",
        folder.display(),
        dir.display()
    ));
    Ok(())
}

/// The path without `..` and links, also of a folder that does not exist yet.
fn resolve(path: &Path) -> Result<PathBuf> {
    let path = std::path::absolute(path)?;
    if let Ok(folder) = path.canonicalize() {
        return Ok(folder);
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        bail!("DIR={} is no folder", path.display());
    };
    Ok(resolve(parent)?.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_inside_project_is_refused() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../..")
            .canonicalize()
            .expect("the project");
        let name = root.file_name().expect("a name");
        let names = Names::new("invoices", None).expect("valid names");
        for inside in [
            root.clone(),
            root.join("copy"),
            root.join("dev/lift/../../copy"),
            root.join("..").join(name).join("copy"),
        ] {
            let error = lift(&root, &names, &inside).expect_err("refused").to_string();
            assert!(
                error.contains("is inside this project"),
                "{}: {error}",
                inside.display()
            );
        }
        let beside = root.parent().expect("a parent").join("no such folder/copy");
        assert_eq!(resolve(&root.join("../no such folder/copy")).expect("a path"), beside);
        assert!(!beside.exists());
    }
}
