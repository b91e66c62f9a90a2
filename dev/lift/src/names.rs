//! The names of the copy: which are possible, and where they replace "task".

use anyhow::{Result, bail, ensure};

/// Keywords of Rust, of Postgres (the reserved ones), and of the other languages here.
const RESERVED: &str = "
    abstract all analyse analyze and any array as asc asymmetric async authorization await become binary both box
    break case cast catch check class collate collation column concurrently const constraint continue crate create cross
    debugger default deferrable delete desc distinct do dyn else end enum except export extends extern false fetch final
    finally fn for foreign freeze from full function gen grant group having if ilike impl import in initially inner
    instanceof intersect into is isnull join lambda lateral leading left let like limit localtime localtimestamp loop
    macro match mod move mut natural new not notnull null offset on only or order outer overlaps override pass placing
    primary priv pub raise ref references return returning right select self similar some static struct super switch
    symmetric table tablesample then this throw to trailing trait true try type typeof union unique unsafe unsized use
    user using var variadic verbose virtual void when where while window with yield";

/// What precedes "task" where it is not the product's: tokio's, SQS's move tasks, Lambda's.
const NOT_OURS_AFTER: [&str; 16] = [
    "tokio::",
    "std::",
    "core::",
    "futures::",
    "tokio ",
    "tokio's ",
    "spawned ",
    "background ",
    "futures-",
    "futures_",
    "async-",
    "async_",
    "Move",
    "move_",
    "LAMBDA_",
    "lambda_",
];

/// What follows it there. (A test compares the signature of a host in `.cluster-…` with botocore's.)
const NOT_OURS_BEFORE: [&str; 3] = ["Handle", " timed out", ".cluster-"];

/// The beginnings of the items of the libraries' modules `task`.
const ITEMS: [&str; 13] = [
    "Abort",
    "Builder",
    "Context",
    "Join",
    "Local",
    "Poll",
    "Waker",
    "block_",
    "coop",
    "id()",
    "spawn",
    "unconstrained",
    "yield_",
];

/// What a task is called in the copy.
#[derive(Debug, PartialEq)]
pub struct Names {
    plural: String,
    singular: String,
}

impl Names {
    /// Derives the singular if it is not given. Fails if the names would not work.
    pub fn new(plural: &str, singular: Option<&str>) -> Result<Self> {
        let singular = match singular.filter(|singular| !singular.is_empty()) {
            Some(singular) => singular.to_owned(),
            None => singular_of(plural)?,
        };
        for name in [plural, &singular] {
            ensure!(
                (3..=16).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_lowercase()),
                "{name:?} cannot name everything from a table to a CSS class: take one word of 3 to 16 letters from a \
                 to z, such as NAME=invoices"
            );
            ensure!(
                !RESERVED.split_whitespace().any(|reserved| reserved == name),
                "{name:?} is a keyword of a language used here, so it cannot be the name of a variable, a column or a \
                 module; take another word, such as NAME=purchases instead of orders"
            );
        }
        ensure!(
            plural != singular,
            "{plural:?} is both plural and singular, but a table and its row need two names; take another word"
        );
        ensure!(
            !["task", "tasks"].iter().any(|task| [plural, &singular].contains(task)),
            "the project already has tasks; take another word"
        );
        Ok(Self {
            plural: plural.to_owned(),
            singular,
        })
    }

    /// Both.
    pub fn both(&self) -> [&str; 2] {
        [&self.plural, &self.singular]
    }

    /// A text with these names, also as parts of other names: `task_id`, `NewTask`, `get-task`.
    pub fn replace(&self, text: &str) -> String {
        let mut replaced = String::with_capacity(text.len());
        let mut done = 0;
        while let Some((start, end)) = next_task(text, done) {
            let (before, task, after) = (&text[done..start], &text[start..end], &text[end..]);
            let name = if task.ends_with(['s', 'S']) {
                &self.plural
            } else {
                &self.singular
            };
            let name = match task.as_bytes() {
                [b'T', b'A', ..] => name.to_uppercase(),
                [b'T', ..] => name[..1].to_uppercase() + &name[1..],
                _ => name.clone(),
            };
            match is_ours(&text[..start], task, after) {
                true => {
                    let article = article(before).filter(|_| has_vowel_sound(&name));
                    let (before, gap) = before.split_at(article.unwrap_or(before.len()));
                    let n = if article.is_some() { "n" } else { "" };
                    replaced.extend([before, n, gap, &name]);
                }
                false => replaced.extend([before, task]),
            }
            done = end;
        }
        replaced + &text[done..]
    }
}

