//! The files of a deployment: template.yaml, and a package for each function at its `CodeUri`.

use std::{
    fs,
    io::{Cursor, Write},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use zip::{CompressionMethod, DateTime, ZipWriter, write::SimpleFileOptions};

use crate::tools::{files, process};

/// The program of a function that gets its code later. A constant, so that CloudFormation sees
/// unchanged code and does not replace the function's own.
const PLACEHOLDER: &str = "#!/bin/sh\necho 'This function has no code yet: make up' >&2\nexit 1\n";

/// The file that marks a package: see [`mark_all`].
const MARK: &str = "parameters.sha256";

/// Writes template.yaml and a package for each function to a folder, and returns the template's
/// path. The packages contain a placeholder: SAM would take a minute for 17 programs of 20 MB each,
/// and would have to wait for the compiler. `at_once` is a function that runs during the
/// deployment, with its program.
pub fn prepare(folder: &Path, root: &Path, functions: &[String], at_once: Option<(&str, &Path)>) -> Result<PathBuf> {
    let lambda = folder.join("target/lambda");
    files::remove_if_exists(fs::remove_dir_all(&lambda))?;
    fs::create_dir_all(&lambda).with_context(|| format!("cannot create {}", lambda.display()))?;
    for function in functions {
        let package = match at_once {
            Some((name, program)) if name == function => zip_program(program)?,
            _ => zip(PLACEHOLDER.as_bytes())?,
        };
        // Where the template expects a folder, SAM takes a zip file as well.
        fs::write(lambda.join(function), package)?;
    }
    let template = folder.join("template.yaml");
    fs::copy(root.join("template.yaml"), &template)?;
    Ok(template)
}

/// Removes the API's TLS policy, which a local stack does not have: SAM translators before March
/// 2026, such as that of LocalStack 4.14.0, reject a template that names it at all.
pub fn omit_tls_policy(template: &Path) -> Result<()> {
    let text = fs::read_to_string(template).with_context(|| format!("cannot read {}", template.display()))?;
    let policy = [
        "      SecurityPolicy: !If [IsCloud,",
        "      EndpointAccessMode: !If [IsCloud,",
    ];
    let kept = text
        .lines()
        .filter(|line| !policy.iter().any(|start| line.starts_with(start)));
    let kept: String = kept.map(|line| format!("{line}\n")).collect();
    fs::write(template, kept).with_context(|| format!("cannot write {}", template.display()))
}

/// A function's package for Lambda. Its symbols are stripped, as in the profile `release`, which
/// halves it.
pub fn zip_program(program: &Path) -> Result<Vec<u8>> {
    // Unique: two deployments may package the same program at the same time.
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let stripped = program.with_extension(format!("{}-{number}.stripped", std::process::id()));
    let mut strip = Command::new("strip");
    // strip comes with the linker; without it, the package is larger.
    let package = match process::output(strip.arg("-o").arg(&stripped).arg(program)) {
        Ok(_) => zip(&read(&stripped)?),
        Err(_) => zip(&read(program)?),
    };
    files::remove_if_exists(fs::remove_file(&stripped))?;
    package
}

/// A digest of a function's program.
pub fn digest_of_program(program: &Path) -> Result<String> {
    Ok(format!("{:x}", Sha256::digest(read(program)?)))
}

fn read(program: &Path) -> Result<Vec<u8>> {
    fs::read(program).with_context(|| format!("cannot read {}, which the build should have written", program.display()))
}

/// Uncompressed, because it stays on this machine; without a time, so that equal programs have
/// equal packages.
fn zip(bootstrap: &[u8]) -> Result<Vec<u8>> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default())
        .unix_permissions(0o755);
    zip.start_file("bootstrap", options)?;
    zip.write_all(bootstrap)?;
    Ok(zip.finish()?.into_inner())
}

