//! The parameters of template.yaml, locally and in the sandbox.

use std::{collections::BTreeMap, env};

use anyhow::Result;

use crate::stack::{Stack, settings::Auth};

/// The origins whose pages may call the local API.
const LOCAL_ORIGINS: &str = "http://localhost:*";

/// Every parameter of template.yaml with its default in the sandbox, which the developer's choices
/// override. All are passed in each deployment: an omitted parameter would keep its previous value.
pub const SANDBOX: [(&str, &str); 24] = [
    ("Environment", "sandbox"),
    ("Architecture", "arm64"),
    ("Auth", "closed"),
    ("JwtIssuer", ""),
    ("JwtAudience", ""),
    ("JwksUrl", ""),
    ("AdminScope", "admin"),
    ("ViewerScope", "viewer"),
    ("LocalJwks", ""),
    ("CorsAllowOrigins", ""),
    ("DomainName", ""),
    ("HostedZoneId", ""),
    ("BasePath", ""),
    ("RequestsPerAddress", "0"),
    ("DatabaseUrl", ""),
    ("DatabaseProxy", "false"),
    ("AlarmEmail", ""),
    ("ApiLogRole", "create"),
    ("PermissionsBoundary", ""),
    ("LogLevel", "info"),
    ("ReconcilerSchedule", ""),
    ("IdempotencyKeySeconds", "86400"),
    ("TaskRetentionDays", "0"),
    ("Rollout", "gradual"),
];

/// The settings of a local deployment.
pub struct Local<'a> {
    /// The database's URL for the functions.
    pub database_url: &'a str,
    /// Whether its API requires tokens.
    pub auth: Auth,
}

/// The parameters of a local deployment, as SAM takes them.
pub fn local(stack: &Stack, local: &Local) -> Result<Vec<String>> {
    let Local { database_url, auth } = local;
    Ok(vec![
        "Environment=local".to_owned(),
        format!("Architecture={}", architecture()),
        format!("DatabaseUrl={database_url}"),
        format!("CorsAllowOrigins={LOCAL_ORIGINS}"),
        format!("Auth={}", auth.as_str()),
        format!("JwtIssuer={}", local_issuer::ISSUER),
        format!("JwtAudience={}", local_issuer::AUDIENCE),
        // In quotes: otherwise SAM takes only the first character.
        format!("LocalJwks='{}'", stack.issuer()?.jwks()),
        format!(
            "LogLevel={}",
            env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned())
        ),
    ])
}

/// The parameters of a bare `sam local start-api`, in YAML: those of [`local`] that matter to an
/// open API.
pub fn sam_local(architecture: &str) -> String {
    format!("Environment: local\nArchitecture: {architecture}\nAuth: open\nCorsAllowOrigins: \"{LOCAL_ORIGINS}\"\n")
}

/// The sandbox's parameters, as SAM takes them; in quotes, because it rejects empty values
/// otherwise.
pub fn sandbox(choices: &BTreeMap<String, String>) -> Vec<String> {
    let value = |name: &str, default: &str| choices.get(name).map_or(default, String::as_str).replace('"', "\\\"");
    SANDBOX
        .iter()
        .map(|(name, default)| format!("{name}=\"{}\"", value(name, default)))
        .collect()
}

/// The parameters of a sandbox in the emulator that accepts tokens of the local issuer, whose keys
/// are at `jwks_url`.
pub fn emulated_sandbox(jwks_url: &str) -> Vec<String> {
    let choices = [
        ("Architecture", architecture()),
        ("JwtIssuer", local_issuer::ISSUER),
        ("JwtAudience", local_issuer::AUDIENCE),
        ("JwksUrl", jwks_url),
    ];
    sandbox(&choices.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
}

/// AWS's name for the CPU architecture of this machine.
pub fn architecture() -> &'static str {
    match env::consts::ARCH {
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::{Path, PathBuf},
    };

    use super::*;

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
    }

    #[test]
    fn template_parameters_are_all_passed() {
        let template = fs::read_to_string(root().join("template.yaml")).expect("a template");
        let (_, section) = template.split_once("\nParameters:\n").expect("parameters");
        let names: Vec<&str> = section
            .lines()
            .take_while(|line| line.is_empty() || line.starts_with(' '))
            .filter_map(|line| line.strip_prefix("  ")?.strip_suffix(':'))
            .filter(|name| !name.starts_with([' ', '#']))
            .collect();
        assert!(names.len() >= 12, "{names:?}");
        for name in names {
            assert!(SANDBOX.iter().any(|(passed, _)| *passed == name), "{name}");
        }
    }

    #[test]
    fn workflow_passes_the_same_parameters() {
        let workflow = fs::read_to_string(root().join(".github/workflows/deploy-to.yml")).expect("a workflow");
        let passed: Vec<&str> = workflow
            .lines()
            .filter_map(|line| Some(line.trim().strip_prefix('"')?.split_once("=\\\"")?.0))
            .collect();
        assert_eq!(passed, SANDBOX.map(|(name, _)| name));
    }

    #[test]
    fn workflow_can_be_started_with_rollout_at_once() {
        let workflow = fs::read_to_string(root().join(".github/workflows/deploy.yml")).expect("a workflow");
        let (_, inputs) = workflow
            .split_once("\n  workflow_dispatch:\n    inputs:\n      rollout:\n")
            .expect("an input");
        let (inputs, jobs) = inputs.split_once("\njobs:\n").expect("jobs");
        assert!(
            inputs.contains("\n        options: [gradual, at-once]\n        default: gradual\n"),
            "{inputs}"
        );
        // A push has no inputs.
        let passed = "\n      rollout: ${{ inputs.rollout || 'gradual' }}\n";
        assert_eq!(jobs.matches(passed).count(), 2, "{jobs}");
    }

    #[test]
    fn workflow_protects_prod_from_deletion() {
        let workflow = fs::read_to_string(root().join(".github/workflows/deploy-to.yml")).expect("a workflow");
        let (_, after_deployment) = workflow.split_once("          sam deploy ").expect("a deployment");
        let step = "if: inputs.environment == 'prod'\n        run: aws cloudformation update-termination-protection \
                    --stack-name task-api-prod --enable-termination-protection\n";
        assert!(after_deployment.contains(step), "{after_deployment}");
    }

    #[test]
    fn choices_override_defaults_and_are_quoted() {
        let choices = BTreeMap::from([
            ("Region".to_owned(), "eu-central-1".to_owned()),
            ("JwtIssuer".to_owned(), "https://issuer.example/".to_owned()),
            ("ReconcilerSchedule".to_owned(), "rate(12 hours)".to_owned()),
            ("LogLevel".to_owned(), "a\"b".to_owned()),
        ]);
        let parameters = sandbox(&choices);
        for expected in [
            r#"Environment="sandbox""#,
            r#"Auth="closed""#,
            r#"JwtIssuer="https://issuer.example/""#,
            r#"JwksUrl="""#,
            r#"ReconcilerSchedule="rate(12 hours)""#,
            r#"LogLevel="a\"b""#,
        ] {
            assert!(
                parameters.iter().any(|parameter| parameter == expected),
                "{expected}: {parameters:?}"
            );
        }
        assert_eq!(parameters.len(), SANDBOX.len(), "the region is not a parameter");
    }
}
