//! dev/tools/translate.py and dev/tools/policies.py, which `make lint` runs.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Value, json};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Translates the template after each change, and prints the logical id of get-task's version.
const VERSIONS: &str = r#"
import json, sys
sys.path.insert(0, "dev/tools")
from translate import PARAMETERS, translate
changes = json.loads(sys.argv[1])
def version(properties):
    def change(template):
        template["Resources"]["GetTaskFunction"]["Properties"].update(properties)
    translated = translate("template.yaml", {"Environment": "prod", **PARAMETERS["prod"]}, change)
    (found,) = [name for name in translated["Resources"] if name.startswith("GetTaskFunctionVersion")]
    return found
print(json.dumps({name: version(properties) for name, properties in changes.items()}))
"#;

fn python(tool: &str, arguments: &[&str]) -> Output {
    let program = Path::new(ROOT).join(".local/tools").join(tool).join("bin/python");
    let mut command = Command::new(program);
    command.current_dir(ROOT).env("AWS_DEFAULT_REGION", "us-east-1");
    command.args(arguments).output().expect("it starts")
}

/// The alias keeps its version, with the old property, unless there is a new one.
#[test]
fn every_property_changes_version_of_function() {
    let changes = json!({
        "none": {},
        "timeout": {"Timeout": 4},
        "memory": {"MemorySize": 512},
        "variable": {"Environment": {"Variables": {"DATABASE_ROLE": "writer"}}},
        "log level": {"LoggingConfig": {"LogFormat": "JSON", "ApplicationLogLevel": "INFO"}},
        "tracing": {"Tracing": "PassThrough"},
        "network": {"VpcConfig": {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}},
        "runtime": {"Runtime": "provided.al2"},
        "storage": {"EphemeralStorage": {"Size": 1024}},
    });
    let output = python("sam", &["-c", VERSIONS, &changes.to_string()]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    let versions: BTreeMap<String, String> = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(versions.len(), changes.as_object().expect("changes").len());
    for (change, version) in &versions {
        let same = versions.iter().filter(|(_, other)| *other == version).map(|(name, _)| name);
        assert_eq!(same.collect::<Vec<_>>(), [change]);
    }
}

/// Runs policies.py on a template with a statement.
fn check_policy(name: &str, statement: &Value) -> (bool, String) {
    let folder = PathBuf::from(ROOT).join("target/policy-tests");
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join(format!("{name}.json"));
    let policy = json!({"PolicyDocument": {"Statement": statement}});
    let template = json!({"Resources": {"Role": {"Type": "AWS::IAM::Role", "Properties": {"Policies": [policy]}}}});
    std::fs::write(&file, template.to_string()).expect("written");
    let output = python("checkov", &["dev/tools/policies.py", &file.to_string_lossy()]);
    let printed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success(), printed)
}

#[test]
fn mistakes_in_policies_are_found() {
    let send = |action: &str| json!({"Effect": "Allow", "Action": action, "Resource": "arn:aws:sqs:*:*:queue"});
    assert_eq!(check_policy("correct", &send("sqs:SendMessage")), (true, "1 statements are correct".to_owned()));
    let boundary = json!({"StringEquals": {"iam:PermissionsBoundary": "b", "aws:RequestedRegion": "r"}});
    let role = "arn:aws:iam::1:role/r";
    for (name, statement, mistake) in [
        ("unknown", send("sqs:SendMessages"), "there is no action sqs:SendMessages"),
        ("wildcard", send("sqs:Sent*"), "there is no action sqs:Sent*"),
        ("resource", send("sqs:ListQueues"), "sqs:ListQueues takes no resource but *"),
        (
            "condition",
            json!({"Action": ["iam:CreateRole", "iam:DeleteRole"], "Resource": role, "Condition": boundary}),
            "iam:DeleteRole does not know the condition key iam:PermissionsBoundary",
        ),
    ] {
        assert_eq!(check_policy(name, &statement), (false, format!("{name}.json: Role: {mistake}")), "{name}");
    }
}
