//! Exercises whose result is a text: a review. Its findings are compared with a key, without
//! compiling or starting anything.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::{
    git::Git,
    report::Check,
    words::{is_mentioned, plain},
};

/// How many lines a finding may be off.
const TOLERANCE: usize = 3;

const SEVERITIES: [&str; 3] = ["blocking", "important", "nit"];

/// What a review should find: key.toml.
#[derive(Deserialize)]
pub struct Key {
    /// The review.
    file: String,
    /// The most findings: a review that names every line helps no one.
    most: usize,
    defects: Vec<Defect>,
    /// Code that looks wrong but is right.
    decoys: Vec<Place>,
}

/// A planted defect.
#[derive(Deserialize)]
struct Defect {
    name: String,
    /// The severities that fit it.
    severities: Vec<String>,
    /// A reason names its effect with a word of each of these groups: see [`is_mentioned`].
    effect: Vec<Vec<String>>,
    /// Where a finding may name it.
    places: Vec<Place>,
}

/// A part of the pull request: a file, and texts in the part's first and last lines.
#[derive(Deserialize)]
struct Place {
    file: String,
    first: String,
    last: String,
}

/// A line of the review.
struct Finding {
    path: String,
    line: usize,
    severity: String,
    /// In its plain spelling.
    reason: String,
}

/// A review, and the code that it is about.
pub struct Review<'a> {
    git: &'a Git,
    key: &'a Key,
    /// The reviewed code: the start of the exercise, whatever has happened to it since.
    start: &'a str,
    /// The start with the review.
    tree: &'a str,
    findings: Vec<Finding>,
    /// Lines that are not findings.
    other: Vec<String>,
}

impl Key {
    pub fn parse(text: &str) -> Result<Self> {
        let key: Self = toml::from_str(text).context("the key of the review is not readable")?;
        let known = |severity: &String| SEVERITIES.contains(&severity.as_str());
        ensure!(
            key.defects.iter().all(|defect| defect.severities.iter().all(known)),
            "a severity in the key is none of {SEVERITIES:?}"
        );
        Ok(key)
    }

    /// The defects whose effect is named by a reason, in its plain spelling. None if they are more
    /// than half of all: such a reason enumerates. A thorough one names some effects of others.
    fn explained(&self, reason: &str) -> Vec<usize> {
        let says = |words: &Vec<String>| words.iter().any(|words| is_mentioned(reason, words));
        let defects = self.defects.iter().enumerate();
        let explained = defects.filter(|(_, defect)| defect.effect.iter().all(says));
        let explained: Vec<usize> = explained.map(|(number, _)| number).collect();
        match explained.len() > self.defects.len() / 2 {
            true => Vec::new(),
            false => explained,
        }
    }
}

