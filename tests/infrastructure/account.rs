//! dev/tools/account.py, which `make deploy-sandbox` and `make destroy-sandbox` run: here against
//! the emulator, under other names.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::{SAM_PYTHON, eventually};

/// A script that makes AWS API calls, given as a list of services, operations and inputs, and
/// prints a list of their outputs.
const CALL: &str = "import json, sys, botocore.session
client = lambda service: botocore.session.Session().create_client(service, 'us-east-1')
calls = json.loads(sys.argv[1])
print(json.dumps([client(service)._make_api_call(*call) for service, *call in calls], default=str))";

/// Its log group is retained: on AWS a late log line creates the group again after the stack has
/// deleted it.
const TEMPLATE: &str = r#"{"Resources":{"Logs":{
    "Type":"AWS::Logs::LogGroup","DeletionPolicy":"Retain","Properties":{"LogGroupName":{"Ref":"AWS::StackName"}}}}}"#;

/// Runs `call`, and prints its error.
const PRINT_ERROR: &str = "from botocore.exceptions import ClientError
try: exec(call)
except ClientError as error: print(error)";

/// A database as protected as prod's.
const PROTECTED: &str = r#"{"Resources":{"Database":{"Type":"AWS::RDS::DBCluster","Properties":{
    "DBClusterIdentifier":{"Ref":"AWS::StackName"},"Engine":"aurora-postgresql","MasterUsername":"postgres",
    "MasterUserPassword":"a password","DeletionProtection":true}}}}"#;

const EVERYTHING: [&str; 4] = ["stack", "log group", "snapshot", "upload"];

#[tokio::test]
async fn destroy_removes_only_named_stack() {
    let stack = format!("destroy-{:x}", fastrand::u64(..));
    let other = format!("{stack}-2");
    let bucket = sam_bucket();
    for name in [&stack, &other] {
        create_everything(name, &bucket).await;
    }
    assert_eq!(leftovers(&stack, &bucket), EVERYTHING);

    let printed = account(&["destroy", &stack, "us-east-1"]);
    assert_eq!(leftovers(&stack, &bucket), [""; 0], "{printed}");
    assert_eq!(leftovers(&other, &bucket), EVERYTHING, "{printed}");
    assert!(printed.contains(&format!("kept the bucket {bucket}")), "{printed}");

    let again = account(&["destroy", &stack, "us-east-1"]);
    assert!(again.contains(&format!("there is no stack {stack}")), "{again}");
    assert!(!again.contains("deleted"), "{again}");

    account(&["destroy", &other, "us-east-1"]);
    assert_eq!(leftovers(&other, &bucket), [""; 0]);
}

/// docs/operations.md, "Delete prod".
#[tokio::test]
async fn protected_stack_is_deleted_as_runbook_says() {
    let stack = format!("prod-{:x}", fastrand::u64(..));
    let name = json!({"StackName": stack});
    let cluster = json!({"DBClusterIdentifier": stack});
    let create = json!({"StackName": stack, "TemplateBody": PROTECTED, "EnableTerminationProtection": true});
    aws(&json!([["cloudformation", "CreateStack", create]]));
    let status = async |expected: &str| {
        eventually(30, expected, async || {
            let found = aws(&json!([["cloudformation", "ListStacks", {}]]));
            let stacks = found[0]["StackSummaries"].as_array().expect("stacks").iter();
            let mut stacks = stacks.filter(|found| found["StackName"] == stack);
            stacks.any(|found| found["StackStatus"] == expected).then_some(())
        })
        .await;
    };
    status("CREATE_COMPLETE").await;

    let refused = error(&json!(["cloudformation", "DeleteStack", name]));
    assert!(refused.contains("TerminationProtection is enabled"), "{refused}");
    let unprotected = json!({"StackName": stack, "EnableTerminationProtection": false});
    aws(&json!([["cloudformation", "UpdateTerminationProtection", unprotected]]));
    let refused = error(&json!(["rds", "DeleteDBCluster", {"DBClusterIdentifier": stack, "SkipFinalSnapshot": true}]));
    assert!(refused.contains("DeletionProtection is enabled"), "{refused}");
    let unprotected = json!({"DBClusterIdentifier": stack, "DeletionProtection": false, "ApplyImmediately": true});
    aws(&json!([
        ["rds", "ModifyDBCluster", unprotected],
        ["cloudformation", "DeleteStack", name]
    ]));
    status("DELETE_COMPLETE").await;
    let gone = error(&json!(["rds", "DescribeDBClusters", cluster]));
    assert!(gone.contains("DBClusterNotFound"), "{gone}");
}

