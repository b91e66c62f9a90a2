//! The runner behind the make targets, in three layers. Each imports only from those below it.
//!
//! - [`commands`]: the make targets
//! - [`stack`]: Postgres, the emulator, building and deploying the functions
//! - [`tools`]: processes, files, threads, the terminal, installed programs

pub mod commands;
pub mod stack;
pub mod tools;

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    #[test]
    fn layers_import_only_from_below() {
        for (layer, above) in [("stack", &["commands"][..]), ("tools", &["commands", "stack"])] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(layer);
            for entry in fs::read_dir(folder).expect("a layer") {
                let file = entry.expect("an entry").path();
                let source = fs::read_to_string(&file).expect("a source");
                // As rustfmt formats them: `crate::stack::…`, or `stack::{` on a separate line
                // below `use crate::{`.
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
