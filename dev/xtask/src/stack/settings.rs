//! Settings from the environment, the project's folder, and the settings that `make up` has saved.

use std::{
    env,
    fs::{self, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::{stack::functions::Profile, tools::files};

/// The settings of a command, from environment variables; make sets them (`make up AWS_PORT=4567`).
#[derive(Clone)]
pub struct Settings {
    /// The project's folder.
    pub root: PathBuf,
    /// A Postgres to use instead of starting one.
    pub database_url: Option<String>,
    /// A deployed CloudFormation stack to use instead of the local one.
    pub stack: Option<String>,
    /// The port of `make sam-local`.
    pub sam_port: u16,
    /// True if `YES=1` skips confirmation.
    pub yes: bool,
    /// The build profile of the functions.
    pub profile: Profile,
}

/// The settings that identify a stack. `make up` saves them, so that other commands and the next
/// `make up` use the same stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackSettings {
    /// The emulator to use.
    pub aws: LocalAws,
    /// The emulator's port.
    pub aws_port: u16,
    /// Postgres's port.
    pub postgres_port: u16,
    /// A Postgres to use instead of starting one.
    pub database_url: Option<String>,
    /// Whether the API requires tokens.
    pub auth: Auth,
}

/// An emulator of AWS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LocalAws {
    /// ministack, which runs without Docker.
    Ministack,
    /// LocalStack, which needs Docker.
    LocalStack,
}

impl LocalAws {
    /// Its value in settings and parameters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ministack => "ministack",
            Self::LocalStack => "localstack",
        }
    }
}

/// Whether an API requires tokens: template.yaml's parameter `Auth`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// Unauthenticated; one admin.
    Open,
    /// Requires a token: `make token`.
    Closed,
}

impl Auth {
    /// Its value in settings and parameters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}

impl Settings {
    /// Reads the environment variables.
    pub fn from_env() -> Result<Self> {
        Ok(Self {
            root: root()?,
            database_url: text("DATABASE_URL"),
            stack: text("STACK"),
            sam_port: match text("SAM_PORT") {
                None => 3000,
                Some(text) => parse_port("SAM_PORT", &text)?,
            },
            yes: text("YES").is_some_and(|text| text == "1"),
            profile: match text("PROFILE").as_deref() {
                None | Some("local") => Profile::Local,
                Some("release") => Profile::Release,
                Some(other) => bail!("PROFILE must be local or release, not {other:?}"),
            },
        })
    }
}

/// The project's folder, from the current one upward. Not the folder where this program was
/// compiled, which may have been copied or moved since.
fn root() -> Result<PathBuf> {
    let here = env::current_dir().context("cannot read the current folder")?;
    let root = here
        .ancestors()
        .find(|folder| folder.join("dev/xtask/Cargo.toml").exists());
    Ok(root
        .context("the current folder is not in the project; change to the project's folder and use make")?
        .canonicalize()?)
}

impl StackSettings {
    /// The environment's settings, then those that `make up` has saved, then the defaults. An empty
    /// variable (`make up DATABASE_URL=`) selects the default.
    pub fn load(root: &Path) -> Result<Self> {
        Self::saved(root)?
            .unwrap_or_default()
            .overridden_by(|variable| env::var(variable).ok())
    }

    /// These settings, overridden by the variables.
    fn overridden_by(self, variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let default = Self::default();
        let port = |name: &'static str, saved: u16, default: u16| match variable(name) {
            None => Ok(saved),
            Some(text) if text.is_empty() => Ok(default),
            Some(text) => parse_port(name, &text),
        };
        Ok(Self {
            aws: match variable("AWS").as_deref() {
                None => self.aws,
                Some("") => default.aws,
                Some("ministack") => LocalAws::Ministack,
                Some("localstack") => LocalAws::LocalStack,
                Some(other) => bail!("AWS must be ministack or localstack, not {other:?}"),
            },
            aws_port: port("AWS_PORT", self.aws_port, default.aws_port)?,
            postgres_port: port("POSTGRES_PORT", self.postgres_port, default.postgres_port)?,
            database_url: match variable("DATABASE_URL") {
                None => self.database_url,
                Some(url) => Some(url).filter(|url| !url.is_empty()),
            },
            auth: match variable("AUTH").as_deref() {
                None => self.auth,
                Some("") => default.auth,
                Some("open") => Auth::Open,
                Some("closed") => Auth::Closed,
                Some(other) => bail!("AUTH must be open or closed, not {other:?}"),
            },
        })
    }

    /// Fails if a stack with these settings would not work. Commands that stop or inspect a stack do
    /// not check this.
    pub fn ensure_deployable(&self) -> Result<()> {
        ensure!(
            (self.aws, self.auth) != (LocalAws::LocalStack, Auth::Closed),
            "AWS=localstack cannot serve the closed API: LocalStack's free image runs no authorizer, so every request \
             would get a 401, even with a valid token.\n\
             Deploy the open API there: make up AWS=localstack AUTH=open. Or the closed one to the emulator: \
             make up AWS=ministack AUTH=closed"
        );
        Ok(())
    }

