//! Checks that each question in INTERVIEW_QUESTIONS.md is complete, and that the plans add up. (Its
//! links are checked with those of the other documents.)

use std::collections::BTreeMap;

use support::documents::{anchors, file, links, symbol};

const PATH: &str = "INTERVIEW_QUESTIONS.md";

const LEVELS: [&str; 3] = ["junior (0-2 years)", "mid (2-5 years)", "senior (5+ years)"];

/// The sections, and the minimum number of questions in each.
const SECTIONS: [(&str, usize); 7] = [
    ("Rust and async", 6),
    ("Lambda and the execution environment", 6),
    ("API Gateway, SQS and event-driven design", 6),
    ("Postgres and sqlx", 6),
    ("IaC, IAM and security", 6),
    ("Operations and cost", 3),
    ("System design", 3),
];

/// The plans' lengths and levels.
const PLANS: [(u32, &str); 3] = [(45, "junior"), (60, "mid"), (90, "senior")];

/// The titles and texts of the chapters at this heading depth.
fn chapters<'a>(document: &'a str, heading: &str) -> Vec<(&'a str, &'a str)> {
    let mut starts: Vec<usize> = ["\n# ", "\n## ", "\n### "]
        .iter()
        .flat_map(|mark| document.match_indices(mark).map(|(at, _)| at + 1))
        .collect();
    starts.sort_unstable();
    let depth = |at: usize| document[at..].bytes().take_while(|byte| *byte == b'#').count();
    let mut chapters = Vec::new();
    for (number, &start) in starts
        .iter()
        .enumerate()
        .filter(|(_, start)| depth(**start) == heading.len())
    {
        let end = starts[number + 1..].iter().find(|&&next| depth(next) <= heading.len());
        let chapter = &document[start + heading.len() + 1..end.copied().unwrap_or(document.len())];
        chapters.push(chapter.split_once('\n').expect("a heading is not the last line"));
    }
    chapters
}

/// Everything that is wrong with the document.
fn mistakes(document: &str, readme: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let sections = chapters(document, "##");
    // The minutes of each question.
    let mut times: BTreeMap<usize, u32> = BTreeMap::new();
    for (section, minimum) in SECTIONS {
        let Some((_, text)) = sections.iter().find(|(title, _)| *title == section) else {
            wrong.push(format!("there is no section {section}"));
            continue;
        };
        let questions = chapters(text, "###");
        if questions.len() < minimum {
            wrong.push(format!("{section} has {} questions of {minimum}", questions.len()));
        }
        let first = times.len() + 1;
        for (title, question) in questions {
            let number = times.len() + 1;
            if !title.starts_with(&format!("Question {number}: ")) {
                wrong.push(format!("{title:?} is number {number}"));
            }
            wrong.extend(
                mistakes_of(question)
                    .into_iter()
                    .map(|what| format!("question {number}: {what}")),
            );
            times.insert(number, minutes(question).unwrap_or_default());
        }
        let contents = format!("[{section}](#{}): {first} to {}\n", slug(section), times.len());
        if !document.contains(&contents) {
            wrong.push(format!("the contents lack {contents:?}"));
        }
    }

    if times.len() < 36 {
        wrong.push(format!("there are {} questions of 36", times.len()));
    }
    for chapter in ["Rubric", "Plans", "Scorecard"] {
        if !sections.iter().any(|(title, _)| *title == chapter) {
            wrong.push(format!("there is no {chapter}"));
        }
    }
    let plans = sections
        .iter()
        .find(|(title, _)| *title == "Plans")
        .map(|(_, text)| *text);
    let plans = chapters(plans.unwrap_or_default(), "###");
    for (length, level) in PLANS {
        let name = format!("Plan: {length} minutes, {level}");
        match plans.iter().find(|(title, _)| *title == name) {
            Some((_, plan)) => wrong.extend(
                mistakes_of_plan(plan, length, &times)
                    .into_iter()
                    .map(|what| format!("{name}: {what}")),
            ),
            None => wrong.push(format!("there is no {name}")),
        }
    }
    let link = format!("[{PATH}]({PATH}): {} questions", times.len());
    if !readme.contains(&link) {
        wrong.push(format!("the README lacks {link:?}"));
    }
    wrong
}

fn slug(heading: &str) -> String {
    anchors(&format!("# {heading}\n")).pop_first().expect("one heading")
}

fn minutes(question: &str) -> Option<u32> {
    let (level, time) = question
        .lines()
        .nth(1)?
        .strip_prefix("**Level:** ")?
        .split_once(" · **Time:** ")?;
    let minutes = time.strip_suffix(" minutes")?.parse().ok()?;
    LEVELS.contains(&level).then_some(minutes)
}

