//! Records: what happened in an exercise, as commits on `refs/interview/<id>` in this repository
//! only. Each has the files of that moment, and an event as a line of JSON in its message.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339, macros::format_description};
use xtask::tools::terminal;

use crate::{exercises::ActiveExercise, git::Git, report::Check};

/// The refs of the records.
const REFS: &str = "refs/interview/";

/// The git setting of an exercise's branch with the id of its record.
const SETTING: &str = "record";

/// What a record begins with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Start {
    pub exercise: String,
    /// The commit with the kit.
    pub kit: String,
    /// The exercise's first commit.
    pub start: String,
    /// Absent from an exercise without a session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidate: Option<String>,
    /// The time box of a session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minutes: Option<u32>,
    /// True if it is not an exercise, but an incident.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub incident: bool,
}

/// Seconds from the beginning of an incident.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// To the first time that the right cause was named, with evidence.
    pub detect: Option<f64>,
    /// To the first request of the time since when clients are served again.
    pub mitigate: Option<f64>,
    /// To the first grade that passed.
    pub prove: Option<f64>,
    /// How many other causes were named.
    pub wrong_causes: usize,
}

impl Times {
    /// `cause named after 80 s (1 wrong before), clients served again after 95 s, not proved yet`
    pub fn describe(&self) -> String {
        let after = |what: &str, time: Option<f64>| match time {
            Some(seconds) => format!("{what} after {seconds:.0} s"),
            None => format!("not {what} yet"),
        };
        let wrong = match self.wrong_causes {
            0 => String::new(),
            causes => format!(" ({causes} wrong before)"),
        };
        format!(
            "cause {}{wrong}, clients {}, {}",
            after("named", self.detect),
            after("served again", self.mitigate),
            after("proved", self.prove),
        )
    }
}

/// The outcome of a hidden check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub name: String,
    pub passed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    Start(Start),
    Grade {
        checks: Vec<Outcome>,
        /// How many hints had been taken.
        hints: usize,
        /// How many tests the work has in addition to those of the start; none in an incident.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tests_added: Option<i64>,
        /// Of an incident.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        times: Option<Times>,
        /// How long grading took.
        seconds: f64,
    },
    Hint {
        number: usize,
        title: String,
    },
    /// The cause of an incident, as the candidate sees it.
    Cause {
        cause: String,
        evidence: String,
    },
    End,
}

/// An event with its time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    #[serde(with = "time::serde::rfc3339")]
    pub time: OffsetDateTime,
    #[serde(flatten)]
    pub event: Event,
    /// The commit with the files of that moment.
    #[serde(skip)]
    pub commit: String,
}

/// A record.
pub struct Record<'a> {
    git: &'a Git,
    pub id: String,
    pub start: Start,
    /// At least its start.
    pub entries: Vec<Entry>,
}

impl<'a> Record<'a> {
    /// Starts the record of an exercise that has just started.
    pub fn begin(git: &'a Git, active: &ActiveExercise, candidate: Option<&str>, minutes: Option<u32>) -> Result<Self> {
        let start = Start {
            exercise: active.name.clone(),
            kit: active.kit.clone(),
            start: active.start.clone(),
            candidate: candidate.map(str::to_owned),
            minutes,
            incident: false,
        };
        let tree = git.run(["rev-parse", &format!("{}^{{tree}}", active.start)])?;
        // Also if it was started without a session, and this is its first event.
        let began = git.run(["show", "--no-patch", "--format=%cI", &active.start])?;
        let record = Self::start_at(git, start, &tree, OffsetDateTime::parse(&began, &Rfc3339)?)?;
        git.run(["config", "--local", &active.setting(SETTING), &record.id])?;
        Ok(record)
    }

    /// Starts a record with the files of a tree.
    pub fn start(git: &'a Git, start: Start, tree: &str) -> Result<Self> {
        Self::start_at(git, start, tree, now())
    }

