//! `make replay`: a record as a timeline with the diffs between grades, on the terminal and as a
//! page to hand over.

use std::{
    io::{self, Write},
    path::Path,
};

use anyhow::Result;
use time::macros::format_description;

use crate::{
    git::Git,
    page::{self, escape},
    record::{Entry, Event, Outcome, Record, Times},
    score,
};

/// Left out of the diffs, because it is generated.
const GENERATED: &str = ".sqlx";

/// Prints the timeline of a record and writes its page.
pub fn run(root: &Path, id: Option<&str>) -> Result<()> {
    let git = Git::open(root)?;
    let record = Record::find(&git, id)?;
    let moments = moments(&git, &record)?;
    let scores = score::revealed(&git, &record)?;
    let title = format!("{} · {}", record.start.exercise, record.candidate());
    let path = page::write(
        root,
        &record.id,
        "report.html",
        &title,
        &html(&record, &moments, &scores),
    )?;
    let text = format!("\n{}\nTo hand over or print: {path}\n\n", text(&record, &moments));
    match io::stdout().write_all(text.as_bytes()) {
        // `make replay | head`
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// An event, and what changed in the files since the previous grade.
struct Moment<'a> {
    entry: &'a Entry,
    /// The minutes since the start.
    minute: f64,
    /// Of a grade and of the end.
    diff: Option<String>,
}

fn moments<'a>(git: &Git, record: &'a Record) -> Result<Vec<Moment<'a>>> {
    let mut before = record.entries[0].commit.as_str();
    let moments = record.entries.iter().map(|entry| {
        let mut diff = None;
        if matches!(entry.event, Event::Grade { .. } | Event::End) {
            diff = Some(git.diff(before, &entry.commit, GENERATED)?);
            before = &entry.commit;
        }
        let minute = record.minutes_to(entry.time);
        Ok(Moment { entry, minute, diff })
    });
    moments.collect()
}

/// What happened, in a few words.
fn said(event: &Event, grade: usize) -> (String, String) {
    match event {
        Event::Start(_) => ("start".to_owned(), String::new()),
        Event::Hint { number, title } => (format!("hint {number}"), title.clone()),
        Event::Cause { cause, evidence } => ("cause".to_owned(), format!("{cause}: {evidence}")),
        Event::End => ("end".to_owned(), String::new()),
        Event::Grade {
            checks,
            tests_added,
            times,
            seconds,
            ..
        } => {
            let passed = checks.iter().filter(|check| check.passed).count();
            let tests = tests_added.map(|tests| match tests {
                0 => "no tests added".to_owned(),
                1 => "1 test added".to_owned(),
                -1 => "1 test removed".to_owned(),
                removed @ ..0 => format!("{} tests removed", -removed),
                added => format!("{added} tests added"),
            });
            let parts = [
                Some(format!("{passed} of {} checks passed", checks.len())),
                tests,
                times.as_ref().map(Times::describe),
                Some(format!("graded in {seconds:.0} s")),
            ];
            let said = parts.into_iter().flatten().collect::<Vec<_>>().join("; ");
            (format!("grade {grade}"), said)
        }
    }
}

/// The checks that have passed or failed since the previous grade, as signed sentences.
fn changes(before: &[Outcome], checks: &[Outcome]) -> Vec<(bool, String)> {
    let passed_before = |name: &str| before.iter().any(|check| check.name == name && check.passed);
    let changed = checks.iter().filter(|check| check.passed != passed_before(&check.name));
    let changed = changed.filter(|check| check.passed || !before.is_empty());
    changed
        .map(|check| (check.passed, check.name.replace('_', " ")))
        .collect()
}

fn heading(record: &Record) -> String {
    let started = record.started();
    let started = started
        .format(format_description!("[year]-[month]-[day] [hour]:[minute] UTC"))
        .unwrap_or_default();
    let minutes = record.start.minutes;
    let minutes = minutes
        .map(|minutes| format!(" · {minutes} minutes"))
        .unwrap_or_default();
    format!("{started}{minutes}")
}

