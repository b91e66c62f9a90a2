//! The runner behind the make targets, in three floors: imports go down only.
//!
//! - [`commands`]: what a person or CI types
//! - [`stack`]: Postgres, the local AWS, building the functions and deploying them
//! - [`tools`]: processes, files, threads, the terminal, installed programs

pub mod commands;
pub mod stack;
pub mod tools;

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    #[test]
    fn imports_run_down_only() {
        for (floor, above) in [("stack", &["commands"][..]), ("tools", &["commands", "stack"])] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(floor);
            for entry in fs::read_dir(folder).expect("a floor") {
                let file = entry.expect("an entry").path();
                let source = fs::read_to_string(&file).expect("a source");
                // As rustfmt writes them: `crate::stack::…`, or `stack::{` in a line of its own below `use crate::{`.
                for name in above {
                    let is_import = |line: &str| {
                        line.contains(&format!("crate::{name}::")) || line.starts_with(&format!("    {name}::"))
                    };
                    assert!(!source.lines().any(is_import), "{} imports {name}", file.display());
                }
            }
        }
    }
}
