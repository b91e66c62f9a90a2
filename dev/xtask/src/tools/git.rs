//! git: trees and commits are created without touching the user's working tree or index.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use crate::tools::{files, process};

/// The project's repository.
pub struct Git {
    root: PathBuf,
}

impl Git {
    /// Opens the repository whose working tree is this folder.
    pub fn open(root: &Path) -> Result<Self> {
        let git = Self { root: root.to_owned() };
        let found = Command::new("git").arg("--version").output();
        ensure!(found.is_ok(), "this needs git; Debian: sudo apt install git");
        let toplevel = match git.run(["rev-parse", "--show-toplevel"]) {
            Ok(toplevel) => PathBuf::from(toplevel),
            Err(error) if error.to_string().contains("not a git repository") => bail!(
                "this needs the project's git repository, and this folder is not one (was it downloaded as an \
                 archive?): clone it, and run the command there"
            ),
            Err(error) => return Err(error),
        };
        ensure!(
            toplevel.canonicalize()? == root.canonicalize()?,
            "this needs the project's own git repository, but this folder belongs to another one, {}",
            toplevel.display()
        );
        Ok(git)
    }

    /// Runs a git command and returns its output without the trailing newline.
    pub fn run<const N: usize>(&self, arguments: [&str; N]) -> Result<String> {
        let output = process::output(self.command().args(arguments))?;
        Ok(output.trim_end_matches('\n').to_owned())
    }

