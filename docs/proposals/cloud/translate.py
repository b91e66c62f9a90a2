"""Translates a SAM template into CloudFormation, as `sam deploy` does: translate.py TEMPLATE OUTPUT ENVIRONMENT

cfn-lint does not expand SAM, so what SAM makes of the template is linted on its own.
"""

import json
import sys

from samcli.yamlhelper import yaml_parse
from samtranslator.translator.managed_policy_translator import ManagedPolicyLoader
from samtranslator.translator.transform import transform

ARCHITECTURE = "arm64"


class NoManagedPolicies(ManagedPolicyLoader):
    """Resolves names of AWS managed policies without asking IAM."""

    def __init__(self):
        super().__init__(None)

    def load(self):
        return {}


def main(template_file, output_file, environment="sandbox"):
    with open(template_file, encoding="utf-8") as file:
        template = yaml_parse(file.read())
    # The transform runs after packaging, which replaces the folders by S3 locations.
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            resource["Properties"]["CodeUri"] = {"Bucket": "bucket", "Key": "key"}
    translated = transform(template, {"Environment": environment, "Architecture": ARCHITECTURE}, NoManagedPolicies())
    with open(output_file, "w", encoding="utf-8") as file:
        json.dump(translated, file, indent=2)


if __name__ == "__main__":
    main(*sys.argv[1:])