    fn start_at(git: &'a Git, start: Start, tree: &str, began: OffsetDateTime) -> Result<Self> {
        let day = now().format(format_description!("[year][month][day]-[hour][minute][second]"))?;
        let candidate = slug(start.candidate.as_deref().unwrap_or_default());
        let id = [start.exercise.as_str(), &candidate, &day];
        let id: Vec<&str> = id.into_iter().filter(|part| !part.is_empty()).collect();
        let mut record = Self {
            git,
            id: id.join("-"),
            start: start.clone(),
            entries: Vec::new(),
        };
        record.add_at(tree, Event::Start(start), began)?;
        Ok(record)
    }

    /// The record of an active exercise, if it has one.
    pub fn of(git: &'a Git, active: &ActiveExercise) -> Result<Option<Self>> {
        match git.setting(&active.setting(SETTING)) {
            Some(id) => Self::open(git, &id).map(Some),
            None => Ok(None),
        }
    }

    /// The record of an active exercise. Without a session it is created with the first event.
    pub fn of_or_begin(git: &'a Git, active: &ActiveExercise) -> Result<Self> {
        match Self::of(git, active)? {
            Some(record) => Ok(record),
            None => Self::begin(git, active, None, None),
        }
    }

    /// Reads a record if it can be read: somebody else's may be of a newer version.
    pub fn readable(git: &'a Git, id: &str) -> Option<Self> {
        Self::open(git, id)
            .inspect_err(|error| terminal::say(&format!("  ! record     {error:#}")))
            .ok()
    }

    /// Reads a record.
    pub fn open(git: &'a Git, id: &str) -> Result<Self> {
        let ids = ids(git)?;
        ensure!(
            ids.iter().any(|known| known == id),
            "there is no record {id:?}, only these: {}",
            if ids.is_empty() {
                "none yet".to_owned()
            } else {
                ids.join(", ")
            }
        );
        let log = git.run(["log", "--reverse", "--format=%H %s", &format!("{REFS}{id}")])?;
        let entries = log.lines().map(|line| {
            let (commit, json) = line.split_once(' ').context("a commit without a message")?;
            let mut entry: Entry = serde_json::from_str(json)?;
            entry.commit = commit.to_owned();
            Ok(entry)
        });
        let entries = entries
            .collect::<Result<Vec<_>>>()
            .with_context(|| format!("the record {id} is not readable"))?;
        let Some(Event::Start(start)) = entries.first().map(|entry| entry.event.clone()) else {
            anyhow::bail!("the record {id} has no start");
        };
        let id = id.to_owned();
        Ok(Self {
            git,
            id,
            start,
            entries,
        })
    }

    /// The named record, or else that of the exercise that is checked out, or else the latest.
    pub fn find(git: &'a Git, id: Option<&str>) -> Result<Self> {
        if let Some(id) = id {
            return Self::open(git, id);
        }
        let active = ActiveExercise::find(git, None).ok();
        if let Some(record) = active.map(|active| Self::of(git, &active)).transpose()?.flatten() {
            return Ok(record);
        }
        let latest = ids(git)?.pop();
        let latest = latest.context(
            "nothing has been recorded yet: a session starts with make session N=<exercise> CANDIDATE=<name>",
        )?;
        Self::open(git, &latest)
    }

    /// Adds an event, with the files of a tree.
    pub fn add(&mut self, tree: &str, event: Event) -> Result<()> {
        self.add_at(tree, event, now())
    }

    fn add_at(&mut self, tree: &str, event: Event, time: OffsetDateTime) -> Result<()> {
        let mut entry = Entry {
            time,
            event,
            commit: String::new(),
        };
        let json = serde_json::to_string(&entry)?;
        let parent = self.entries.last().map(|entry| entry.commit.as_str());
        entry.commit = self.git.make_commit(tree, parent, &json)?;
        // Fails if another command has added an event in the meantime.
        self.git.run([
            "update-ref",
            &format!("{REFS}{}", self.id),
            &entry.commit,
            parent.unwrap_or("0000000000000000000000000000000000000000"),
        ])?;
        self.entries.push(entry);
        Ok(())
    }

