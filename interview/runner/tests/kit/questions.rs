//! Checks that each question is complete on both pages, that the candidates' page has no answers, and
//! that the plans add up. (Links are checked with those of the other documents.)

use std::collections::BTreeMap;

use support::documents::{anchors, file, links, symbol};

/// The candidates' page.
const PATH: &str = "INTERVIEW_QUESTIONS.md";

/// The interviewers' page, absent within an exercise.
const ANSWERS: &str = "interview/answers/questions.md";

/// What only the interviewers' page contains.
const HIDDEN: [&str; 7] = [
    "**a strong answer",
    "**a weak answer",
    "**follow-up",
    "- [ ]",
    "## rubric",
    "### plan",
    "scorecard\n",
];

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

/// The sections' questions in the order of their numbers, each with its title and text. Adds what is
/// wrong with sections, numbers and contents.
fn questions<'a>(document: &'a str, wrong: &mut Vec<String>) -> Vec<(&'a str, &'a str)> {
    let sections = chapters(document, "##");
    let mut all = Vec::new();
    for (section, minimum) in SECTIONS {
        let Some((_, text)) = sections.iter().find(|(title, _)| *title == section) else {
            wrong.push(format!("there is no section {section}"));
            continue;
        };
        let questions = chapters(text, "###");
        if questions.len() < minimum {
            wrong.push(format!("{section} has {} questions of {minimum}", questions.len()));
        }
        let first = all.len() + 1;
        for question in questions {
            all.push(question);
            if !question.0.starts_with(&format!("Question {}: ", all.len())) {
                wrong.push(format!("{:?} is number {}", question.0, all.len()));
            }
        }
        let contents = format!("[{section}](#{}): {first} to {}\n", slug(section), all.len());
        if !document.contains(&contents) {
            wrong.push(format!("the contents lack {contents:?}"));
        }
    }
    if all.len() < 36 {
        wrong.push(format!("there are {} questions of 36", all.len()));
    }
    all
}

/// Everything that is wrong with the candidates' page.
fn mistakes(document: &str, readme: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let questions = questions(document, &mut wrong);
    for (title, question) in &questions {
        wrong.extend(mistakes_of(question).into_iter().map(|what| format!("{title}: {what}")));
    }
    let folded = document.to_lowercase();
    for hidden in HIDDEN.iter().filter(|hidden| folded.contains(**hidden)) {
        wrong.push(format!("candidates see {hidden:?}"));
    }
    let link = format!("[{PATH}]({PATH}): {} questions", questions.len());
    if !readme.contains(&link) {
        wrong.push(format!("the README lacks {link:?}"));
    }
    wrong
}

/// Everything that is wrong with the interviewers' page.
fn mistakes_of_answers(answers: &str, document: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let (asked, answered) = (questions(document, &mut wrong), questions(answers, &mut wrong));
    let heads = |questions: &[(&str, &str)]| -> Vec<(String, Option<u32>, Option<String>)> {
        questions
            .iter()
            .map(|(title, text)| ((*title).to_owned(), minutes(text), part(text, 0)))
            .collect()
    };
    if heads(&asked) != heads(&answered) {
        wrong.push("titles, levels, times or texts of the questions differ on the two pages".to_owned());
    }
    for (title, answer) in &answered {
        wrong.extend(
            mistakes_of_answer(answer)
                .into_iter()
                .map(|what| format!("{title}: {what}")),
        );
    }
    let sections = chapters(answers, "##");
    for chapter in ["Rubric", "Plans", "Scorecard"] {
        if !sections.iter().any(|(title, _)| *title == chapter) {
            wrong.push(format!("there is no {chapter}"));
        }
    }
    // The minutes of each question.
    let times = answered.iter().map(|(_, text)| minutes(text).unwrap_or_default());
    let times: BTreeMap<usize, u32> = (1..).zip(times).collect();
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
    let (minutes, _) = time.split_once(" minutes")?;
    LEVELS.contains(&level).then_some(minutes.parse().ok()?)
}

/// The parts of a question, in their order, and those of its answer.
const PARTS: [&str; 5] = [
    "**Question.** ",
    "**A strong answer**\n\n- [ ] ",
    "**A weak answer** ",
    "**Follow-up.** ",
    "**Code:** ",
];

/// The text of a part, up to the next one.
fn part(text: &str, number: usize) -> Option<String> {
    let (_, rest) = text.split_once(&format!("\n\n{}", PARTS[number]))?;
    let end = PARTS[number + 1..]
        .iter()
        .filter_map(|next| rest.find(&format!("\n\n{}", next.split("\n\n").next().unwrap_or(next))))
        .min();
    Some(rest[..end.unwrap_or(rest.len())].trim().to_owned())
}