/// Everything that is wrong with one question.
fn mistakes_of(question: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if minutes(question).is_none_or(|minutes| minutes == 0) {
        wrong.push("no level, or no time".to_owned());
    }
    let parts = [
        "**Question.** ",
        "**A strong answer**\n\n- ",
        "**A weak answer** ",
        "**Follow-up.** ",
        "**Code:** ",
    ];
    let mut rest = question;
    for (number, part) in parts.iter().enumerate() {
        let Some((_, after)) = rest.split_once(&format!("\n\n{part}")) else {
            wrong.push(format!("no {}, or not in its place", part.trim()));
            continue;
        };
        rest = after;
        let next = parts
            .get(number + 1)
            .map(|next| format!("\n\n{}", next.trim_end_matches("\n\n- ")));
        let text = next.and_then(|next| Some(after.split_once(&next)?.0)).unwrap_or(after);
        if text.trim().len() < 30 {
            wrong.push(format!("nothing in {}", part.trim()));
        }
        if part.contains("strong") && text.matches("\n- ").count() < 2 {
            wrong.push("a strong answer has fewer than three points".to_owned());
        }
    }
    let named = links(PATH, rest)
        .into_iter()
        .filter(|(text, path, _)| symbol(text, path).is_some());
    if named.count() < 2 {
        wrong.push("fewer than two links to items".to_owned());
    }
    wrong
}

/// Everything that is wrong with a plan: its rows must be questions with their times, and add up to
/// its length.
fn mistakes_of_plan(plan: &str, length: u32, times: &BTreeMap<usize, u32>) -> Vec<String> {
    let mut wrong = Vec::new();
    let (mut sum, mut asked) = (0, Vec::new());
    for row in plan.lines() {
        let Some((minutes, what)) = row
            .strip_prefix("| ")
            .and_then(|row| row.strip_suffix(" |")?.split_once(" | "))
        else {
            continue;
        };
        let Ok(minutes) = minutes.parse::<u32>() else { continue };
        sum += minutes;
        let Some(number) = what.strip_prefix("Question ") else {
            continue;
        };
        let number = number.parse().unwrap_or_default();
        if times.get(&number) != Some(&minutes) {
            wrong.push(format!("there is no question {number} of {minutes} minutes"));
        }
        if asked.contains(&number) {
            wrong.push(format!("question {number} is asked twice"));
        }
        asked.push(number);
    }
    if sum != length {
        wrong.push(format!("it takes {sum} minutes"));
    }
    if asked.len() < 5 {
        wrong.push(format!("it asks {} questions", asked.len()));
    }
    wrong
}

fn document() -> (String, String) {
    (
        file(PATH).expect("the questions"),
        file("README.md").expect("the README"),
    )
}

#[test]
fn questions_are_complete_and_plans_add_up() {
    let (document, readme) = document();
    assert_eq!(mistakes(&document, &readme), [""; 0]);
}

#[test]
fn invalid_questions_and_plans_are_detected() {
    let (document, readme) = document();
    for (right, wrong) in [
        ("## Rust and async\n", "## Rust\n"),
        ("### Question 2: ", "### Question 3: "),
        ("### Question 46: ", "### Exercise: "),
        ("## Rubric", "## Rubrics"),
        ("## Scorecard", "## Score"),
        ("**Level:** mid (2-5 years)", "**Level:** expert"),
        ("**Time:** 5 minutes", "**Time:** soon"),
        ("**Question.** ", "**Task.** "),
        ("**A strong answer**\n", "**An answer**\n"),
        ("**A weak answer** ", "A weak answer "),
        ("**Follow-up.** ", ""),
        ("**Code:** ", "Code: "),
        (
            "[`check`](shared/core/src/domain/text.rs),\n[`tasks_title_length`](migrations/0001_tasks.sql)",
            "",
        ),
        ("(#rust-and-async): 1 to 7", "(#rust-and-async): 1 to 6"),
        ("### Plan: 60 minutes, mid", "### Plan: an hour"),
        ("| 5 | Question 1 |", "| 4 | Question 1 |"),
        ("| 5 | Question 1 |", "| 5 | Question 47 |"),
        ("| 5 | Question 1 |", "| 5 | Question 2 |"),
        ("| 5 | The candidate's questions |", "| 6 | The candidate's questions |"),
    ] {
        assert!(document.contains(right), "{right:?} is missing");
        let document = document.replacen(right, wrong, 1);
        assert!(!mistakes(&document, &readme).is_empty(), "{wrong:?}");
    }
    assert!(!mistakes(&document, "").is_empty(), "the README does not link it");
}
