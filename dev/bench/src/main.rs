//! Measures the functions; `make bench` builds them, starts what they need, and says where it is, in environment
//! variables. docs/performance.md has the method, and gets the table.

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
    fixture.drop_database().await?;

    println!("\n{table}\n{machine}");
    let document = Path::new("docs/performance.md");
    report::write(document, "make bench", &format!("\n{table}\n{machine}\n\n"))?;
    println!("Written to {}.", document.display());
    Ok(())
}
