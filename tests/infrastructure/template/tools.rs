//! dev/tools/policies.py, which `make lint` runs.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Value, json};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn python(tool: &str, arguments: &[&str]) -> Output {
    let program = Path::new(ROOT).join(".local/tools").join(tool).join("bin/python");
    let mut command = Command::new(program);
    command.current_dir(ROOT).env("AWS_DEFAULT_REGION", "us-east-1");
    command.args(arguments).output().expect("it starts")
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
    assert_eq!(
        check_policy("correct", &send("sqs:SendMessage")),
        (true, "1 statements are correct".to_owned())
    );
    let boundary = json!({"StringEquals": {"iam:PermissionsBoundary": "b", "aws:RequestedRegion": "r"}});
    let role = "arn:aws:iam::1:role/r";
    for (name, statement, mistake) in [
        (
            "unknown",
            send("sqs:SendMessages"),
            "there is no action sqs:SendMessages",
        ),
        ("wildcard", send("sqs:Sent*"), "there is no action sqs:Sent*"),
        (
            "resource",
            send("sqs:ListQueues"),
            "sqs:ListQueues takes no resource but *",
        ),
        (
            "condition",
            json!({"Action": ["iam:CreateRole", "iam:DeleteRole"], "Resource": role, "Condition": boundary}),
            "iam:DeleteRole does not know the condition key iam:PermissionsBoundary",
        ),
    ] {
        assert_eq!(
            check_policy(name, &statement),
            (false, format!("{name}.json: Role: {mistake}")),
            "{name}"
        );
    }
}
