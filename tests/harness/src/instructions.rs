//! Counts the instructions that a function executes: unlike times, nearly the same on every run.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::LambdaHost;

/// The number of warm requests that are counted.
const WARM: usize = 20;

/// The instructions of one function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// From the start of the process to its first response.
    pub cold: u64,
    /// For each further request.
    pub warm: u64,
}

/// Counts with valgrind, which emulates a CPU without AVX-512. The instructions of the C library
/// are excluded.
///
/// In two runs, one with a single request and one with further requests: the difference between two
/// whole runs is less noisy than a count that starts and stops within one run.
pub async fn count(
    host: &LambdaHost,
    valgrind: &Path,
    reports: &Path,
    name: &str,
    event: impl Fn() -> Value,
) -> Result<Count> {
    let run = async |requests: usize| {
        let report = reports.join(format!("{name}-{requests}.callgrind"));
        run(host, valgrind, &report, name, requests, &event).await?;
        own(&report)
    };
    let (cold, all) = tokio::join!(run(1), run(1 + WARM));
    let (cold, all) = (cold?, all?);
    let warm = all.checked_sub(cold).context("more requests took fewer instructions")?;
    Ok(Count {
        cold,
        warm: warm / WARM as u64,
    })
}

async fn run(
    host: &LambdaHost,
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
    let (mut function, first) = host.start_under(name, &program, &event()).await?;
    let mut responses = vec![first];
    for _ in 1..requests {
        responses.push(function.invoke(&event()).await?);
    }
    for response in responses {
        let status = &response.body["statusCode"];
        ensure!(
            status.is_null() || status.as_u64().is_some_and(|status| status < 300),
            "{name}: {}",
            response.body
        );
    }
    function.stop().await
}

/// The function's own instructions in the report (Valgrind manual, "Callgrind Format
/// Specification"): without those of the C library and the loader, which differ between machines.
fn own(report: &Path) -> Result<u64> {
    let text = fs::read_to_string(report).with_context(|| format!("no report {}", report.display()))?;
    let (mut own, mut is_own, mut is_of_callee) = (0, false, false);
    // The first mention of an object has its number and name, later ones only the number.
    let mut number = None;
    for line in text.lines() {
        let object = line.strip_prefix("ob=");
        if let Some(named) = object.or_else(|| line.strip_prefix("cob=")) {
            if named.ends_with("/bootstrap") {
                number = named.split(' ').next();
            }
            if let Some(object) = object {
                is_own = number.is_some_and(|number| object.split(' ').next() == Some(number));
            }
        } else if line.starts_with("calls=") {
            // The next line is the inclusive cost of the call, which the callee's own lines already
            // contain.
            is_of_callee = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            if is_own && !std::mem::take(&mut is_of_callee) {
                let cost = line.split(' ').nth(1).context("a line has a position and a cost")?;
                own += cost.parse::<u64>()?;
            }
            is_of_callee = false;
        }
    }
    ensure!(own > 0, "no function in the report {}", report.display());
    Ok(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_instructions_are_counted_once() {
        let report = std::env::temp_dir().join(format!("harness-{}.callgrind", std::process::id()));
        let text = "positions: line\nevents: Ir\nsummary: 99\n\n\
                    ob=(1) /lib/libc.so.6\nfn=(1) malloc\n7 50\ncob=(2) /f/bootstrap\ncfn=(2)\ncalls=1 0 \n7 30\n\n\
                    ob=(2)\nfn=(2)\n0 10\n+3 20\ncob=(1)\ncfn=(1)\ncalls=2 0 \n* 50\n* 5\n\n\
                    ob=(1)\nfn=(1)\n9 9\n";
        fs::write(&report, text).expect("written");
        let counted = own(&report);
        fs::remove_file(&report).expect("removed");
        assert_eq!(counted.expect("a report"), 35);
    }
}
