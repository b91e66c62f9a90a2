"""Operations on the AWS account of a sandbox beyond `sam deploy`. Run by the SAM CLI's Python, which has botocore.

    account.py region              print the region of the caller's profile, if any
    account.py inspect REGION      print the caller's identity, the account's API Gateway log role and its unreserved
                                   concurrency of Lambda, as JSON
    account.py destroy STACK REGION
                                   delete the stack and all that CloudFormation leaves behind
"""

import json
import sys

import botocore.session
from botocore.exceptions import BotoCoreError, ClientError, WaiterError

# The stack with the bucket to which `sam deploy` uploads with resolve_s3.
SAM_STACK = "aws-sam-cli-managed-default"

SESSION = botocore.session.Session()


def region():
    print(SESSION.get_config_variable("region") or "")


def inspect(region_name):
    identity = SESSION.create_client("sts", region_name).get_caller_identity()
    limits = SESSION.create_client("lambda", region_name).get_account_settings()["AccountLimit"]
    found = {
        "account": identity["Account"],
        "arn": identity["Arn"],
        "api_log_role": api_log_role(region_name),
        "concurrency": limits["UnreservedConcurrentExecutions"],
    }
    print(json.dumps(found))


def api_log_role(region_name):
    """The parameter ApiLogRole. API Gateway has one setting per account and region, which outlives the role it names."""
    arn = SESSION.create_client("apigateway", region_name).get_account().get("cloudwatchRoleArn")
    if not arn:
        return "create"
    try:
        SESSION.create_client("iam", region_name).get_role(RoleName=arn.rsplit("/", 1)[1])
    except ClientError as error:
        if error.response["Error"]["Code"] == "NoSuchEntity":
            return "create"
        raise
    return "existing"


def destroy(stack, region_name):
    cloudformation, logs, rds, s3 = (
        SESSION.create_client(service, region_name) for service in ("cloudformation", "logs", "rds", "s3")
    )
    # Read before the stack is deleted, and including stacks of earlier runs, which may have been
    # interrupted.
    groups = {group for stack_id in stack_ids(cloudformation, stack) for group in log_groups(cloudformation, stack_id)}
    delete_stack(cloudformation, stack)
    delete_log_groups(logs, groups)
    delete_final_snapshots(rds, stack)
    empty_sam_bucket(cloudformation, s3, stack)


def stack_ids(cloudformation, stack):
    """The ids of all stacks of this name, including deleted ones (which CloudFormation lists for 90 days)."""
    pages = cloudformation.get_paginator("list_stacks").paginate()
    return [
        summary["StackId"] for page in pages for summary in page["StackSummaries"] if summary["StackName"] == stack
    ]


def delete_stack(cloudformation, stack):
    found = find_stack(cloudformation, stack)
    if found is None:
        say(f"there is no stack {stack}")
        return
    say(f"deleting the stack {stack} (Aurora and the functions' network interfaces take half an hour)")
    cloudformation.delete_stack(StackName=found["StackId"])
    waiter = cloudformation.get_waiter("stack_delete_complete")
    waiter.wait(StackName=found["StackId"], WaiterConfig={"Delay": 2, "MaxAttempts": 3600})
    say("deleted the stack")


def find_stack(cloudformation, name_or_id):
    """The stack, or None if there is none."""
    try:
        return cloudformation.describe_stacks(StackName=name_or_id)["Stacks"][0]
    except ClientError as error:
        if error.response["Error"]["Code"] == "ValidationError":
            return None
        raise


def log_groups(cloudformation, stack_id):
    """Log groups of the stack, which a late log line may have recreated, and those that Lambda creates for functions."""
    pages = cloudformation.get_paginator("list_stack_resources").paginate(StackName=stack_id)
    for resource in (resource for page in pages for resource in page["StackResourceSummaries"]):
        name = resource.get("PhysicalResourceId")
        if name and resource["ResourceType"] == "AWS::Logs::LogGroup":
            yield name
        elif name and resource["ResourceType"] == "AWS::Lambda::Function":
            yield f"/aws/lambda/{name}"


def delete_log_groups(logs, names):
    for name in sorted(names):
        try:
            logs.delete_log_group(logGroupName=name)
            say(f"deleted the log group {name}")
        except logs.exceptions.ResourceNotFoundException:
            pass


def delete_final_snapshots(rds, stack):
    """Deletes the snapshots of DeletionPolicy: Snapshot, named <stack>-snapshot-<logical id>-<random>."""
    pages = rds.get_paginator("describe_db_cluster_snapshots").paginate(SnapshotType="manual")
    snapshots = [snapshot for page in pages for snapshot in page["DBClusterSnapshots"]]
    for name in (snapshot["DBClusterSnapshotIdentifier"] for snapshot in snapshots):
        if name.startswith(f"{stack}-snapshot-"):
            rds.get_waiter("db_cluster_snapshot_available").wait(DBClusterSnapshotIdentifier=name)
            rds.delete_db_cluster_snapshot(DBClusterSnapshotIdentifier=name)
            say(f"deleted the snapshot {name}")


def empty_sam_bucket(cloudformation, s3, stack):
    """Deletes all versions of the stack's uploads (`sam delete` leaves older ones), and the bucket if it is then empty."""
    found = find_stack(cloudformation, SAM_STACK)
    if found is None:
        return
    bucket = next(output["OutputValue"] for output in found["Outputs"] if output["OutputKey"] == "SourceBucket")
    # s3_prefix in samconfig.toml
    versions = object_versions(s3, bucket, f"{stack}/")
    for version in versions:
        s3.delete_object(Bucket=bucket, Key=version["Key"], VersionId=version["VersionId"])
    if versions:
        say(f"deleted {len(versions)} uploads from the bucket {bucket}")
    if object_versions(s3, bucket, ""):
        say(f"kept the bucket {bucket}: other stacks of the SAM CLI use it")
        return
    cloudformation.delete_stack(StackName=SAM_STACK)
    cloudformation.get_waiter("stack_delete_complete").wait(StackName=SAM_STACK, WaiterConfig={"Delay": 5})
    say(f"deleted the empty bucket {bucket}; `sam deploy` creates it again")


def object_versions(s3, bucket, prefix):
    pages = s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix)
    return [version for page in pages for kind in ("Versions", "DeleteMarkers") for version in page.get(kind, [])]


def say(text):
    print(f"  {text}", flush=True)


COMMANDS = {"region": region, "inspect": inspect, "destroy": destroy}

if __name__ == "__main__":
    try:
        COMMANDS[sys.argv[1]](*sys.argv[2:])
    except (BotoCoreError, ClientError, WaiterError) as error:
        sys.exit(str(error))
