"""Translates the SAM template to CloudFormation, for each environment and some variants: translate.py TEMPLATE FOLDER

<environment>.json is the output of the SAM transform, which CloudFormation runs on `sam deploy`; linters do not
expand SAM. <environment>.resolved.json has its conditions, parameters and mappings resolved: only the resources that
would exist. References between resources stay as they are. bootstrap.json is bootstrap.yaml, which is beside the
template.
"""

import json
import sys
from pathlib import Path

from samcli.yamlhelper import yaml_parse
from samtranslator.translator.managed_policy_translator import ManagedPolicyLoader
from samtranslator.translator.transform import transform

# The parameters that each environment must set to satisfy the template's Rules.
PARAMETERS = {
    "local": {"Auth": "open"},
    "sandbox": {"JwtIssuer": "https://issuer.example.com", "AlarmEmail": "alarms@example.com"},
    "prod": {"JwtIssuer": "https://issuer.example.com", "AlarmEmail": "alarms@example.com", "DatabaseProxy": "true"},
}
# Other parameters of prod, by the name of the variant.
VARIANTS = {
    "prod-at-once": {"Rollout": "at-once"},
    "prod-without-proxy": {"DatabaseProxy": "false"},
    "prod-with-options": {
        "PermissionsBoundary": "arn:aws:iam::123456789012:policy/boundary",
        "DomainName": "tasks.example.com",
        "HostedZoneId": "Z0123456789ABCDEFGHIJ",
        "BasePath": "v1",
        "RequestsPerAddress": "1000",
    },
}

NOTHING = {"Ref": "AWS::NoValue"}


class NoManagedPolicies(ManagedPolicyLoader):
    """Resolves names of AWS managed policies without calling IAM."""

    def __init__(self):
        super().__init__(None)

    def load(self):
        return {}


def translate(template_file, parameters):
    """Runs the SAM transform on the template."""
    template = yaml_parse(Path(template_file).read_text(encoding="utf-8"))
    # The transform runs after packaging, which replaces the folders with S3 locations.
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            resource["Properties"]["CodeUri"] = {"Bucket": "bucket", "Key": "key"}
    declared = {name: one.get("Default") for name, one in template["Parameters"].items()}
    return transform(template, declared | parameters, NoManagedPolicies())


class Resolver:
    """Resolves conditions, parameters and mappings as CloudFormation does."""

    def __init__(self, template, parameters):
        self.template = template
        self.values = {name: one.get("Default") for name, one in template["Parameters"].items()} | parameters

    def condition(self, expression):
        """The value of a condition: its name or its expression."""
        if isinstance(expression, str):
            return self.condition(self.template["Conditions"][expression])
        ((function, of),) = expression.items()
        if function == "Condition":
            return self.condition(of)
        if function == "Fn::Equals":
            one, other = map(self.resolve, of)
            return one == other
        decide = {"Fn::Not": lambda of: not of[0], "Fn::And": all, "Fn::Or": any}[function]
        return decide([self.condition(each) for each in of])

    def resolve(self, value):
        """The value with conditions, parameters and mappings resolved."""
        if isinstance(value, list):
            return [one for one in map(self.resolve, value) if one != NOTHING]
        if not isinstance(value, dict):
            return value
        if value.get("Ref") in self.values:
            return self.values[value["Ref"]]
        if "Fn::If" in value:
            condition, then, otherwise = value["Fn::If"]
            return self.resolve(then if self.condition(condition) else otherwise)
        if "Fn::FindInMap" in value:
            name, first, second = map(self.resolve, value["Fn::FindInMap"])
            return self.template["Mappings"][name][first][second]
        resolved = {key: self.resolve(each) for key, each in value.items()}
        return {key: each for key, each in resolved.items() if each != NOTHING}

    def section(self, name):
        """The entries of a section that exist, resolved."""
        found = {key: one for key, one in self.template[name].items() if self.exists(one)}
        return {key: self.resolve({k: v for k, v in one.items() if k != "Condition"}) for key, one in found.items()}

    def exists(self, one):
        return "Condition" not in one or self.condition(one["Condition"])


def main(template_file, folder):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sets = {name: {"Environment": name, **parameters} for name, parameters in PARAMETERS.items()}
    sets |= {name: sets["prod"] | parameters for name, parameters in VARIANTS.items()}
    for name, parameters in sets.items():
        translated = translate(template_file, parameters)
        resolver = Resolver(translated, parameters)
        resolved = {section: resolver.section(section) for section in ("Resources", "Outputs")}
        resolved = {"AWSTemplateFormatVersion": "2010-09-09", **resolved}
        for file, template in ((name, translated), (f"{name}.resolved", resolved)):
            (folder / f"{file}.json").write_text(json.dumps(template, indent=2), encoding="utf-8")
    bootstrap = yaml_parse(Path(template_file).with_name("bootstrap.yaml").read_text(encoding="utf-8"))
    (folder / "bootstrap.json").write_text(json.dumps(bootstrap, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