    /// A git command in the project's folder.
    fn command(&self) -> Command {
        let mut command = Command::new("git");
        for (name, _) in env::vars_os() {
            // Set by git for its hooks.
            if name.to_string_lossy().starts_with("GIT_") {
                command.env_remove(&name);
            }
        }
        // Some output is compared.
        command.current_dir(&self.root).env("LC_ALL", "C");
        // The author of the commits, which are not signed.
        for role in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{role}_NAME"), "make exercise");
            command.env(format!("GIT_{role}_EMAIL"), "exercise@localhost");
        }
        command.args(["-c", "commit.gpgSign=false", "-c", "core.quotePath=false"]);
        command
    }

    /// The commit that a name refers to, if any.
    pub fn commit(&self, name: &str) -> Option<String> {
        self.run(["rev-parse", "--verify", "--quiet", &format!("{name}^{{commit}}")])
            .ok()
    }

    /// The current branch, if any.
    pub fn branch(&self) -> Option<String> {
        self.run(["symbolic-ref", "--quiet", "--short", "HEAD"]).ok()
    }

    /// Changed and untracked files: one line each, as in `git status --porcelain`.
    pub fn changes(&self) -> Result<Vec<String>> {
        let status = self.run(["--no-optional-locks", "status", "--porcelain", "--untracked-files=all"])?;
        Ok(status.lines().map(str::to_owned).collect())
    }

    /// A file's content in a commit or a tree, if it exists.
    pub fn file(&self, tree: &str, path: &str) -> Option<String> {
        process::output(self.command().args(["show", &format!("{tree}:{path}")])).ok()
    }

    /// The names in a folder of a commit or a tree; none if the folder does not exist.
    pub fn folder(&self, tree: &str, path: &str) -> Vec<String> {
        let listed = self.run(["ls-tree", "--name-only", &format!("{tree}:{path}")]);
        listed.unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Creates a commit and returns its id.
    pub fn make_commit(&self, tree: &str, parent: Option<&str>, message: &str) -> Result<String> {
        match parent {
            Some(parent) => self.run(["commit-tree", tree, "-p", parent, "-m", message]),
            None => self.run(["commit-tree", tree, "-m", message]),
        }
    }

    /// Stores a text as an object and returns its id.
    pub fn store(&self, text: &str) -> Result<String> {
        let file = self.root.join(format!(".local/object-{}", std::process::id()));
        fs::create_dir_all(self.root.join(".local"))?;
        fs::write(&file, text)?;
        let stored = self.store_file(&file);
        fs::remove_file(&file)?;
        stored
    }

    /// Stores a file as an object and returns its id.
    fn store_file(&self, file: &Path) -> Result<String> {
        self.run(["hash-object", "-w", "--no-filters", "--", &file.to_string_lossy()])
    }

    /// A local git setting, if set.
    pub fn setting(&self, name: &str) -> Option<String> {
        self.run(["config", "--local", "--get", name]).ok()
    }

    /// A separate, empty index for building a tree.
    pub fn index(&self) -> Result<Index<'_>> {
        let folder = self.root.join(".local");
        fs::create_dir_all(&folder)?;
        let file = folder.join(format!("index-{}", std::process::id()));
        let index = Index { git: self, file };
        index.delete()?;
        Ok(index)
    }

    /// Checks out a tree into a worktree: writes only files that differ, and leaves ignored files
    /// alone.
    pub fn check_out(&self, tree: &str, folder: &Path) -> Result<()> {
        let commit = self.make_commit(tree, None, "graded")?;
        let path = folder.to_string_lossy();
        let is_replaced = folder.join(".git").exists()
            && self
                .run(["-C", &path, "checkout", "--quiet", "--force", "--detach", &commit])
                .is_ok();
        if !is_replaced {
            // There is none, the project was moved, or a checkout was killed.
            self.forget_check_out(folder)?;
            self.run(["worktree", "add", "--quiet", "--force", "--detach", &path, &commit])?;
            return Ok(());
        }
        self.run(["-C", &path, "clean", "--quiet", "-dff"])?;
        Ok(())
    }

    /// Deletes a worktree, if it exists.
    pub fn forget_check_out(&self, folder: &Path) -> Result<()> {
        files::remove_if_exists(fs::remove_dir_all(folder))?;
        self.run(["worktree", "prune"])?;
        Ok(())
    }

    /// The tree of a worktree's current files.
    pub fn tree_of_worktree(&self, folder: &Path) -> Result<String> {
        let path = folder.to_string_lossy();
        self.run(["-C", &path, "add", "--all"])?;
        self.run(["-C", &path, "write-tree"])
    }

    /// The files of a tree that contain a matching line.
    pub fn grep(&self, tree: &str, pattern: &str) -> Result<Vec<String>> {
        let mut grep = self.command();
        let output = grep.args(["grep", "--name-only", "-I", "-e", pattern, tree]).output()?;
        let names = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Merges a commit's changes since its parent into another commit. Returns the tree and the
    /// conflicting files.
    pub fn merge(&self, into: &str, change: &str) -> Result<(String, Vec<String>)> {
        let mut merge = self.command();
        // A file added to a folder follows the folder when it has moved.
        merge.args(["-c", "merge.directoryRenames=true"]);
        let merged = merge.args([
            "merge-tree",
            "--write-tree",
            "--no-messages",
            "--name-only",
            into,
            change,
        ]);
        let output = merged.output().context("cannot start git")?;
        // 1 means conflicts.
        ensure!(
            matches!(output.status.code(), Some(0 | 1)),
            "git merge-tree: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8(output.stdout)?;
        let mut lines = text.lines().map(str::to_owned);
        let tree = lines.next().context("git merge-tree printed no tree")?;
        Ok((tree, lines.filter(|line| !line.is_empty()).collect()))
    }

    /// The files that differ between two trees, among those of these pathspecs.
    pub fn differing(&self, from: &str, to: &str, paths: &[&str]) -> Result<Vec<String>> {
        let mut diff = self.command();
        diff.args(["diff", "--name-only", "--no-renames", "--no-ext-diff", from, to, "--"]);
        let names = process::output(diff.args(paths))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// The patch from one tree to another, without a folder.
    pub fn diff(&self, from: &str, to: &str, without: &str) -> Result<String> {
        let mut diff = self.command();
        diff.args([
            "diff",
            "--no-color",
            "--no-ext-diff",
            "--no-renames",
            from,
            to,
            "--",
            ".",
        ]);
        diff.arg(format!(":!{without}"));
        process::output(&mut diff)
    }
}

/// A git index that becomes a tree. It is separate from the user's own, with its staged files.
pub struct Index<'a> {
    git: &'a Git,
    file: PathBuf,
}

impl Index<'_> {
    /// With exactly the files of a commit or a tree.
    pub fn of_tree(self, tree: &str) -> Result<Self> {
        self.run(["read-tree", tree])?;
        Ok(self)
    }

    /// With the current files of the working tree, tracked and untracked, except ignored ones.
    pub fn of_working_tree(self) -> Result<Self> {
        // Starting from a copy of the user's index spares hashing unchanged files.
        let staged = self
            .git
            .run(["rev-parse", "--path-format=absolute", "--git-path", "index"])?;
        if Path::new(&staged).exists() {
            fs::copy(staged, &self.file)?;
        }
        self.run(["add", "--all"])?;
        Ok(self)
    }

    /// With the files of a folder outside the working tree, except ignored ones.
    pub fn of_folder(self, folder: &Path) -> Result<Self> {
        let mut add = self.git.command();
        add.env("GIT_DIR", self.git.run(["rev-parse", "--absolute-git-dir"])?)
            .env("GIT_WORK_TREE", folder)
            .env("GIT_INDEX_FILE", &self.file)
            .current_dir(folder);
        process::output(add.args(["add", "--all"]))?;
        Ok(self)
    }

    /// Adds or replaces a file.
    pub fn add(&self, path: &str, text: &str) -> Result<()> {
        self.add_object("100644", &self.git.store(text)?, path)
    }

    /// Adds or replaces an executable.
    pub fn add_program(&self, path: &str, file: &Path) -> Result<()> {
        self.add_object("100755", &self.git.store_file(file)?, path)
    }

    fn add_object(&self, mode: &str, id: &str, path: &str) -> Result<()> {
        let entry = format!("{mode},{id},{path}");
        self.run(["update-index", "--add", "--cacheinfo", &entry]).map(drop)
    }

    /// Applies a patch.
    pub fn apply(&self, patch: &str) -> Result<()> {
        let file = self.file.with_extension("patch");
        fs::write(&file, patch)?;
        let path = file.to_string_lossy();
        let applied = self.run(["apply", "--cached", "--whitespace=nowarn", &path]);
        fs::remove_file(&file)?;
        applied.map(|_| ())
    }

    /// Removes a file or a folder.
    pub fn remove(&self, path: &str) -> Result<()> {
        self.run(["rm", "-r", "--quiet", "--cached", "--force", "--ignore-unmatch", path])?;
        Ok(())
    }

    /// Removes everything except these files and folders.
    pub fn keep(&self, paths: &[&str]) -> Result<()> {
        let mut remove = self.git.command();
        remove.env("GIT_INDEX_FILE", &self.file).args([
            "rm",
            "-r",
            "--quiet",
            "--cached",
            "--force",
            "--ignore-unmatch",
            "--",
            ".",
        ]);
        remove.args(paths.iter().map(|path| format!(":(exclude){path}")));
        process::output(&mut remove).map(drop)
    }

    /// Restores files and folders from a commit or a tree; removes what is not in it.
    pub fn restore(&self, paths: &[&str], tree: &str) -> Result<()> {
        let mut reset = self.git.command();
        reset
            .env("GIT_INDEX_FILE", &self.file)
            .args(["reset", "--quiet", tree, "--"]);
        process::output(reset.args(paths)).map(drop)
    }

    /// Replaces a folder with that of another commit or tree.
    pub fn take_folder(&self, folder: &str, tree: &str) -> Result<()> {
        self.remove(folder)?;
        self.run(["read-tree", &format!("--prefix={folder}/"), &format!("{tree}:{folder}")])?;
        Ok(())
    }

    /// Replaces a folder with one from outside the repository.
    pub fn take_from(&self, outside: &Path, folder: &str) -> Result<()> {
        self.remove(folder)?;
        let mut add = self.git.command();
        add.env("GIT_DIR", self.git.run(["rev-parse", "--absolute-git-dir"])?)
            .env("GIT_WORK_TREE", outside)
            .env("GIT_INDEX_FILE", &self.file)
            .current_dir(outside);
        process::output(add.args(["add", "--force", folder]))?;
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

    fn delete(&self) -> Result<()> {
        Ok(files::remove_if_exists(fs::remove_file(&self.file))?)
    }
}

impl Drop for Index<'_> {
    fn drop(&mut self) {
        // Ignored by git, and overwritten by the next one.
        let _ = self.delete();
    }
}
