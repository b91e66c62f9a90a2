//! `make openapi`

use std::{fs, path::Path};

use anyhow::Result;

use crate::{process, ui::Step};

/// Writes openapi.json, as the `openapi` crate makes it from the functions.
pub fn refresh(root: &Path) -> Result<()> {
    let step = Step::start("openapi", "collecting it from the functions");
    let mut command = process::cargo("cargo");
    command
        .current_dir(root)
        .args(["run", "--quiet", "--package", "openapi"]);
    fs::write(root.join("openapi.json"), process::output(&mut command)?)?;
    step.done("openapi.json is up to date");
    Ok(())
}
