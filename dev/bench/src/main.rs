//! Benchmarks the functions. `make bench`, `make bench-peers`, `make scale` and `make load` build
//! them, start a stack and pass its addresses in environment variables. docs/performance.md
//! describes the methods and receives the tables.

mod cpu;
mod environment;
mod fixture;
mod journey;
mod load;
mod measure;
mod peers;
mod processes;
mod report;
mod requests;
mod scale;
mod worker;

use std::path::Path;

use anyhow::Result;

use fixture::Fixture;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        None => run().await,
        Some((first, [])) if first == "peers" => peers::run().await,
        Some((first, [])) if first == "load" => load::run().await,
        Some((first, [])) if first == "scale" => scale::run().await,
        Some((first, rest)) if first == "worker" => worker::run(rest).await,
        _ => anyhow::bail!("no such command: {arguments:?}"),
    }
}

async fn run() -> Result<()> {
    let mut fixture = Fixture::from_env().await?;
    let mut rows = processes::measure(&mut fixture).await?;
    rows.extend(requests::measure(&mut fixture).await?);
    rows.extend(journey::measure(&fixture).await?);
    let table = report::table(&rows);
    let machine = report::machine(&mut fixture.connection).await?;
    fixture.delete().await?;

    println!("\n{table}\n{machine}");
    let document = Path::new("docs/performance.md");
    report::write(document, "make bench", &format!("\n{table}\n{machine}\n\n"))?;
    println!("Results written to {}.", document.display());
    Ok(())
}