/// A digest of template.yaml and its parameters.
pub fn digest_of_parameters(root: &Path, parameters: &[String]) -> Result<String> {
    let mut digest = Sha256::new_with_prefix(fs::read(root.join("template.yaml"))?);
    for parameter in parameters {
        digest.update(parameter);
        digest.update("\n");
    }
    Ok(format!("{:x}", digest.finalize()))
}

/// Writes a mark into each package that cargo-lambda has built in a folder, for AWS.
///
/// A function's alias points to a version, whose environment variables are fixed when it is
/// published, and SAM publishes a new version only if the package changed. The mark changes with
/// the template and its parameters: without it, their changes would not reach the functions.
pub fn mark_all(packages: &Path, mark: &str) -> Result<()> {
    let mark = format!("{mark}\n");
    for package in fs::read_dir(packages).with_context(|| format!("cannot read {}", packages.display()))? {
        let file = package?.path().join(MARK);
        // It has this mark already.
        if fs::read_to_string(&file).is_ok_and(|marked| marked == mark) {
            continue;
        }
        fs::write(&file, &mark).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use zip::ZipArchive;

    use super::*;
    use crate::stack::parameters;

    fn bootstrap(zip: Vec<u8>) -> (Option<u32>, String) {
        let mut zip = ZipArchive::new(Cursor::new(zip)).expect("a zip file");
        let mut file = zip.by_name("bootstrap").expect("a program");
        let mode = file.unix_mode().map(|mode| mode & 0o777);
        (mode, std::io::read_to_string(&mut file).expect("text"))
    }

    #[test]
    fn local_template_has_no_tls_policy() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let folder = root.join("target/xtask-tests/tls-policy");
        fs::create_dir_all(&folder).expect("a folder");
        let template = folder.join("template.yaml");
        fs::copy(root.join("template.yaml"), &template).expect("copied");
        let before = fs::read_to_string(&template).expect("a template");
        omit_tls_policy(&template).expect("omitted");
        let after = fs::read_to_string(&template).expect("a template");
        let mut removed: Vec<&str> = before.lines().collect();
        for line in after.lines() {
            let at = removed.iter().position(|other| *other == line).expect("no line is new");
            removed.remove(at);
        }
        let names = removed.iter().filter_map(|line| line.trim().split(':').next());
        assert_eq!(names.collect::<Vec<_>>(), ["SecurityPolicy", "EndpointAccessMode"]);
    }

    /// SAM does not publish a version for another value of a parameter: the mark does.
    #[test]
    fn every_parameter_changes_mark() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mark = |choices: BTreeMap<String, String>| {
            digest_of_parameters(&root, &parameters::sandbox(&choices)).expect("a digest")
        };
        let mut marks = BTreeSet::from([mark(BTreeMap::new())]);
        for (name, _) in parameters::SANDBOX {
            let changed = BTreeMap::from([(name.to_owned(), "another".to_owned())]);
            assert!(marks.insert(mark(changed)), "{name}");
        }
    }

    #[test]
    fn packages_contain_placeholders_or_programs() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let folder = root.join("target/xtask-tests/packages");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder");
        let program = folder.join("program");
        fs::write(&program, "its own").expect("written");
        let package = |function: &str| fs::read(folder.join("target/lambda").join(function)).expect("a package");

        let functions = ["one", "two"].map(str::to_owned);
        let template = prepare(&folder, &root, &functions, Some(("two", &program))).expect("prepared");
        assert!(template.exists());
        assert_eq!(bootstrap(package("one")), (Some(0o755), PLACEHOLDER.to_owned()));
        assert_eq!(bootstrap(package("two")), (Some(0o755), "its own".to_owned()));

        let first = package("one");
        prepare(&folder, &root, &functions[..1], None).expect("prepared");
        assert_eq!(package("one"), first, "equal content makes an equal package");
        assert!(
            !folder.join("target/lambda/two").exists(),
            "the package of a removed function is deleted"
        );
    }
}
