"""Decides the conditions of a translated template as CloudFormation would: resolve.py TRANSLATED OUTPUT [NAME=VALUE...]

Checkers look at what is there, not at what would be there if. References between resources stay as they are.
"""

import json
import sys

NOTHING = {"Ref": "AWS::NoValue"}


class Template:
    def __init__(self, template, overrides):
        self.template = template
        declared = template["Parameters"]
        unknown = overrides.keys() - declared.keys()
        if unknown:
            sys.exit(f"no such parameter: {', '.join(sorted(unknown))}")
        self.values = {name: overrides.get(name, one.get("Default")) for name, one in declared.items()}

    def condition(self, expression):
        """True or false: a condition's name, or what it is made of."""
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
        """The value without conditions, parameters and mappings."""
        if isinstance(value, list):
            return [self.resolve(each) for each in value if self.resolve(each) != NOTHING]
        if not isinstance(value, dict):
            return value
        if value.get("Ref") in self.values:
            return self.values[value["Ref"]]
        if "Fn::If" in value:
            condition, then, otherwise = value["Fn::If"]
            return self.resolve(then if self.condition(condition) else otherwise)
        if "Fn::FindInMap" in value:
            name, first, second = (self.resolve(key) for key in value["Fn::FindInMap"])
            return self.template["Mappings"][name][first][second]
        resolved = {key: self.resolve(each) for key, each in value.items()}
        return {key: each for key, each in resolved.items() if each != NOTHING}

    def section(self, name):
        """What exists of a section."""
        there = {key: one for key, one in self.template[name].items() if self.condition_of(one)}
        return {key: self.resolve({k: v for k, v in one.items() if k != "Condition"}) for key, one in there.items()}

    def condition_of(self, one):
        return "Condition" not in one or self.condition(one["Condition"])


def main(translated_file, output_file, *overrides):
    with open(translated_file, encoding="utf-8") as file:
        template = Template(json.load(file), dict(pair.split("=", 1) for pair in overrides))
    resolved = {name: template.section(name) for name in ("Resources", "Outputs")}
    with open(output_file, "w", encoding="utf-8") as file:
        json.dump({"AWSTemplateFormatVersion": "2010-09-09", **resolved}, file, indent=2)


if __name__ == "__main__":
    main(*sys.argv[1:])
