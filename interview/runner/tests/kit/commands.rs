//! The commands about sessions, run in repositories with an exercise of one line.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Value, json};
use support::documents::file;

const PATCH: &str = "diff --git a/src.txt b/src.txt\n--- a/src.txt\n+++ b/src.txt\n@@ -1 +1 @@\n-FROM\n+TO\n";

const BRIEF: &str = "# Broken\n\n**Level:** mid (2-5 years) · **Kind:** debug\n\n## Time box\n\n60 minutes.\n";

const HINTS: &str = "# Broken: hints\n\n## Hint 1: where\n\nIn [src](../../../src.txt).\n\n\
                     ## Hint 2: how\n\nRead it.\n\n## Hint 3: what\n\nA word.\n";

/// A project with the exercises `broken` and `other`.
struct Project(PathBuf);

impl Project {
    fn new(test: &str) -> Self {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/xtask-tests");
        let project = Self(target.join("commands").join(test));
        let _ = fs::remove_dir_all(&project.0);
        for (path, text) in [
            (".gitignore", "/.local/\n"),
            ("src.txt", "right\n"),
            ("dev/xtask/Cargo.toml", ""),
        ] {
            project.write(path, text);
        }
        project.git(&["init", "--quiet", "--initial-branch", "main"]);
        project.commit("base");
        project.write("interview/BASE", &project.git(&["rev-parse", "HEAD"]));
        project.write(
            "interview/rubric.toml",
            &file("interview/rubric.toml").expect("the rubric"),
        );
        for name in ["broken", "other"] {
            let answers = format!("interview/answers/{name}");
            project.write(&format!("interview/briefs/{name}/README.md"), BRIEF);
            project.write(&format!("{answers}/hints.md"), HINTS);
            project.write(&format!("{answers}/notes.md"), "# Notes\n\nA <b>word</b>.\n");
            project.write(&format!("{answers}/grader.rs"), "// functions: a\n");
            let patch = |from: &str, to: &str| PATCH.replace("FROM", from).replace("TO", to);
            project.write(&format!("{answers}/start.patch"), &patch("right", "wrong"));
            project.write(&format!("{answers}/solution.patch"), &patch("wrong", "right again"));
        }
        project.commit("the kit");
        project
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().expect("a file")).expect("a folder");
        fs::write(path, text).expect("written");
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.0.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn git(&self, arguments: &[&str]) -> String {
        let mut git = Command::new("git");
        git.current_dir(&self.0)
            .args(["-c", "user.name=t", "-c", "user.email=t", "-c", "commit.gpgSign=false"]);
        text(git.args(arguments).output().expect("git starts"))
    }

    fn commit(&self, message: &str) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", message]);
    }

    /// A command with its variables, as make passes them.
    fn command(&self, name: &str, variables: &[(&str, &str)]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_interview"));
        for variable in [
            "N",
            "S",
            "CANDIDATE",
            "MINUTES",
            "INTERVIEWER",
            "INTERVIEWERS",
            "SCORES",
            "FROM",
            "CHECKS",
        ] {
            command.env_remove(variable);
        }
        command.current_dir(&self.0).arg(name).envs(variables.iter().copied());
        command.stdin(std::process::Stdio::null()).output().expect("it starts")
    }

    /// What a command prints.
    fn run(&self, name: &str, variables: &[(&str, &str)]) -> String {
        text(self.command(name, variables))
    }

    /// The error of a command that fails.
    fn refusal(&self, name: &str, variables: &[(&str, &str)]) -> String {
        let output = self.command(name, variables);
        assert!(!output.status.success(), "{name} {variables:?}: {output:?}");
        String::from_utf8(output.stderr).expect("text")
    }

    /// Starts a session and returns the id of its record.
    fn session(&self, candidate: &str) -> String {
        self.run(
            "session",
            &[("N", "broken"), ("CANDIDATE", candidate), ("MINUTES", "45")],
        );
        self.record()
    }

    /// The id of the only record.
    fn record(&self) -> String {
        let refs = self.git(&["for-each-ref", "--format=%(refname)", "refs/interview/"]);
        refs.strip_prefix("refs/interview/").expect("one record").to_owned()
    }

    /// The events of a record, without their times.
    fn events(&self, id: &str) -> Vec<Value> {
        let log = self.git(&["log", "--reverse", "--format=%B", &format!("refs/interview/{id}")]);
        let events = log.lines().filter(|line| !line.is_empty()).map(|line| {
            let mut event: Value = serde_json::from_str(line).expect("a line of JSON");
            let time = event.as_object_mut().expect("an object").remove("time");
            assert!(time.is_some_and(|time| time.as_str().is_some_and(|time| time.ends_with('Z'))));
            event
        });
        events.collect()
    }

    /// Records a grade of the current files, some minutes after the start.
    fn grade(&self, id: &str, minute: u64, checks: &[(&str, bool)]) {
        self.git(&["add", "--all"]);
        let tree = self.git(&["write-tree"]);
        let name = format!("refs/interview/{id}");
        let first = self.git(&["log", "--reverse", "--format=%s", &name]);
        let first: Value = serde_json::from_str(first.lines().next().expect("a start")).expect("JSON");
        let start = first["time"].as_str().expect("a time");
        let time = time::OffsetDateTime::parse(start, &time::format_description::well_known::Rfc3339).expect("a time")
            + std::time::Duration::from_secs(60 * minute);
        let time = time
            .format(&time::format_description::well_known::Rfc3339)
            .expect("a time");
        let checks: Vec<Value> = checks
            .iter()
            .map(|(name, passed)| match passed {
                true => json!({"name": name, "passed": true}),
                false => json!({"name": name, "passed": false, "reason": "<script>"}),
            })
            .collect();
        let event = json!({
            "time": time, "event": "grade", "checks": checks, "hints": 0, "tests_added": 1, "seconds": 7.5,
        });
        let parent = self.git(&["rev-parse", &name]);
        let commit = self.git(&["commit-tree", &tree, "-p", &parent, "-m", &event.to_string()]);
        self.git(&["update-ref", &name, &commit]);
    }
}