impl<'a> Review<'a> {
    /// Reads the review in a tree.
    pub fn read(git: &'a Git, key: &'a Key, start: &'a str, tree: &'a str) -> Self {
        let text = git.file(tree, &key.file).unwrap_or_default();
        let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with(['#', '<', '>']));
        let (mut findings, mut other) = (Vec::new(), Vec::new());
        for (number, line) in lines {
            match finding(line) {
                Some(finding) => findings.push(finding),
                None => other.push(format!("line {number}: {line}")),
            }
        }
        Self {
            git,
            key,
            start,
            tree,
            findings,
            other,
        }
    }

    /// The checks. They tell how many defects are named, not which: a line could be tried after the
    /// other otherwise.
    pub fn checks(&self) -> Result<Vec<Check>> {
        let mut checks = vec![Check::of("every_line_of_the_review_is_a_finding", &self.other)];
        let (count, most) = (self.findings.len(), self.key.most);
        let too_many = (count > most).then(|| format!("it has {count}"));
        let name = format!("review_has_at_most_{most}_findings");
        checks.push(Check::of(&name, too_many.as_slice()));
        let but_review = format!(":(exclude){}", self.key.file);
        let changed = self.git.differing(self.start, self.tree, &[".", &but_review])?;
        checks.push(Check::of("only_the_review_is_changed", &changed));
        let mut wrong = Vec::new();
        for finding in self.findings.iter().filter(|finding| finding.severity == "blocking") {
            if self.is_decoy(finding)? {
                wrong.push(format!("{}:{}", finding.path, finding.line));
            }
        }
        checks.push(Check::of("nothing_correct_is_called_blocking", &wrong));
        // No count of a review with more findings than it may have.
        let named = self.named()?.iter().filter(|is_named| **is_named).count();
        let named = if count > most { 0 } else { named };
        let all = self.key.defects.len();
        for (wanted, name) in [
            (all / 3, format!("review_names_{}_of_{all}_defects", all / 3)),
            (all / 2, format!("review_names_{}_of_{all}_defects", all / 2)),
            (all * 3 / 4, format!("review_names_{}_of_{all}_defects", all * 3 / 4)),
            (all, format!("review_names_all_{all}_defects")),
        ] {
            let reason = format!(
                "it names {named} at their places, with a severity that fits, and what would happen because of them"
            );
            checks.push(match named >= wanted {
                true => Check::ok(&name),
                false => Check::failed(&name, reason),
            });
        }
        Ok(checks)
    }

    /// The whole key, and which of its defects the review names. For the end of an exercise.
    pub fn solution(&self) -> Result<String> {
        let mut text = String::new();
        for (defect, is_named) in self.key.defects.iter().zip(self.named()?) {
            let place = &defect.places[0];
            let (line, _) = self.lines(place)?;
            let mark = if is_named { '✓' } else { '✗' };
            text += &format!("  {mark} {}\n      {}:{line}\n", defect.name, place.file);
        }
        Ok(text)
    }

    /// For each defect, whether a finding names it.
    fn named(&self) -> Result<Vec<bool>> {
        let mut named = vec![false; self.key.defects.len()];
        for finding in &self.findings {
            if let Some(defect) = self.defect(finding)? {
                named[defect] = true;
            }
        }
        Ok(named)
    }

    /// The defect that a finding names: the nearest one whose effect is the finding's reason.
    fn defect(&self, finding: &Finding) -> Result<Option<usize>> {
        if self.is_decoy(finding)? {
            return Ok(None);
        }
        let mut nearest: Option<(usize, usize)> = None;
        for number in self.key.explained(&finding.reason) {
            let defect = &self.key.defects[number];
            if !defect.severities.contains(&finding.severity) {
                continue;
            }
            for place in &defect.places {
                if let Some(away) = self.distance(finding, place)?
                    && away <= TOLERANCE
                    && nearest.is_none_or(|(least, _)| away < least)
                {
                    nearest = Some((away, number));
                }
            }
        }
        Ok(nearest.map(|(_, number)| number))
    }

    fn is_decoy(&self, finding: &Finding) -> Result<bool> {
        for decoy in &self.key.decoys {
            if self.distance(finding, decoy)? == Some(0) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The number of lines between a finding and a place; `None` if it is in another file.
    fn distance(&self, finding: &Finding, place: &Place) -> Result<Option<usize>> {
        if finding.path != place.file {
            return Ok(None);
        }
        let (first, last) = self.lines(place)?;
        Ok(Some(match finding.line {
            line if line < first => first - line,
            line if line > last => line - last,
            _ => 0,
        }))
    }

    /// The first and the last line of a place.
    fn lines(&self, place: &Place) -> Result<(usize, usize)> {
        let text = self.git.file(self.start, &place.file).unwrap_or_default();
        let number = |part: &str| {
            let index = text.lines().position(|line| line.contains(part));
            index.map(|index| index + 1)
        };
        let found = number(&place.first).zip(number(&place.last));
        found.with_context(|| format!("{} does not have the lines of the key: {:?}", place.file, place.first))
    }
}

/// `path:line | severity | what and why`; a range of lines is also accepted, as in `path:12-18`.
fn finding(text: &str) -> Option<Finding> {
    let text = text.trim_start_matches(['-', '*', ' ']);
    let (place, rest) = text.split_once('|')?;
    let (severity, reason) = rest.split_once('|')?;
    let (path, line) = place.trim().trim_matches('`').rsplit_once(':')?;
    let severity = severity.trim().to_lowercase();
    let is_known = SEVERITIES.contains(&&*severity);
    let line = line.split('-').next()?.trim().parse().ok()?;
    let path = path.trim_start_matches("./").to_owned();
    (is_known && !reason.trim().is_empty()).then(|| Finding {
        path,
        line,
        severity,
        reason: plain(reason),
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::exercises::tests::{repository, run, write};

    const KEY: &str = r#"
        file = "review.md"
        most = 3
        decoys = [{ file = "code.txt", first = "right", last = "right" }]
        [[defects]]
        name = "it leaks"
        severities = ["blocking"]
        effect = [["leak*", "drip*"], ["water"]]
        places = [{ file = "code.txt", first = "pipe", last = "pipe" }]
        [[defects]]
        name = "it burns"
        severities = ["blocking", "important"]
        effect = [["fire"]]
        places = [{ file = "code.txt", first = "stove", last = "stove" }]
        [[defects]]
        name = "it falls"
        severities = ["important"]
        effect = [["fall*"]]
        places = [{ file = "code.txt", first = "ladder", last = "ladder" }]
        [[defects]]
        name = "it stings"
        severities = ["important"]
        effect = [["sting*"]]
        places = [{ file = "code.txt", first = "bee", last = "bee" }]
    "#;

    /// The checks that a review fails.
    fn failed(test: &str, review: &str) -> Vec<String> {
        let folder = repository(test);
        let gap = "\n".repeat(10);
        write(
            &folder,
            "code.txt",
            &["pipe", "stove", "ladder", "bee", "right"].join(&gap),
        );
        run(&folder, &["add", "--all"]);
        let start = run(&folder, &["write-tree"]);
        write(&folder, "review.md", review);
        run(&folder, &["add", "--all"]);
        let tree = run(&folder, &["write-tree"]);
        let (git, key) = (
            Git::open(&folder).expect("a repository"),
            Key::parse(KEY).expect("a key"),
        );
        let checks = Review::read(&git, &key, &start, &tree).checks().expect("checks");
        let failed = checks.iter().filter(|check| !check.passed());
        failed.map(|check| check.name.clone()).collect()
    }

    #[test]
    fn finding_needs_place_severity_and_effect() {
        let [one, two, three, all] = [1, 2, 3, 4].map(|count| match count {
            4 => "review_names_all_4_defects".to_owned(),
            _ => format!("review_names_{count}_of_4_defects"),
        });
        let none = [one.clone(), two.clone(), three.clone(), all.clone()];
        for (what, review) in [
            ("no effect", "code.txt:1 | blocking | x"),
            ("half of the effect", "code.txt:1 | blocking | water is wet"),
            ("a severity that does not fit", "code.txt:1 | nit | it leaks water"),
            ("too far away", "code.txt:5 | blocking | it leaks water"),
            ("another file", "other.txt:1 | blocking | it leaks water"),
            ("the effect of another defect", "code.txt:1 | blocking | fire"),
        ] {
            assert_eq!(failed("review", review), none, "{what}");
        }
        let review = "# Review\n\n- `code.txt:4` | Blocking | It LEAKS water\ncode.txt:11-12 | important | fire!";
        assert_eq!(failed("review", review), [three, all]);
    }

    #[test]
    fn spread_lines_decoys_and_other_text_are_failures() {
        let lines = |count: usize, reason: &str| {
            let lines = (0..count).map(|line| format!("code.txt:{} | blocking | {reason}\n", line * 10 + 1));
            lines.collect::<String>()
        };
        let many = failed("spread", &lines(4, "leaking water, fire, falls, stings"));
        assert_eq!(many[0], "review_has_at_most_3_findings");
        assert_eq!(many.len(), 5, "and none is counted: {many:?}");
        let decoy = failed("spread", "code.txt:41 | blocking | fire\nnot a finding");
        assert_eq!(
            decoy[..2],
            [
                "every_line_of_the_review_is_a_finding",
                "nothing_correct_is_called_blocking"
            ]
        );
        assert!(!failed("spread", "code.txt:41 | nit | fire").contains(&"nothing_correct_is_called_blocking".into()));
    }

    const ANSWERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../answers");

    /// reasons.toml, beside a key: hidden from candidates, as this file is not.
    #[derive(Deserialize)]
    struct Reasons {
        defects: Vec<Sentences>,
    }

    /// What reviewers might write at the place of a defect.
    #[derive(Deserialize)]
    struct Sentences {
        name: String,
        counts: Vec<String>,
        is_nonsense: Vec<String>,
    }

    #[test]
    fn reasons_count_in_the_words_of_many_and_nonsense_does_not() {
        // Within an exercise there are no answers.
        for folder in fs::read_dir(ANSWERS).into_iter().flatten() {
            let folder = folder.expect("an exercise").path();
            let read = |file: &str| fs::read_to_string(folder.join(file));
            let Ok(key) = read("key.toml") else { continue };
            let key = Key::parse(&key).expect("a key");
            let reasons: Reasons = toml::from_str(&read("reasons.toml").expect("sentences")).expect("a table");
            let names: Vec<&str> = reasons.defects.iter().map(|defect| &*defect.name).collect();
            let expected: Vec<&str> = key.defects.iter().map(|defect| &*defect.name).collect();
            assert_eq!(names, expected, "{}", folder.display());
            assert_graded(&key, &reasons.defects, &folder);
        }
    }

    fn assert_graded(key: &Key, defects: &[Sentences], folder: &Path) {
        let first = |number: usize| &*defects[number % defects.len()].counts[0];
        let mut wrong = Vec::new();
        for (number, defect) in defects.iter().enumerate() {
            // Its own effect is named, with those of two others.
            let thorough = [0, 1, 2].map(|next| first(number + next)).join(" ");
            let counts = defect.counts.iter().chain([&thorough]).map(|reason| (reason, true));
            let nonsense = defect.is_nonsense.iter().map(|reason| (reason, false));
            for (reason, expected) in counts.chain(nonsense) {
                if key.explained(&plain(reason)).contains(&number) != expected {
                    wrong.push(format!("{}: {reason}", defect.name));
                }
            }
        }
        assert!(wrong.is_empty(), "{}: {wrong:#?}", folder.display());
        let all: Vec<&str> = (0..defects.len()).map(first).collect();
        assert_eq!(key.explained(&plain(&all.join(" "))), [0; 0], "it enumerates");
    }
}