    /// The settings that `make up` has saved; none before the first one and after
    /// `make clean-data`.
    pub fn saved(root: &Path) -> Result<Option<Self>> {
        let file = Self::file(root);
        match fs::read_to_string(&file) {
            Ok(text) => {
                let saved = toml::from_str(&text).with_context(|| format!("{} is malformed", file.display()))?;
                Ok(Some(saved))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
        }
    }

    /// Saves them for later commands.
    pub fn save(&self, root: &Path) -> Result<()> {
        let file = Self::file(root);
        let folder = file.parent().context("the file has no parent folder")?;
        fs::create_dir_all(folder)?;
        // Readable by the user alone: a DATABASE_URL may contain a password.
        let new = file.with_extension("new");
        files::remove_if_exists(fs::remove_file(&new))?;
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        options.open(&new)?.write_all(toml::to_string(self)?.as_bytes())?;
        fs::rename(&new, &file).with_context(|| format!("cannot write {}", file.display()))
    }

    fn file(root: &Path) -> PathBuf {
        root.join(".local/local/settings.toml")
    }
}

impl Default for StackSettings {
    fn default() -> Self {
        Self {
            aws: LocalAws::Ministack,
            aws_port: 4566,
            postgres_port: 55432,
            database_url: None,
            auth: Auth::Open,
        }
    }
}

/// A variable's value, unless it is empty.
fn text(variable: &str) -> Option<String> {
    env::var(variable).ok().filter(|text| !text.is_empty())
}

fn parse_port(variable: &str, text: &str) -> Result<u16> {
    match text.parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => bail!("{variable} must be a port from 1 to 65535, not {text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saved_settings_are_read_back_and_private() {
        use std::os::unix::fs::PermissionsExt;

        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/xtask-tests/settings");
        let _ = fs::remove_dir_all(&root);
        assert_eq!(StackSettings::saved(&root).expect("a missing file is no error"), None);
        let settings = StackSettings {
            aws: LocalAws::LocalStack,
            aws_port: 4567,
            postgres_port: 55433,
            database_url: Some("postgres://me:secret@127.0.0.1/tasks".to_owned()),
            auth: Auth::Closed,
        };
        settings.save(&root).expect("saved");
        settings.save(&root).expect("saved again");
        assert_eq!(StackSettings::saved(&root).expect("read"), Some(settings));
        let mode = fs::metadata(StackSettings::file(&root)).expect("a file").permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
    }

    #[test]
    fn closed_api_on_localstack_is_refused_with_reason() {
        for aws in [LocalAws::Ministack, LocalAws::LocalStack] {
            for auth in [Auth::Open, Auth::Closed] {
                let settings = StackSettings {
                    aws,
                    auth,
                    ..StackSettings::default()
                };
                let refused = settings.ensure_deployable().err().map(|error| error.to_string());
                match (aws, auth) {
                    (LocalAws::LocalStack, Auth::Closed) => {
                        let text = refused.expect("it is refused");
                        assert!(text.contains("authorizer") && text.contains("AUTH=open"), "{text}");
                    }
                    _ => assert_eq!(refused, None),
                }
            }
        }
    }

    #[test]
    fn variables_override_saved_settings() {
        let saved = StackSettings {
            aws: LocalAws::Ministack,
            aws_port: 4567,
            postgres_port: 55433,
            database_url: Some("postgres://127.0.0.1/tasks".to_owned()),
            auth: Auth::Closed,
        };
        let overridden = |variables: &[(&str, &str)]| {
            let variable = |name: &str| {
                let found = variables.iter().find(|(variable, _)| *variable == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            saved.clone().overridden_by(variable)
        };
        assert_eq!(overridden(&[]).expect("valid"), saved, "no variable is set");
        let other = overridden(&[("AWS_PORT", "4568"), ("AUTH", "open")]).expect("valid");
        assert_eq!(
            (other.aws_port, other.postgres_port, other.auth),
            (4568, 55433, Auth::Open)
        );
        let empty = ["AWS", "AWS_PORT", "POSTGRES_PORT", "DATABASE_URL", "AUTH"].map(|name| (name, ""));
        assert_eq!(overridden(&empty).expect("valid"), StackSettings::default());
        for wrong in [
            ("AWS_PORT", "0"),
            ("POSTGRES_PORT", "x"),
            ("AUTH", "ajar"),
            ("AWS", "azure"),
        ] {
            let error = overridden(&[wrong]).expect_err("it is refused").to_string();
            assert!(error.contains(wrong.0) && error.contains(wrong.1), "{error}");
        }
    }
}