fn text(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

/// Scores of all rows as YAML.
fn rows(scores: [u8; 5]) -> String {
    let names = ["Diagnosis", "Solution", "Proof", "Judgment", "Communication"];
    let rows = names
        .iter()
        .zip(scores)
        .map(|(name, score)| format!("  - row: {name}\n    score: {score}\n    because: \"saw: {name}\"\n"));
    rows.collect()
}

#[test]
fn session_records_hints_and_end() {
    let project = Project::new("session");
    let printed = project.run("session", &[("N", "broken"), ("CANDIDATE", " Ana "), ("MINUTES", "45")]);
    let id = project.record();
    assert!(id.starts_with("broken-ana-2"), "{id}");
    for told in [
        "This session is recorded",
        "nothing leaves this machine",
        &id,
        "0 of 45 minutes, until ",
    ] {
        assert!(printed.contains(told), "{told}: {printed}");
    }
    assert!(!project.0.join("interview/answers").exists() && !project.0.join("interview/rubric.toml").exists());

    project.write("src.txt", "repaired\n");
    let hint = project.run("hint", &[]);
    assert!(hint.starts_with("Hint 1 of 3: where\n\nIn [src](src.txt).\n"), "{hint}");
    assert_eq!(
        project.git(&["status", "--porcelain"]),
        "M src.txt",
        "nothing is staged"
    );
    let ended = project.run("exercise-reset", &[]);
    assert!(ended.contains(&format!("make replay S={id}")), "{ended}");
    let events = project.events(&id);
    assert_eq!(
        (&events[0]["candidate"], &events[0]["minutes"], &events[0]["exercise"]),
        (&json!("Ana"), &json!(45), &json!("broken"))
    );
    assert_eq!(
        events[1..],
        [
            json!({"event": "hint", "number": 1, "title": "where"}),
            json!({"event": "end"})
        ]
    );
    let work = format!("refs/interview/{id}:src.txt");
    assert_eq!(project.git(&["show", &work]), "repaired");
}

#[test]
fn session_refuses_what_it_cannot_start() {
    let project = Project::new("refusals");
    for (variables, said) in [
        (&[][..], ["no exercise is named", "Available: broken, other"]),
        (&[("N", "broken")], ["needs the candidate's name", "CANDIDATE=Ana"]),
        (
            &[("N", "broken"), ("CANDIDATE", " ")],
            ["needs the candidate's name", "CANDIDATE=Ana"],
        ),
        (
            &[("N", "nothing"), ("CANDIDATE", "Ana")],
            ["no exercise \"nothing\"", "broken, other"],
        ),
        (
            &[("N", "broken"), ("CANDIDATE", "A\u{1b}[31m")],
            ["control characters", "name"],
        ),
        (
            &[("N", "broken"), ("CANDIDATE", "Ana"), ("MINUTES", "soon")],
            ["soon", "MINUTES"],
        ),
        (
            &[("N", "broken"), ("CANDIDATE", "Ana"), ("MINUTES", "0")],
            ["0", "1..=600"],
        ),
    ] {
        let refusal = project.refusal("session", variables);
        for said in said {
            assert!(refusal.contains(said), "{variables:?}: {refusal}");
        }
        assert_eq!(project.git(&["for-each-ref", "refs/interview/"]), "");
        assert_eq!(project.git(&["branch", "--show-current"]), "main");
    }
}

#[test]
fn second_session_is_refused_until_first_ends() {
    let project = Project::new("second");
    project.session("Ana");
    let clock = project.run("session", &[]);
    assert!(clock.starts_with("broken with Ana, 0 of 45 minutes"), "{clock}");
    project.git(&["switch", "--quiet", "main"]);
    let refusal = project.refusal("session", &[("N", "other"), ("CANDIDATE", "Bo")]);
    for said in [
        "a session is in progress: broken with Ana",
        "git switch exercise/broken",
        "make exercise-reset N=broken",
    ] {
        assert!(refusal.contains(said), "{refusal}");
    }
    project.run("exercise-reset", &[("N", "broken")]);
    project.run("session", &[("N", "other"), ("CANDIDATE", "Bo")]);
    project.git(&["switch", "--quiet", "main"]);
    project.git(&["branch", "--quiet", "-D", "exercise/other"]);
    project.run("session", &[("N", "broken"), ("CANDIDATE", "Cy")]);
}

#[test]
fn odd_names_are_recorded_verbatim() {
    for (number, (name, slug)) in [
        ("Zoë O'Neill; $(rm -rf .) ..", "broken-zoë-o-neill-rm-rf-2"),
        ("李小龍", "broken-李小龍-2"),
        ("🦀", "broken-2"),
        ("refs/heads/main.lock", "broken-refs-heads-main-lock-2"),
        ("<img src=x onerror=alert(1)>", "broken-img-src-x-onerror-alert-1-2"),
    ]
    .into_iter()
    .enumerate()
    {
        let project = Project::new(&format!("name-{number}"));
        let id = project.session(name);
        assert!(id.starts_with(slug), "{id}");
        assert_eq!(project.events(&id)[0]["candidate"], name);
        project.run("replay", &[("S", &id)]);
        let page = project.read(&format!(".local/interviews/{id}/report.html"));
        assert!(!page.contains("<img"), "{page}");
    }
}

#[test]
fn hints_are_recorded_without_a_session() {
    let project = Project::new("hints");
    assert!(project.refusal("hint", &[]).contains("make exercise N=<name>"));
    project.run("exercise", &[("N", "broken")]);
    for number in 1..=3 {
        assert!(project.run("hint", &[]).starts_with(&format!("Hint {number} of 3: ")));
    }
    let again = project.run("hint", &[]);
    assert!(
        again.starts_with("All 3 hints have been taken") && again.contains("Hint 1 of 3: where"),
        "{again}"
    );
    let events = project.events(&project.record());
    let hints: Vec<_> = events.iter().map(|event| event["number"].as_u64()).collect();
    assert_eq!(hints, [None, Some(1), Some(2), Some(3)]);
    assert_eq!(events[0].get("candidate"), None);
}

#[test]
fn replay_shows_checks_and_diffs_between_grades() {
    let project = Project::new("replay");
    let id = project.session("Ana");
    project.write("src.txt", "a <guess>\n");
    project.grade(&id, 5, &[("it_works", false), ("it_lasts", false)]);
    project.write("src.txt", "right again\n");
    project.grade(&id, 12, &[("it_works", true), ("it_lasts", false)]);
    let printed = project.run("replay", &[("S", &id)]);
    for line in [
        "    0.0  start",
        "    5.0  grade 1   0 of 2 checks passed; 1 test added; graded in 8 s",
        "         │ +a <guess>",
        "   12.0  grade 2   1 of 2 checks passed; 1 test added; graded in 8 s",
        "         ✓ it works",
        "         │ -a <guess>",
        "         │ +right again",
        "It has not ended: make exercise-reset ends it.",
    ] {
        assert!(printed.lines().any(|printed| printed == line), "{line}\n{printed}");
    }
    assert!(!printed.contains("it lasts"), "it has not changed: {printed}");
    assert_eq!(
        project.run("replay", &[]),
        printed,
        "within an exercise, its own record"
    );

    let page = project.read(&format!(".local/interviews/{id}/report.html"));
    for part in [
        "<td>it works</td>",
        "+a &lt;guess&gt;",
        "&lt;script&gt;",
        "prefers-color-scheme: dark",
        "@media print",
    ] {
        assert!(page.contains(part), "{part}");
    }
    for foreign in ["<guess>", "<script", "http://", "https://", "src=", "@import", "url("] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    let unknown = project.refusal("replay", &[("S", "nothing")]);
    assert!(
        unknown.contains("no record \"nothing\"") && unknown.contains(&id),
        "{unknown}"
    );
}

#[test]
fn replay_names_how_to_start_without_any_record() {
    let project = Project::new("nothing");
    for command in ["replay", "score"] {
        let refusal = project.refusal(command, &[]);
        assert!(
            refusal.contains("make session N=<exercise> CANDIDATE=<name>"),
            "{refusal}"
        );
    }
}

#[test]
fn scores_are_sealed_until_both_have_scored() {
    let project = Project::new("score");
    let id = project.session("Ana");
    project.run("hint", &[]);
    project.run("hint", &[]);
    project.run("exercise-reset", &[]);
    let score = |interviewer: &str, scores: [u8; 5]| {
        project.write(".local/scores.yaml", &format!("rows:\n{}", rows(scores)));
        project.run(
            "score",
            &[
                ("S", &id),
                ("INTERVIEWER", interviewer),
                ("SCORES", ".local/scores.yaml"),
            ],
        )
    };
    score("Bo", [1, 1, 1, 1, 1]);
    let sealed = score("Bo", [4, 3, 3, 3, 3]);
    assert!(
        sealed.contains("Your scores are sealed") && sealed.contains("1 more interviewer has"),
        "{sealed}"
    );
    project.run("replay", &[("S", &id)]);
    let report = format!(".local/interviews/{id}/report.html");
    assert!(!project.read(&report).contains("Scores"), "sealed");
    assert!(
        !project
            .0
            .join(format!(".local/interviews/{id}/scores-bo.yaml"))
            .exists()
    );

    let compared = score("Cy", [2, 3, 2, 3, 3]);
    for line in [
        "  Diagnosis      4   2   far apart: read the evidence, do not take the mean",
        "      2 Cy: saw: Diagnosis",
        "  Solution       3   3",
        "  Bo             average 3.2: yes",
        "  Cy             average 2.6: another interview",
        "  ! Bo: after hint 2, Diagnosis is at most 3",
        "The decision, that of the lower average, for a candidate of the exercise's level: another interview",
    ] {
        assert!(compared.lines().any(|printed| printed == line), "{line}\n{compared}");
    }
    let written = project.read(&format!(".local/interviews/{id}/scores-bo.yaml"));
    assert!(
        written.contains("interviewer: Bo") && written.contains("score: 4"),
        "{written}"
    );
    project.run("replay", &[("S", &id)]);
    assert!(project.read(&report).contains("<h2>Scores</h2>"));
    let late = project.refusal("score", &[("S", &id), ("INTERVIEWER", "Bo")]);
    assert!(late.contains("have been compared, and are final"), "{late}");
}

#[test]
fn incomplete_scores_are_refused() {
    let project = Project::new("incomplete");
    project.session("Ana");
    project.run("exercise-reset", &[]);
    let whole = rows([3; 5]);
    for (wrong, said) in [
        (
            format!("rows:\n{}", whole.replacen("score: 3", "score: 5", 1)),
            "Diagnosis: a score is 1, 2, 3 or 4, not 5",
        ),
        (
            format!("rows:\n{}", whole.replacen("row: Proof", "row: Speed", 1)),
            "the rows are Diagnosis, Solution, Speed",
        ),
        (
            format!("rows:\n{}", whole.replacen("\"saw: Proof\"", "\"\"", 1)),
            "Proof: a score needs an observation",
        ),
        ("rows: yes\n".to_owned(), "is not readable; it should be like\nrows:"),
        (whole.clone(), "is not readable"),
    ] {
        project.write(".local/scores.yaml", &wrong);
        let refusal = project.refusal("score", &[("INTERVIEWER", "Bo"), ("SCORES", ".local/scores.yaml")]);
        assert!(refusal.contains(said), "{said}: {refusal}");
    }
    let nameless = project.refusal("score", &[]);
    assert!(
        nameless.contains("make score INTERVIEWER=<name> SCORES=<file>.yaml"),
        "{nameless}"
    );
    assert_eq!(project.git(&["for-each-ref", "refs/interview-scores/"]), "");
}

#[test]
fn calibrate_names_distance_and_reference_reasons() {
    let project = Project::new("calibrate");
    for (kind, work, scores) in [
        ("weak", "start.patch", [1, 1, 1, 1, 1]),
        ("good", "solution.patch", [3, 3, 3, 3, 3]),
        ("excellent", "solution.patch", [4, 4, 4, 4, 4]),
    ] {
        let folder = format!("interview/answers/broken/samples/{kind}");
        project.write(
            &format!("{folder}/scores.yaml"),
            &format!("work: {work}\nrows:\n{}", rows(scores)),
        );
        project.write(&format!("{folder}/transcript.md"), "What they said.\n");
        project.write(&format!("{folder}/report.txt"), "  ✗ it <works>\n");
    }
    project.commit("samples");
    let unnamed = project.refusal("calibrate", &[]);
    assert!(unnamed.contains("With samples: broken"), "{unnamed}");
    let without = project.refusal("calibrate", &[("N", "other")]);
    assert!(
        without.contains("no samples of \"other\"") && without.contains(": broken"),
        "{without}"
    );

    let scores = ["A", "B", "C"].map(|letter| format!("{letter}:\n{}", rows([3; 5])));
    project.write(".local/scores.yaml", &scores.concat());
    let printed = project.run("calibrate", &[("N", "broken"), ("SCORES", ".local/scores.yaml")]);
    for part in [
        ": excellent\n  Diagnosis      3 (reference 4)  -1\n      you: saw: Diagnosis\n      reference: saw: Diagnosis\n",
        ": weak\n  Diagnosis      3 (reference 1)  +2\n",
        ": good\n  Diagnosis      3 (reference 3)\n  Solution       3 (reference 3)\n",
        "Mean distance: 1.00 per row; more generous than the reference by 0.33",
    ] {
        assert!(printed.contains(part), "{part}\n{printed}");
    }
    let page = project.read(".local/interviews/calibration/broken.html");
    for part in ["Submission C", "+right again", "✗ it &lt;works&gt;"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let (_, body) = page.split_once("<main>").expect("a body");
    for told in ["weak", "excellent", "good", "saw: "] {
        assert!(!body.contains(told), "the page reveals {told}");
    }
}

#[test]
fn learn_shows_progress_and_reference_after_a_pass() {
    let project = Project::new("learn");
    let list = project.run("learn", &[]);
    assert!(
        list.starts_with("0 of 2 exercises passed\n") && list.ends_with("Next: make exercise N=broken"),
        "{list}"
    );
    project.run("exercise", &[("N", "broken")]);
    project.run("hint", &[]);
    let id = project.record();
    project.write("src.txt", "half\n");
    project.grade(&id, 5, &[("it_works", true), ("it_lasts", false)]);
    let list = project.run("learn", &[]);
    assert!(
        list.contains("mid     debug    60 min  1 of 2 checks, 1 of 3 hints"),
        "{list}"
    );
    let early = project.refusal("learn", &[("N", "broken")]);
    assert!(early.contains("your best passed 1 of 2"), "{early}");

    project.write("src.txt", "mine\n");
    project.grade(&id, 9, &[("it_works", true), ("it_lasts", true)]);
    let list = project.run("learn", &[]);
    assert!(
        list.starts_with("1 of 2 exercises passed\n") && list.contains("✓ broken"),
        "{list}"
    );
    project.run("learn", &[("N", "broken")]);
    let page = project.read(".local/interviews/learn/broken.html");
    for part in ["+right again", "+mine", "A &lt;b&gt;word&lt;/b&gt;."] {
        assert!(page.contains(part), "{part}");
    }
    project.run("exercise-reset", &[]);
    assert!(project.run("learn", &[]).ends_with("Next: make exercise N=other"));
}

#[test]
fn graded_elsewhere_is_said_within_a_pack() {
    let project = Project::new("pack");
    let printed = project.run("pack", &[("N", "broken")]);
    assert!(
        printed.contains("make grade FROM=<archive, folder, or repository>"),
        "{printed}"
    );
    project.write("interview/exercise.toml", "name = \"broken\"\nkit = \"1\"\n");
    let refusal = project.refusal("grade", &[]);
    assert!(refusal.contains("the checks are with your interviewer"), "{refusal}");
}