    /// True unless it has ended.
    pub fn is_open(&self) -> bool {
        !self.entries.iter().any(|entry| entry.event == Event::End)
    }

    /// How many hints have been taken.
    pub fn hints(&self) -> usize {
        let hints = self
            .entries
            .iter()
            .filter(|entry| matches!(entry.event, Event::Hint { .. }));
        hints.count()
    }

    /// When it started.
    pub fn started(&self) -> OffsetDateTime {
        self.entries[0].time
    }

    /// The minutes from its start to this time.
    pub fn minutes_to(&self, time: OffsetDateTime) -> f64 {
        (time - self.started()).as_seconds_f64() / 60.0
    }

    /// The clock, if it has a time box: `23 of 60 minutes, until 15:05 UTC`
    pub fn clock(&self) -> Option<String> {
        let minutes = self.start.minutes?;
        let until = self.started() + time::Duration::minutes(minutes.into());
        let until = until.format(format_description!("[hour]:[minute] UTC")).ok()?;
        let gone = self.minutes_to(now()).floor();
        Some(match gone < minutes.into() {
            true => format!("{gone} of {minutes} minutes, until {until}"),
            false => format!("{gone} of {minutes} minutes: the time box ended at {until}"),
        })
    }

    /// Who it is about.
    pub fn candidate(&self) -> &str {
        self.start.candidate.as_deref().unwrap_or("no candidate")
    }

    /// The graded states: number of checks passed, and of checks.
    pub fn grades(&self) -> impl Iterator<Item = (&Entry, usize, usize)> {
        self.entries.iter().filter_map(|entry| match &entry.event {
            Event::Grade { checks, .. } => {
                Some((entry, checks.iter().filter(|check| check.passed).count(), checks.len()))
            }
            _ => None,
        })
    }

    /// Told after a grade.
    pub fn say_graded(&self) {
        let clock = self.clock().map(|clock| format!(" ({clock})")).unwrap_or_default();
        terminal::say(&format!(
            "  ✓ record     grade {} of {}{clock}",
            self.grades().count(),
            self.id
        ));
    }

    /// True once a grade has passed all checks.
    pub fn is_passed(&self) -> bool {
        self.grades().any(|(_, passed, all)| passed == all && all > 0)
    }
}

/// The time, in whole seconds.
pub fn now() -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    now.replace_nanosecond(0).unwrap_or(now)
}

/// `2026-11-28T14:02:11Z`
pub fn rfc3339(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_default()
}

/// The ids of all records, oldest first.
pub fn ids(git: &Git) -> Result<Vec<String>> {
    let refs = git.run(["for-each-ref", "--format=%(refname)", REFS])?;
    let mut ids: Vec<String> = refs
        .lines()
        .filter_map(|name| Some(name.strip_prefix(REFS)?.to_owned()))
        .collect();
    // By their times, at the end of the ids.
    ids.sort_by_key(|id| id[id.len().saturating_sub(15)..].to_owned());
    Ok(ids)
}

/// A name as a part of a ref or a file name: lower-case letters, digits and hyphens.
pub fn slug(name: &str) -> String {
    let lower = name.to_lowercase();
    let parts = lower.split(|character: char| !character.is_alphanumeric());
    let parts: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
    parts.join("-").chars().take(40).collect()
}

/// The outcomes of checks, to be recorded.
pub fn outcomes(checks: &[Check]) -> Vec<Outcome> {
    let outcomes = checks.iter().map(|check| Outcome {
        name: check.name.clone(),
        passed: check.passed(),
        reason: check.reason().map(str::to_owned),
    });
    outcomes.collect()
}

/// Records a grade of a tree. A record that cannot be written does not fail the grade.
pub fn grade(git: &Git, active: &ActiveExercise, tree: &str, seconds: f64, checks: &[Check]) {
    if let Err(error) = try_grade(git, active, tree, seconds, outcomes(checks)) {
        terminal::say(&format!("  ✗ record     this grade was not recorded: {error:#}"));
    }
}

