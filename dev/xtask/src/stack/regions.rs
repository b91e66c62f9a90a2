//! The AWS regions that template.yaml accepts.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};

/// The regions of the rule `RegionIsAccepted`.
pub fn accepted(root: &Path) -> Result<Vec<String>> {
    let template = fs::read_to_string(root.join("template.yaml")).context("cannot read template.yaml")?;
    let (_, rule) = template
        .split_once("\n  RegionIsAccepted:\n")
        .context("template.yaml has no rule RegionIsAccepted")?;
    let list = rule.split_once("- [").and_then(|(_, rest)| rest.split_once(']'));
    let (list, _) = list.context("RegionIsAccepted has no list of regions")?;
    Ok(list.split(',').map(|region| region.trim().to_owned()).collect())
}

/// Refuses a region before anything is built for it.
pub fn ensure_accepted(root: &Path, region: &str) -> Result<()> {
    ensure!(
        accepted(root)?.iter().any(|one| one == region),
        "template.yaml does not accept the region {region}: the functions do not trust databases there, or a service \
         is missing (docs/deploy.md, \"Regions\")"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn root() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
    }

    #[test]
    fn accepted_regions_have_root_certificate() {
        let bundle = fs::read_to_string(root().join("shared/core/rds-ca/rds-ca.pem")).expect("the bundle");
        let names = bundle.lines().filter_map(|line| line.strip_prefix("# Amazon RDS "));
        let mut with_certificate: BTreeSet<&str> = names.filter_map(|name| name.split(' ').next()).collect();
        // cfn-lint does not know it.
        assert!(with_certificate.remove("me-south-1"));
        let accepted = accepted(&root()).expect("regions");
        let distinct: BTreeSet<&str> = accepted.iter().map(String::as_str).collect();
        assert_eq!(distinct, with_certificate);
        assert_eq!(accepted.len(), distinct.len());
    }

    #[test]
    fn regions_without_root_certificate_are_refused() {
        for region in ["eu-central-1", "us-east-1", "sa-east-1"] {
            ensure_accepted(&root(), region).expect("accepted");
        }
        let refused = [
            "ap-east-2",
            "ap-southeast-5",
            "ap-southeast-6",
            "ap-southeast-7",
            "ca-west-1",
            "cn-north-1",
            "cn-northwest-1",
            "il-central-1",
            "mx-central-1",
            "us-gov-east-1",
            "us-gov-west-1",
            "eu-central",
            "",
        ];
        for region in refused {
            let error = ensure_accepted(&root(), region).expect_err(region);
            assert!(error.to_string().contains(&format!("the region {region}:")), "{error}");
        }
    }
}