fn text(record: &Record, moments: &[Moment]) -> String {
    let mut text = format!(
        "{} · {} · {}\n{}\n\n",
        record.start.exercise,
        record.candidate(),
        heading(record),
        record.id
    );
    let (mut grade, mut before) = (0, &[][..]);
    for moment in moments {
        grade += usize::from(matches!(moment.entry.event, Event::Grade { .. }));
        let (what, said) = said(&moment.entry.event, grade);
        text += format!("  {:>5.1}  {what:<9} {said}", moment.minute).trim_end();
        text += "\n";
        if let Event::Grade { checks, .. } = &moment.entry.event {
            for (passed, check) in changes(before, checks) {
                text += &format!("         {} {check}\n", if passed { "✓" } else { "✗" });
            }
            before = checks;
        }
        for line in moment.diff.iter().flat_map(|diff| diff.lines()) {
            text += format!("         │ {line}").trim_end();
            text += "\n";
        }
    }
    if record.is_open() {
        let end = if record.start.incident {
            "incident-reset"
        } else {
            "exercise-reset"
        };
        text += &format!("\nIt has not ended: make {end} ends it.\n");
    }
    text
}

/// The page's content.
fn html(record: &Record, moments: &[Moment], scores: &[score::Scores]) -> String {
    let mut html = format!(
        "<h1>{}</h1>\n<p>{} · {}</p>\n<p class=\"quiet\">Record {}{}</p>\n",
        escape(&record.start.exercise),
        escape(record.candidate()),
        heading(record),
        record.id,
        if record.is_open() { ", not ended" } else { "" },
    );
    html += &overview(record, moments);
    html += &score::html(record, scores);
    html += "<h2>Timeline</h2>\n<table>\n<thead><tr><th class=\"number\">minute</th><th>event</th><th></th></tr></thead>\n<tbody>\n";
    let (mut grade, mut before) = (0, &[][..]);
    for moment in moments {
        grade += usize::from(matches!(moment.entry.event, Event::Grade { .. }));
        let (what, mut said) = said(&moment.entry.event, grade);
        said = escape(&said);
        if let Event::Grade { checks, .. } = &moment.entry.event {
            for (passed, check) in changes(before, checks) {
                let (class, mark) = if passed { ("pass", "✓") } else { ("fail", "✗") };
                said += &format!("<br><span class=\"{class}\">{mark}</span> {}", escape(&check));
            }
            before = checks;
        }
        let class = if what.starts_with("hint") {
            " class=\"hint\""
        } else {
            ""
        };
        html += &format!(
            "<tr><td class=\"number\">{:.1}</td><td{class}>{what}</td><td>{said}</td></tr>\n",
            moment.minute
        );
    }
    html += "</tbody>\n</table>\n";
    html += "<h2>Changes between grades</h2>\n";
    let mut grade = 0;
    for moment in moments {
        grade += usize::from(matches!(moment.entry.event, Event::Grade { .. }));
        if let Some(diff) = &moment.diff {
            let (what, _) = said(&moment.entry.event, grade);
            html += &format!(
                "<h3>Up to {what}, minute {:.1}</h3>\n{}",
                moment.minute,
                page::diff(diff)
            );
        }
    }
    html
}

