//! git, for the exercises: trees and commits are made beside what a person has checked out, not through it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{files, process};

/// The project's repository.
pub struct Git {
    root: PathBuf,
}

impl Git {
    /// The repository whose working tree is this folder.
    pub fn open(root: &Path) -> Result<Self> {
        let git = Self { root: root.to_owned() };
        let found = Command::new("git").arg("--version").output();
        ensure!(found.is_ok(), "the exercises need git; Debian: sudo apt install git");
        let toplevel = match git.ask(["rev-parse", "--show-toplevel"]) {
            Ok(toplevel) => PathBuf::from(toplevel),
            Err(error) if error.to_string().contains("not a git repository") => bail!(
                "the exercises need the project's git repository, and this folder is none (was it downloaded as an \
                 archive?): clone it, and run the command there"
            ),
            Err(error) => return Err(error),
        };
        ensure!(
            toplevel.canonicalize()? == root.canonicalize()?,
            "the exercises need the project's own git repository, and this folder is a part of another one, {}",
            toplevel.display()
        );
        Ok(git)
    }

    /// Runs a git command to its end and returns what it prints, without the newline at the end.
    pub fn ask<const N: usize>(&self, arguments: [&str; N]) -> Result<String> {
        let output = process::output(self.command().args(arguments))?;
        Ok(output.trim_end_matches('\n').to_owned())
    }

    /// A git command in the project's folder.
    fn command(&self) -> Command {
        let mut command = Command::new("git");
        for (name, _) in env::vars_os() {
            // As git sets them for its hooks.
            if name.to_string_lossy().starts_with("GIT_") {
                command.env_remove(&name);
            }
        }
        // Some answers are compared.
        command.current_dir(&self.root).env("LC_ALL", "C");
        // Who makes the commits of the exercises, which need nobody's signature.
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "make exercise");
            command.env(format!("GIT_{who}_EMAIL"), "exercise@localhost");
        }
        command.args(["-c", "commit.gpgSign=false", "-c", "core.quotePath=false"]);
        command
    }

    /// The commit that a name stands for, if there is one.
    pub fn commit(&self, name: &str) -> Option<String> {
        self.ask(["rev-parse", "--verify", "--quiet", &format!("{name}^{{commit}}")])
            .ok()
    }

    /// The branch that is checked out, if one is.
    pub fn branch(&self) -> Option<String> {
        self.ask(["symbolic-ref", "--quiet", "--short", "HEAD"]).ok()
    }

    /// What is changed, and what is neither committed nor ignored: a line for each, as `git status` has it.
    pub fn changes(&self) -> Result<Vec<String>> {
        let status = self.ask(["--no-optional-locks", "status", "--porcelain", "--untracked-files=all"])?;
        Ok(status.lines().map(str::to_owned).collect())
    }

    /// A file as it is in a commit or a tree, if it is there.
    pub fn file(&self, tree: &str, path: &str) -> Option<String> {
        process::output(self.command().args(["show", &format!("{tree}:{path}")])).ok()
    }

    /// The names in a folder of a commit or a tree; none if it is not there.
    pub fn folder(&self, tree: &str, path: &str) -> Vec<String> {
        let listed = self.ask(["ls-tree", "--name-only", &format!("{tree}:{path}")]);
        listed.unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Makes a commit and returns its id.
    pub fn make_commit(&self, tree: &str, parent: Option<&str>, message: &str) -> Result<String> {
        match parent {
            Some(parent) => self.ask(["commit-tree", tree, "-p", parent, "-m", message]),
            None => self.ask(["commit-tree", tree, "-m", message]),
        }
    }

    /// A setting, if it is set.
    pub fn setting(&self, name: &str) -> Option<String> {
        self.ask(["config", "--local", "--get", name]).ok()
    }

    /// An index of its own, with nothing in it, to make a tree with.
    pub fn index(&self) -> Result<Index<'_>> {
        let folder = self.root.join(".local");
        fs::create_dir_all(&folder)?;
        let file = folder.join(format!("index-{}", std::process::id()));
        let index = Index { git: self, file };
        index.remove()?;
        Ok(index)
    }

    /// Makes a folder contain this tree: writes the files that differ, deletes those of the tree that was there before,
    /// and leaves alone what git has not put there.
    pub fn check_out(&self, tree: &str, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        let mut command = self.command();
        command
            .current_dir(folder)
            .env("GIT_DIR", self.ask(["rev-parse", "--absolute-git-dir"])?)
            .env("GIT_WORK_TREE", folder)
            // It knows which of the files are as git has written them.
            .env("GIT_INDEX_FILE", index_of(folder));
        process::output(command.args(["read-tree", "--reset", "-u", tree]))
            .with_context(|| format!("cannot fill {}", folder.display()))?;
        Ok(())
    }

    /// Deletes such a folder, if it is there.
    pub fn forget_check_out(&self, folder: &Path) -> Result<()> {
        files::remove_if_exists(fs::remove_file(index_of(folder)))?;
        Ok(files::remove_if_exists(fs::remove_dir_all(folder))?)
    }
}

