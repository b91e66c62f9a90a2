//! Log lines as AWS writes them (log_lines.toml), and the metric filters that must count each.

use serde_json::Value;

/// A line of a log.
pub struct Line {
    pub name: String,
    /// The logical id of its log group.
    pub log: String,
    /// The logical ids of metric filters, among those that the environment has.
    pub counted_by: Vec<String>,
    pub content: Value,
}

pub fn read() -> Vec<Line> {
    let file: Value = toml::from_str(include_str!("log_lines.toml")).expect("TOML");
    let lines = file["line"].as_array().expect("lines").iter();
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    let lines = lines.map(|line| Line {
        name: text(&line["name"]),
        log: text(&line["log"]),
        counted_by: line["counted-by"]
            .as_array()
            .expect("filters")
            .iter()
            .map(text)
            .collect(),
        content: serde_json::from_str(&text(&line["content"]))
            .unwrap_or_else(|error| panic!("{error}: {}", line["name"])),
    });
    lines.collect()
}