/// The next "task", "Task" or "TASK", with its s.
fn next_task(text: &str, from: usize) -> Option<(usize, usize)> {
    let rest = &text[from..];
    let starts = ["task", "Task", "TASK"].iter().filter_map(|task| rest.find(task));
    let start = from + starts.min()?;
    let s = if text[start..].starts_with("TA") { "S" } else { "s" };
    let end = start + "task".len();
    Some((start, end + usize::from(text[end..].starts_with(s))))
}

/// True if it is the product's, and a word: not in `xtask`, `multitasking`, `tokio::task`.
fn is_ours(before: &str, task: &str, after: &str) -> bool {
    let is_all_capital = task.starts_with("TA");
    // "\ntasks" in a string, or in JSON.
    let is_escape = ["\\n", "\\r", "\\t"].iter().any(|escape| before.ends_with(escape));
    let is_start = match before.chars().next_back() {
        Some(letter) if letter.is_ascii_alphabetic() => is_escape || task.starts_with("Ta"),
        _ => true,
    };
    let is_end = !after.starts_with(|letter: char| match is_all_capital {
        true => letter.is_ascii_uppercase(),
        false => letter.is_ascii_lowercase(),
    });
    let is_module = after.strip_prefix("::").is_some_and(|path| {
        let items = path.strip_prefix('{').and_then(|group| group.split('}').next());
        let items: Vec<&str> = items.map_or(vec![path], |items| items.split(',').map(str::trim).collect());
        items
            .iter()
            .any(|item| ITEMS.iter().any(|other| item.starts_with(other)))
    });
    let is_other = NOT_OURS_AFTER.iter().any(|other| before.ends_with(other))
        || NOT_OURS_BEFORE.iter().any(|other| after.starts_with(other))
        || is_module;
    is_start && is_end && !is_other
}

/// Where an article "a" ends before the last marks and spaces, also over the end of a comment's
/// line. A lifetime, as in `&'a Task`, is none.
fn article(before: &str) -> Option<usize> {
    let text = before.trim_end_matches(|mark: char| mark.is_whitespace() || "/!-#*`([\"".contains(mark));
    let rest = text.strip_suffix(['a', 'A'])?;
    let is_word = !rest.ends_with(|other: char| other.is_alphanumeric() || "_'".contains(other));
    // In an anchor, `#3-a-task`, hyphens are the spaces of the heading.
    let is_anchor = &before[text.len()..] == "-"
        && rest
            .rsplit([' ', '(', '\n'])
            .next()
            .is_some_and(|word| word.contains('#'));
    let is_apart = is_anchor || before[text.len()..].contains(char::is_whitespace);
    (is_word && is_apart).then_some(text.len())
}

/// True if "an" precedes the word.
fn has_vowel_sound(word: &str) -> bool {
    let word = word.to_lowercase();
    let is_consonant = ["eu", "one", "uni", "use", "usa", "uti"]
        .iter()
        .any(|start| word.starts_with(start));
    word.starts_with(['a', 'e', 'i', 'o', 'u']) && !is_consonant || word.starts_with("hour")
}

