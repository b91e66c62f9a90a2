//! What dev/tools/account.py does for `make deploy-sandbox` and `make destroy-sandbox`. Here in the emulator, under other names.

use std::{path::Path, process::Command};

use serde_json::{Value, json};

use crate::support::eventually;

/// Any calls of the AWS API, as a list of services, operations and inputs; its answer is the list of theirs.
const CALL: &str = "import json, sys, botocore.session
client = lambda service: botocore.session.Session().create_client(service, 'us-east-1')
calls = json.loads(sys.argv[1])
print(json.dumps([client(service)._make_api_call(*call) for service, *call in calls], default=str))";

/// Its log group is retained: on AWS a late line makes one again after the stack has deleted it.
const TEMPLATE: &str = r#"{"Resources":{"Logs":{
    "Type":"AWS::Logs::LogGroup","DeletionPolicy":"Retain","Properties":{"LogGroupName":{"Ref":"AWS::StackName"}}}}}"#;

const EVERYTHING: [&str; 4] = ["stack", "log group", "snapshot", "upload"];

#[tokio::test]
async fn destroy_removes_stack_and_spares_neighbour() {
    let stack = format!("destroy-{:x}", fastrand::u64(..));
    let neighbour = format!("{stack}-2");
    let bucket = sam_bucket();
    for name in [&stack, &neighbour] {
        create_everything(name, &bucket).await;
    }
    assert_eq!(what_is_left_of(&stack, &bucket), EVERYTHING);

    let said = account(&["destroy", &stack, "us-east-1"]);
    assert_eq!(what_is_left_of(&stack, &bucket), [""; 0], "{said}");
    assert_eq!(what_is_left_of(&neighbour, &bucket), EVERYTHING, "{said}");
    assert!(said.contains(&format!("kept the bucket {bucket}")), "{said}");

    let again = account(&["destroy", &stack, "us-east-1"]);
    assert!(again.contains(&format!("there is no stack {stack}")), "{again}");
    assert!(!again.contains("deleted"), "{again}");

    account(&["destroy", &neighbour, "us-east-1"]);
    assert_eq!(what_is_left_of(&neighbour, &bucket), [""; 0]);
}

#[test]
fn look_reports_identity_and_api_log_role() {
    let found: Value = serde_json::from_str(&account(&["look", "us-east-1"])).expect("JSON");
    let role = found["api_log_role"].as_str().expect("a value of ApiLogRole");
    // Of the whole account: another stack may have set it.
    assert!(["create", "existing"].contains(&role), "{role}");
    let arn = "arn:aws:iam::000000000000:root";
    assert_eq!(
        found,
        json!({"account": "000000000000", "arn": arn, "api_log_role": role})
    );
}

/// What a stack consists of, and what it leaves behind.
async fn create_everything(stack: &str, bucket: &str) {
    let cluster = json!({"DBClusterIdentifier": stack, "Engine": "aurora-postgresql",
        "MasterUsername": "somebody", "MasterUserPassword": "a password"});
    let snapshot = json!({"DBClusterIdentifier": stack, "DBClusterSnapshotIdentifier": final_snapshot(stack)});
    let object = json!({"Bucket": bucket, "Key": format!("{stack}/package")});
    aws(&json!([
        ["cloudformation", "CreateStack", {"StackName": stack, "TemplateBody": TEMPLATE}],
        ["rds", "CreateDBCluster", cluster],
        ["rds", "CreateDBClusterSnapshot", snapshot],
        ["rds", "DeleteDBCluster", {"DBClusterIdentifier": stack, "SkipFinalSnapshot": true}],
        // Twice, and deleted: the bucket keeps both versions, and the deletion.
        ["s3", "PutObject", object],
        ["s3", "PutObject", object],
        ["s3", "DeleteObject", object],
    ]));
    eventually(30, "the stack is complete", async || {
        let found = aws(&json!([["cloudformation", "DescribeStacks", {"StackName": stack}]]));
        (found[0]["Stacks"][0]["StackStatus"] == "CREATE_COMPLETE").then_some(())
    })
    .await;
}

/// Which of all that there is.
fn what_is_left_of(stack: &str, bucket: &str) -> Vec<&'static str> {
    let found = aws(&json!([
        ["cloudformation", "ListStacks", {}],
        ["logs", "DescribeLogGroups", {"logGroupNamePrefix": stack}],
        ["rds", "DescribeDBClusterSnapshots", {}],
        ["s3", "ListObjectVersions", {"Bucket": bucket, "Prefix": format!("{stack}/")}],
    ]));
    let any = |list: &Value, is_ours: &dyn Fn(&Value) -> bool| {
        let list = list.as_array().map(Vec::as_slice);
        list.unwrap_or_default().iter().any(is_ours)
    };
    let left = [
        any(&found[0]["StackSummaries"], &|found| {
            found["StackName"] == stack && found["StackStatus"] != "DELETE_COMPLETE"
        }),
        any(&found[1]["logGroups"], &|found| found["logGroupName"] == stack),
        any(&found[2]["DBClusterSnapshots"], &|found| {
            found["DBClusterSnapshotIdentifier"] == final_snapshot(stack)
        }),
        any(&found[3]["Versions"], &|_| true) || any(&found[3]["DeleteMarkers"], &|_| true),
    ];
    let names = EVERYTHING.iter().zip(left);
    names.filter(|(_, left)| *left).map(|(name, _)| *name).collect()
}

/// As CloudFormation names it.
fn final_snapshot(stack: &str) -> String {
    format!("{stack}-snapshot-database-1abc")
}

/// Where `sam deploy` has uploaded the stack that the tests run against.
fn sam_bucket() -> String {
    let stack = json!({"StackName": "aws-sam-cli-managed-default"});
    let found = aws(&json!([["cloudformation", "DescribeStacks", stack]]));
    let bucket = &found[0]["Stacks"][0]["Outputs"][0]["OutputValue"];
    bucket.as_str().expect("a bucket").to_owned()
}

fn aws(calls: &Value) -> Value {
    serde_json::from_str(&python(&["-c", CALL, &calls.to_string()])).expect("JSON")
}

/// Runs dev/tools/account.py as xtask does; returns what it says.
fn account(arguments: &[&str]) -> String {
    let script = [concat!(env!("CARGO_MANIFEST_DIR"), "/../dev/tools/account.py")];
    python(&[&script, arguments].concat())
}

/// The Python of the SAM CLI.
fn python(arguments: &[&str]) -> String {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.local/tools/sam/bin/python");
    let output = Command::new(program).args(arguments).output().expect("it starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    let (said, error) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{arguments:?}: {said}{error}");
    said
}
