//! HTML pages in one file without external assets, for a screen, light or dark, and for paper.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

const STYLE: &str = include_str!("page.css");

/// The folder of an exercise's or a record's pages.
pub fn folder(root: &Path, name: &str) -> PathBuf {
    root.join(".local/interviews").join(name)
}

/// Writes a page and returns its path, relative to the project's folder.
pub fn write(root: &Path, name: &str, file: &str, title: &str, body: &str) -> Result<String> {
    let folder = folder(root, name);
    fs::create_dir_all(&folder)?;
    let path = folder.join(file);
    let text = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n",
        title = escape(title),
    );
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    let shown = path.strip_prefix(root).unwrap_or(&path);
    Ok(shown.display().to_string())
}

/// Text as HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// A patch: a heading for each file, and colored lines.
pub fn diff(patch: &str) -> String {
    let mut html = String::new();
    let mut is_open = false;
    for file in files(patch) {
        let name = file.name.as_str();
        html += &format!(
            "<h4 class=\"file\">{} <small>+{} −{}</small></h4>\n",
            escape(name),
            file.added,
            file.removed
        );
        html += "<pre class=\"diff\">";
        is_open = true;
        for line in &file.lines {
            let class = match line.as_bytes().first() {
                Some(b'+') => "add",
                Some(b'-') => "del",
                Some(b'@') => "hunk",
                _ => "same",
            };
            html += &format!("<span class=\"{class}\">{}</span>\n", escape(line));
        }
        html += "</pre>\n";
    }
    if !is_open {
        html += "<p class=\"quiet\">No changes.</p>\n";
    }
    html
}

/// A file's part of a patch.
pub struct FileDiff<'a> {
    pub name: String,
    pub added: usize,
    pub removed: usize,
    lines: Vec<&'a str>,
}

/// The files of a patch.
pub fn files(patch: &str) -> Vec<FileDiff<'_>> {
    let mut files: Vec<FileDiff> = Vec::new();
    let mut is_header = false;
    for line in patch.lines() {
        if let Some(names) = line.strip_prefix("diff --git ") {
            let name = names.split_once(" b/").map_or(names, |(_, name)| name);
            files.push(FileDiff {
                name: name.trim_end_matches('"').to_owned(),
                added: 0,
                removed: 0,
                lines: Vec::new(),
            });
            is_header = true;
            continue;
        }
        let Some(file) = files.last_mut() else { continue };
        is_header &= !line.starts_with("@@") && !line.starts_with("Binary files");
        if is_header {
            continue;
        }
        file.added += usize::from(line.starts_with('+'));
        file.removed += usize::from(line.starts_with('-'));
        file.lines.push(line);
    }
    files
}
