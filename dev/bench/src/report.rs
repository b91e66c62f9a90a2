//! The table of results, on the terminal and in docs/performance.md.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result};
use sqlx::PgConnection;
use time::OffsetDateTime;

/// One figure of the table.
pub struct Row {
    pub figure: String,
    /// What it is compared with.
    pub reference: &'static str,
    /// The ratio to the reference, if there is one.
    pub ratio: Option<f64>,
    /// The maximum ratio.
    pub goal: Option<f64>,
    /// The measured values with units.
    pub absolute: String,
}

impl Row {
    /// A ratio of two times.
    pub fn times(
        figure: impl Into<String>,
        reference: &'static str,
        goal: Option<f64>,
        measured: Duration,
        floor: Duration,
    ) -> Self {
        Self {
            figure: figure.into(),
            reference,
            ratio: Some(measured.as_secs_f64() / floor.as_secs_f64()),
            goal,
            absolute: format!("{} against {}", in_units(measured), in_units(floor)),
        }
    }

    /// A ratio of two numbers of bytes.
    pub fn bytes(figure: impl Into<String>, reference: &'static str, goal: f64, measured: u64, floor: u64) -> Self {
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        Self {
            figure: figure.into(),
            reference,
            ratio: Some(measured as f64 / floor as f64),
            goal: Some(goal),
            absolute: format!("{:.2} against {:.2} MB", megabytes(measured), megabytes(floor)),
        }
    }

    /// A figure without a reference.
    pub fn absolute(figure: impl Into<String>, absolute: String) -> Self {
        Self {
            figure: figure.into(),
            reference: "",
            ratio: None,
            goal: None,
            absolute,
        }
    }

    fn cells(&self) -> [String; 6] {
        let number = |number: Option<f64>| number.map(|number| format!("{number:.2}"));
        let verdict = match (self.ratio, self.goal) {
            (Some(ratio), Some(goal)) if ratio <= goal => "ok",
            (Some(_), Some(_)) => "**missed**",
            _ => "",
        };
        [
            self.figure.clone(),
            self.reference.to_owned(),
            number(self.ratio).unwrap_or_default(),
            number(self.goal).unwrap_or_default(),
            verdict.to_owned(),
            self.absolute.clone(),
        ]
    }
}

/// A time in a readable unit.
pub fn in_units(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        1.0.. => format!("{seconds:.1} s"),
        0.001.. => format!("{:.2} ms", seconds * 1e3),
        _ => format!("{:.0} µs", seconds * 1e6),
    }
}

/// The rows as a Markdown table.
pub fn table(rows: &[Row]) -> String {
    let head = ["figure", "against", "ratio", "goal", "", "for illustration"].map(str::to_owned);
    let mut lines = vec![head];
    lines.extend(rows.iter().map(Row::cells));
    let width = |column: usize| lines.iter().map(|cells| cells[column].chars().count()).max();
    let widths: [usize; 6] = std::array::from_fn(|column| width(column).unwrap_or_default());
    let line = |cells: &[String; 6]| {
        let padded = std::iter::zip(cells, widths).map(|(cell, width)| format!(" {cell:width$} |"));
        format!("|{}\n", padded.collect::<String>())
    };
    let mut table: Vec<String> = lines.iter().map(line).collect();
    table.insert(
        1,
        format!("|{}\n", widths.map(|width| "-".repeat(width + 2) + "|").concat()),
    );
    table.concat()
}

/// Replaces the document's section between the two comments with this name.
pub fn write(document: &Path, name: &str, content: &str) -> Result<()> {
    let text = fs::read_to_string(document).with_context(|| format!("cannot read {}", document.display()))?;
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->\n"));
    let missing = || format!("{} has no section {name}", document.display());
    let (before, rest) = text.split_once(&begin).with_context(missing)?;
    let (_, after) = rest.split_once(&end).with_context(missing)?;
    fs::write(document, format!("{before}{begin}{content}{end}{after}"))?;
    Ok(())
}

/// A sentence about the machine and the date of the measurement.
pub async fn machine(connection: &mut PgConnection) -> Result<String> {
    let file = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = file("/proc/cpuinfo");
    let model = cpus.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown CPU");
    let cores = std::thread::available_parallelism()?;
    let kernel = file("/proc/sys/kernel/osrelease");
    let postgres: String = sqlx::query_scalar("show server_version").fetch_one(connection).await?;
    let postgres = postgres.split(' ').next().unwrap_or_default();
    let today = OffsetDateTime::now_utc().date();
    Ok(format!(
        "Measured on {today}: {cores} cores of {model} ({}), Linux {}, PostgreSQL {postgres}.",
        std::env::consts::ARCH,
        kernel.trim(),
    ))
}