fn singular_of(plural: &str) -> Result<String> {
    let Some(singular) = plural
        .strip_suffix('s')
        .filter(|singular| !singular.ends_with(['s', 'u', 'i']))
    else {
        bail!(
            "NAME={plural} is not a plural with s: NAME is the plural, such as invoices; for another plural give both: \
             NAME=people SINGULAR=person"
        );
    };
    let with_es = ["ss", "x", "z", "ch", "sh"].map(|end| format!("{end}e"));
    Ok(match singular.strip_suffix("ie") {
        Some(stem) if stem.len() > 1 => format!("{stem}y"),
        _ if with_es.iter().any(|end| singular.ends_with(end)) => singular[..singular.len() - 1].to_owned(),
        _ => singular.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invoices() -> Names {
        Names::new("invoices", None).expect("valid names")
    }

    #[test]
    fn names_replace_tasks_in_every_style() {
        for (from, to) in [
            (
                "task_id, task.id, tasks.len(), 'tasks'::regclass",
                "invoice_id, invoice.id, invoices.len(), 'invoices'::regclass",
            ),
            (
                "NewTask TaskQueue getTask ListTasks",
                "NewInvoice InvoiceQueue getInvoice ListInvoices",
            ),
            (
                "TASKS TASK_RETENTION_DAYS OLD_TASKS_UNTIL",
                "INVOICES INVOICE_RETENTION_DAYS OLD_INVOICES_UNTIL",
            ),
            (
                "get-task task-api-tasks 0001_tasks.sql",
                "get-invoice invoice-api-invoices 0001_invoices.sql",
            ),
            (r#""select\n  1\ntasks\ttask""#, r#""select\n  1\ninvoices\tinvoice""#),
            ("use task::{NewTask, Task};", "use invoice::{NewInvoice, Invoice};"),
            (
                "a task, A `Task`, a\n    /// task; a leased task",
                "an invoice, An `Invoice`, an\n    /// invoice; a leased invoice",
            ),
            (
                "docs/api.md#a-task tour.md#3-a-task and pick-a-task",
                "docs/api.md#an-invoice tour.md#3-an-invoice and pick-a-invoice",
            ),
            ("fn name<'a>(of: &'a Task)", "fn name<'a>(of: &'a Invoice)"),
        ] {
            assert_eq!(invoices().replace(from), to);
        }
        let bills = Names::new("bills", None).expect("valid names");
        assert_eq!(bills.replace("a task"), "a bill");
    }

    #[test]
    fn names_of_libraries_and_aws_stay() {
        for text in [
            "xtask multitasking taskset",
            "tokio::task::spawn_blocking(work); tokio::task::yield_now()",
            "use tokio::{sync::Notify, task::JoinSet};",
            "    task::JoinHandle,",
            "use std::{task::{Context, Poll}};",
            "use tokio::task;\ntask::spawn_blocking(work)",
            "use futures::{future, task::{self, Poll}};",
            "sqs:ListMessageMoveTasks list_message_move_tasks StartMessageMoveTask start_message_move_task",
            "tasks.cluster-c1.eu-central-1.rds.amazonaws.com",
            "TaskHandle LAMBDA_TASK_ROOT Task timed out after 3.00 seconds",
            "futures-task futures_task async-task a spawned task",
        ] {
            assert_eq!(invoices().replace(text), text);
        }
    }

    #[test]
    fn singular_is_derived_or_given() {
        for (plural, singular) in [
            ("invoices", "invoice"),
            ("deliveries", "delivery"),
            ("parcels", "parcel"),
            ("branches", "branch"),
            ("leases", "lease"),
            ("taxes", "tax"),
            ("ties", "tie"),
        ] {
            assert_eq!(singular_of(plural).expect("a plural"), singular);
        }
        let given = Names::new("people", Some("person")).expect("valid names");
        assert_eq!(given.both(), ["people", "person"]);
    }

    #[test]
    fn unusable_names_are_refused() {
        for (plural, singular, reason) in [
            ("invoice", None, "NAME is the plural"),
            ("address", None, "NAME is the plural"),
            ("", None, "NAME is the plural"),
            ("people", None, "NAME is the plural"),
            ("invoices", Some("invoices"), "both plural and singular"),
            ("orders", None, "keyword"),
            ("users", None, "keyword"),
            ("types", None, "keyword"),
            ("Invoices", None, "one word"),
            ("line-items", None, "one word"),
            ("../etcs", None, "one word"),
            ("invoices", Some("in voice"), "one word"),
            ("abcdefghijklmnopqs", None, "one word"),
            ("tasks", None, "already has tasks"),
        ] {
            let error = Names::new(plural, singular).expect_err(plural).to_string();
            assert!(error.contains(reason), "{plural}: {error}");
        }
    }
}