/// Everything that is missing or short among these parts.
fn mistakes_of_parts(text: &str, parts: &[usize]) -> Vec<String> {
    let mut wrong = Vec::new();
    if minutes(text).is_none_or(|minutes| minutes == 0) {
        wrong.push("no level, or no time".to_owned());
    }
    for &number in parts {
        let name = PARTS[number].trim();
        match part(text, number) {
            None => wrong.push(format!("no {name}")),
            Some(text) if text.len() < 30 => wrong.push(format!("nothing in {name}")),
            Some(_) => {}
        }
    }
    wrong
}

/// Everything that is wrong with one question.
fn mistakes_of(question: &str) -> Vec<String> {
    let mut wrong = mistakes_of_parts(question, &[0, 4]);
    let about = question
        .lines()
        .nth(1)
        .and_then(|line| line.split_once(" minutes · **About:** "));
    if about.is_none_or(|(_, about)| about.trim().is_empty()) {
        wrong.push("it does not say what it is about".to_owned());
    }
    let code = part(question, 4).unwrap_or_default();
    let named = links(PATH, &code)
        .into_iter()
        .filter(|(text, path, _)| symbol(text, path).is_some());
    if named.count() < 2 {
        wrong.push("fewer than two links to items".to_owned());
    }
    wrong
}

/// Everything that is wrong with the answer to one question.
fn mistakes_of_answer(answer: &str) -> Vec<String> {
    let mut wrong = mistakes_of_parts(answer, &[0, 1, 2, 3]);
    if part(answer, 1).is_some_and(|points| points.matches("\n- [ ] ").count() < 2) {
        wrong.push("a strong answer has fewer than three points".to_owned());
    }
    if part(answer, 3).is_some_and(|text| !text.contains('(') || !text.ends_with(')')) {
        wrong.push("the follow-up has no answer".to_owned());
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

fn documents() -> (String, String) {
    (
        file(PATH).expect("the questions"),
        file("README.md").expect("the README"),
    )
}

#[test]
fn candidates_see_complete_questions_without_answers() {
    let (document, readme) = documents();
    assert_eq!(mistakes(&document, &readme), [""; 0]);
}

#[test]
fn every_question_has_an_answer_and_plans_add_up() {
    let Some(answers) = file(ANSWERS) else { return };
    let (document, _) = documents();
    assert_eq!(mistakes_of_answers(&answers, &document), [""; 0]);
}

/// Replaces the first occurrence, which must exist.
fn replaced(document: &str, right: &str, wrong: &str) -> String {
    assert!(document.contains(right), "{right:?} is missing");
    document.replacen(right, wrong, 1)
}

#[test]
fn invalid_questions_are_detected() {
    let (document, readme) = documents();
    for (right, wrong) in [
        ("## Rust and async\n", "## Rust\n"),
        ("### Question 2: ", "### Question 3: "),
        ("### Question 46: ", "### Exercise: "),
        ("**Level:** mid (2-5 years)", "**Level:** expert"),
        ("**Time:** 5 minutes", "**Time:** soon"),
        (" · **About:** types that validate", ""),
        ("**Question.** ", "**Task.** "),
        ("**Code:** ", "Code: "),
        (
            "[`check`](shared/core/src/domain/text.rs),\n[`tasks_title_length`](migrations/0001_tasks.sql)",
            "",
        ),
        ("(#rust-and-async): 1 to 7", "(#rust-and-async): 1 to 6"),
        ("\n**Code:** ", "\n**Follow-up.** Why?\n\n**Code:** "),
        ("\n**Code:** ", "\n**A strong answer**\n\n- Because.\n\n**Code:** "),
    ] {
        let document = replaced(&document, right, wrong);
        assert!(!mistakes(&document, &readme).is_empty(), "{wrong:?}");
    }
    assert!(!mistakes(&document, "").is_empty(), "the README does not link it");
}

#[test]
fn invalid_answers_and_plans_are_detected() {
    let Some(answers) = file(ANSWERS) else { return };
    let (document, _) = documents();
    for (right, wrong) in [
        ("## Rust and async\n", "## Rust\n"),
        ("### Question 2: ", "### Question 3: "),
        ("**Question.** A handler", "**Question.** The handler"),
        ("**Time:** 5 minutes", "**Time:** 6 minutes"),
        ("## Rubric", "## Rubrics"),
        ("## Scorecard", "## Score"),
        ("**A strong answer**\n", "**An answer**\n"),
        ("- [ ] ", "- "),
        ("**A weak answer** ", "A weak answer "),
        ("**Follow-up.** ", ""),
        ("covers only the length.)", "covers only the length."),
        ("### Plan: 60 minutes, mid", "### Plan: an hour"),
        ("| 5 | Question 1 |", "| 4 | Question 1 |"),
        ("| 5 | Question 1 |", "| 5 | Question 47 |"),
        ("| 5 | Question 1 |", "| 5 | Question 2 |"),
        ("| 5 | The candidate's questions |", "| 6 | The candidate's questions |"),
    ] {
        let answers = replaced(&answers, right, wrong);
        assert!(!mistakes_of_answers(&answers, &document).is_empty(), "{wrong:?}");
    }
}