#[test]
fn inspect_reports_identity_and_settings_of_account() {
    let found: Value = serde_json::from_str(&account(&["inspect", "us-east-1"])).expect("JSON");
    let role = found["api_log_role"].as_str().expect("a value of ApiLogRole");
    // The role is a setting of the account: another stack may have set it.
    assert!(["create", "existing"].contains(&role), "{role}");
    let arn = "arn:aws:iam::000000000000:root";
    let settings = aws(&json!([["lambda", "GetAccountSettings", {}]]));
    let concurrency = &settings[0]["AccountLimit"]["UnreservedConcurrentExecutions"];
    assert!(concurrency.is_u64(), "{settings}");
    assert_eq!(
        found,
        json!({"account": "000000000000", "arn": arn, "api_log_role": role, "concurrency": concurrency})
    );
}

/// Creates a stack, and everything that its deletion leaves behind.
async fn create_everything(stack: &str, bucket: &str) {
    let cluster = json!({"DBClusterIdentifier": stack, "Engine": "aurora-postgresql",
        "MasterUsername": "postgres", "MasterUserPassword": "a password"});
    let snapshot = json!({"DBClusterIdentifier": stack, "DBClusterSnapshotIdentifier": final_snapshot(stack)});
    let object = json!({"Bucket": bucket, "Key": format!("{stack}/package")});
    aws(&json!([
        ["cloudformation", "CreateStack", {"StackName": stack, "TemplateBody": TEMPLATE}],
        ["rds", "CreateDBCluster", cluster],
        ["rds", "CreateDBClusterSnapshot", snapshot],
        ["rds", "DeleteDBCluster", {"DBClusterIdentifier": stack, "SkipFinalSnapshot": true}],
        // Uploaded twice and deleted: the bucket stores both versions and a delete marker.
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

/// Those of `EVERYTHING` that still exist.
fn leftovers(stack: &str, bucket: &str) -> Vec<&'static str> {
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

/// The name that CloudFormation gives a final snapshot.
fn final_snapshot(stack: &str) -> String {
    format!("{stack}-snapshot-database-1abc")
}

/// The bucket to which `sam deploy` uploads packages.
fn sam_bucket() -> String {
    let stack = json!({"StackName": "aws-sam-cli-managed-default"});
    let found = aws(&json!([["cloudformation", "DescribeStacks", stack]]));
    let bucket = &found[0]["Stacks"][0]["Outputs"][0]["OutputValue"];
    bucket.as_str().expect("a bucket").to_owned()
}

fn aws(calls: &Value) -> Value {
    serde_json::from_str(&python(&["-c", CALL, &calls.to_string()])).expect("JSON")
}

/// The error of an AWS API call.
fn error(call: &Value) -> String {
    let calls = json!([call]).to_string();
    python(&["-c", &format!("call = {CALL:?}\n{PRINT_ERROR}"), &calls])
}

/// Runs dev/tools/account.py as xtask does; returns its output.
fn account(arguments: &[&str]) -> String {
    let script = [concat!(env!("CARGO_MANIFEST_DIR"), "/../dev/tools/account.py")];
    python(&[&script, arguments].concat())
}

/// Runs the Python of the SAM CLI; returns its output.
fn python(arguments: &[&str]) -> String {
    let output = Command::new(SAM_PYTHON).args(arguments).output().expect("it starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    let (printed, error) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{arguments:?}: {printed}{error}");
    printed
}