/// The checks over time: a chart, and a table of all outcomes.
fn overview(record: &Record, moments: &[Moment]) -> String {
    let grades: Vec<(f64, &[Outcome])> = moments
        .iter()
        .filter_map(|moment| match &moment.entry.event {
            Event::Grade { checks, .. } => Some((moment.minute, checks.as_slice())),
            _ => None,
        })
        .collect();
    if grades.is_empty() {
        return "<h2>Checks</h2>\n<p>No grade was recorded.</p>\n".to_owned();
    }
    let mut html = format!("<h2>Checks</h2>\n{}", chart(record, moments, &grades));
    // A grade of code that does not compile has a check of its own.
    let mut names: Vec<&str> = Vec::new();
    for check in grades.iter().flat_map(|(_, checks)| checks.iter()) {
        if !names.contains(&check.name.as_str()) {
            names.push(&check.name);
        }
    }
    html += "<div class=\"scroll\">\n<table>\n<thead><tr><th>check</th>";
    for (number, (minute, _)) in (1..).zip(&grades) {
        html += &format!("<th class=\"mark\" title=\"minute {minute:.1}\">{number}</th>");
    }
    html += "</tr></thead>\n<tbody>\n";
    for name in names {
        html += &format!("<tr><td>{}</td>", escape(&name.replace('_', " ")));
        for (_, checks) in &grades {
            let check = checks.iter().find(|check| check.name == name);
            html += &match check {
                Some(check) if check.passed => "<td class=\"mark pass\">✓</td>".to_owned(),
                Some(check) => format!(
                    "<td class=\"mark fail\" title=\"{}\">✗</td>",
                    escape(check.reason.as_deref().unwrap_or_default())
                ),
                None => "<td class=\"mark quiet\">–</td>".to_owned(),
            };
        }
        html += "</tr>\n";
    }
    html + "</tbody>\n</table>\n</div>\n"
}

/// Checks passed over minutes, with the hints and the time box.
fn chart(record: &Record, moments: &[Moment], grades: &[(f64, &[Outcome])]) -> String {
    const LEFT: f64 = 40.0;
    const RIGHT: f64 = 880.0;
    const TOP: f64 = 24.0;
    const BOTTOM: f64 = 170.0;
    let passed = |checks: &[Outcome]| checks.iter().filter(|check| check.passed).count();
    let most = grades
        .iter()
        .map(|(_, checks)| checks.len())
        .max()
        .unwrap_or_default()
        .max(1);
    let last = moments.last().map_or(0.0, |moment| moment.minute);
    let time_box = record.start.minutes.map(f64::from);
    let end = last.max(time_box.unwrap_or_default()).max(1.0);
    let x = |minute: f64| LEFT + (RIGHT - LEFT) * minute / end;
    let y = |count: usize| BOTTOM - (BOTTOM - TOP) * count as f64 / most as f64;
    let mut svg = format!(
        "<svg viewBox=\"0 0 900 200\" role=\"img\" aria-label=\"{} of {} checks passed at the end\">\n",
        grades.last().map_or(0, |(_, checks)| passed(checks)),
        grades.last().map_or(0, |(_, checks)| checks.len()),
    );
    if let Some(minutes) = time_box {
        svg += &format!(
            "<rect class=\"box\" x=\"{LEFT}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\"/>\n",
            x(minutes) - LEFT,
            BOTTOM - TOP
        );
    }
    for count in [0, most] {
        let y = y(count);
        svg += &format!("<line class=\"axis\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\n");
        svg += &format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{count}</text>\n",
            LEFT - 8.0,
            y + 4.0
        );
    }
    for quarter in 0..=4 {
        let minute = end * f64::from(quarter) / 4.0;
        svg += &format!(
            "<text x=\"{:.1}\" y=\"188\" text-anchor=\"middle\">{minute:.0} min</text>\n",
            x(minute)
        );
    }
    let mut label = f64::MIN;
    for moment in moments {
        if let Event::Hint { number, .. } = &moment.entry.event {
            let x = x(moment.minute);
            // Beside that of the hint before, if that is close.
            label = x.max(label + 44.0);
            svg += &format!("<line class=\"taken\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{BOTTOM}\"/>\n");
            svg += &format!("<text x=\"{label:.1}\" y=\"14\" text-anchor=\"middle\">hint {number}</text>\n");
        }
    }
    let mut path = format!("M{LEFT} {BOTTOM}");
    let mut dots = String::new();
    for (minute, checks) in grades {
        let (x, y) = (x(*minute), y(passed(checks)));
        path += &format!(" H{x:.1} V{y:.1}");
        dots += &format!(
            "<circle class=\"dot\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"><title>minute {minute:.1}: {} of {}</title></circle>\n",
            passed(checks),
            checks.len()
        );
    }
    path += &format!(" H{:.1}", x(last));
    svg + &format!("<path class=\"step\" d=\"{path}\"/>\n{dots}</svg>\n")
}