/// Beside a folder that was filled.
fn index_of(folder: &Path) -> PathBuf {
    folder.with_extension("index")
}

/// A list of files that becomes a tree. What a person has staged is in another one.
pub struct Index<'a> {
    git: &'a Git,
    file: PathBuf,
}

impl Index<'_> {
    /// With the files of a commit or a tree, and nothing else.
    pub fn of_tree(self, tree: &str) -> Result<Self> {
        self.run(["read-tree", tree])?;
        Ok(self)
    }

    /// With the files of the working tree: those that git follows, as they are now, and those that it does not ignore.
    pub fn of_working_tree(self) -> Result<Self> {
        // A copy of the person's knows which files have not changed since.
        let staged = self
            .git
            .ask(["rev-parse", "--path-format=absolute", "--git-path", "index"])?;
        if Path::new(&staged).exists() {
            fs::copy(staged, &self.file)?;
        }
        self.run(["add", "--all"])?;
        Ok(self)
    }

    /// Changes the files as a patch says.
    pub fn apply(&self, patch: &str) -> Result<()> {
        let file = self.file.with_extension("patch");
        fs::write(&file, patch)?;
        let path = file.to_string_lossy();
        let applied = self.run(["apply", "--cached", "--whitespace=nowarn", &path]);
        fs::remove_file(&file)?;
        applied.map(|_| ())
    }

    /// Takes a folder out.
    pub fn remove_folder(&self, folder: &str) -> Result<()> {
        let prefix = format!("{folder}/");
        self.run([
            "rm",
            "-r",
            "--quiet",
            "--cached",
            "--force",
            "--ignore-unmatch",
            &prefix,
        ])?;
        Ok(())
    }

    /// Replaces a folder by what it is in another commit or tree.
    pub fn take_folder(&self, folder: &str, tree: &str) -> Result<()> {
        self.remove_folder(folder)?;
        self.run(["read-tree", &format!("--prefix={folder}/"), &format!("{tree}:{folder}")])?;
        Ok(())
    }

    /// Puts a file of a commit or a tree at another place.
    pub fn take_file(&self, tree: &str, from: &str, to: &str) -> Result<()> {
        let blob = self.git.ask(["rev-parse", "--verify", &format!("{tree}:{from}")])?;
        self.run(["update-index", "--add", "--cacheinfo", &format!("100644,{blob},{to}")])?;
        Ok(())
    }

    /// Stores the files as a tree and returns its id.
    pub fn tree(&self) -> Result<String> {
        self.run(["write-tree"])
    }

    fn run<const N: usize>(&self, arguments: [&str; N]) -> Result<String> {
        let mut command = self.git.command();
        command.env("GIT_INDEX_FILE", &self.file);
        let output = process::output(command.args(arguments))?;
        Ok(output.trim_end_matches('\n').to_owned())
    }

    fn remove(&self) -> Result<()> {
        Ok(files::remove_if_exists(fs::remove_file(&self.file))?)
    }
}

impl Drop for Index<'_> {
    fn drop(&mut self) {
        // Ignored by git, and overwritten by the next one.
        let _ = self.remove();
    }
}
