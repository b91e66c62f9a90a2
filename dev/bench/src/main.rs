//! Benchmarks the functions. `make bench` builds them, starts a stack and passes its addresses in
//! environment variables. docs/performance.md describes the method and receives the table.

mod fixture;
mod journey;
mod measure;
mod processes;
mod report;
mod requests;

use std::path::Path;

use anyhow::Result;

use fixture::Fixture;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
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
