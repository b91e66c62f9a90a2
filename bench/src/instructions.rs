//! How many instructions a function executes: the same on every run, unlike the time they take.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::Sandbox;

/// How many warm requests are counted.
const WARM: usize = 20;

/// The instructions of one function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// From the start of the process to its first answer.
    pub cold: u64,
    /// For each further request.
    pub warm: u64,
}

/// Counts by valgrind, whose CPU has no AVX-512 whatever the machine has.
///
/// Twice: with one request, and with some more. Neither includes the other's noise, as there would be in what is
/// counted between two moments of one run.
pub async fn count(
    sandbox: &Sandbox,
    valgrind: &Path,
    reports: &Path,
    name: &str,
    event: impl Fn() -> Value,
) -> Result<Count> {
    let run = async |requests: usize| {
        let report = reports.join(format!("{name}-{requests}.callgrind"));
        run(sandbox, valgrind, &report, name, requests, &event).await?;
        total(&report)
    };
    let (cold, all) = tokio::join!(run(1), run(1 + WARM));
    let (cold, all) = (cold?, all?);
    let warm = all.checked_sub(cold).context("more requests, fewer instructions")?;
    Ok(Count {
        cold,
        warm: warm / WARM as u64,
    })
}

async fn run(
    sandbox: &Sandbox,
    valgrind: &Path,
    report: &Path,
    name: &str,
    requests: usize,
    event: &impl Fn() -> Value,
) -> Result<()> {
    let file = format!("--callgrind-out-file={}", report.display());
    let program = [
        valgrind.as_os_str(),
        "--tool=callgrind".as_ref(),
        "--quiet".as_ref(),
        file.as_ref(),
    ];
    let (mut function, first) = sandbox.start_under(name, &program, &event()).await?;
    let mut answers = vec![first];
    for _ in 1..requests {
        answers.push(function.invoke(&event()).await?);
    }
    for answer in answers {
        let status = &answer.body["statusCode"];
        ensure!(
            status.is_null() || status.as_u64().is_some_and(|status| status < 300),
            "{name}: {}",
            answer.body
        );
    }
    function.stop().await
}

/// What the report says of the whole run.
fn total(report: &Path) -> Result<u64> {
    let text = fs::read_to_string(report).with_context(|| format!("no report {}", report.display()))?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    Ok(total.context("a report has totals")?.parse()?)
}