fn try_grade(git: &Git, active: &ActiveExercise, tree: &str, seconds: f64, checks: Vec<Outcome>) -> Result<()> {
    let mut record = Record::of_or_begin(git, active)?;
    let event = Event::Grade {
        checks,
        hints: record.hints(),
        tests_added: Some(tests_added(git, &active.start, tree)?),
        times: None,
        seconds: (seconds * 10.0).round() / 10.0,
    };
    record.add(tree, event)?;
    record.say_graded();
    Ok(())
}

/// How many tests a tree has in addition to those of the start.
fn tests_added(git: &Git, start: &str, tree: &str) -> Result<i64> {
    let diff = git.diff(start, tree, ".sqlx")?;
    let is_test = |line: &str| {
        let line = line.trim();
        line == "#[test]" || line.starts_with("#[tokio::test") || line.starts_with("#[sqlx::test")
    };
    let change = diff.lines().map(|line| match line.split_at_checked(1) {
        Some(("+", line)) if is_test(line) => 1,
        Some(("-", line)) if is_test(line) => -1,
        _ => 0,
    });
    Ok(change.sum())
}

/// Records the end of an exercise, with the work as it was left.
pub fn end(git: &Git, active: &ActiveExercise, work: &str) -> Result<Option<String>> {
    let Some(mut record) = Record::of(git, active)? else {
        return Ok(None);
    };
    if record.is_open() {
        let tree = git.run(["rev-parse", &format!("{work}^{{tree}}")])?;
        record.add(&tree, Event::End)?;
    }
    Ok(Some(record.id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exercises::{self, tests};

    #[test]
    fn grades_are_commits_with_checks_hints_and_tests() {
        let folder = tests::repository("recorded");
        exercises::begin(&tests::settings(&folder), Some("broken")).expect("it begins");
        let git = Git::open(&folder).expect("a repository");
        let active = ActiveExercise::find(&git, None).expect("it is active");
        let hint = Event::Hint {
            number: 1,
            title: "where".to_owned(),
        };
        let mut record = Record::begin(&git, &active, Some("Ana"), Some(45)).expect("it begins");
        let start = git.run(["rev-parse", "HEAD^{tree}"]).expect("a tree");
        record.add(&start, hint).expect("it is added");
        tests::write(
            &folder,
            "tests/new.rs",
            "#[test]\nfn one() {}\n    #[tokio::test]\nasync fn two() {}\n",
        );
        let tree = git
            .index()
            .and_then(|index| index.of_working_tree()?.tree())
            .expect("a tree");
        let checks = [
            Check::ok("apes_climb"),
            Check::failed("cats_sleep", "it did not finish"),
        ];
        grade(&git, &active, &tree, 7.46, &checks);

        let read = Record::open(&git, &record.id).expect("it is read");
        let Some(entry) = read.entries.last() else {
            panic!("no entry")
        };
        let expected = Event::Grade {
            checks: vec![
                Outcome {
                    name: "apes_climb".to_owned(),
                    passed: true,
                    reason: None,
                },
                Outcome {
                    name: "cats_sleep".to_owned(),
                    passed: false,
                    reason: Some("it did not finish".to_owned()),
                },
            ],
            hints: 1,
            tests_added: Some(2),
            times: None,
            seconds: 7.5,
        };
        assert_eq!(entry.event, expected);
        assert_eq!(
            git.run(["rev-parse", &format!("{}^{{tree}}", entry.commit)]).ok(),
            Some(tree)
        );
        assert_eq!((read.hints(), read.is_open(), read.is_passed()), (1, true, false));
        // The command that lost the race fails, and takes nothing away.
        let lost = record.add(&start, Event::End).expect_err("it is not the latest");
        assert!(format!("{lost:#}").contains("cannot lock ref"), "{lost:#}");
        assert!(Record::open(&git, &record.id).is_ok_and(|record| record.is_open()));
    }
}
