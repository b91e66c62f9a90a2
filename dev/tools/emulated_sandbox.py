"""Adapts the template's sandbox to the emulator: emulated_sandbox.py TEMPLATE OUTPUT DATABASE_URL

The emulator lacks separate security group rules, and its Aurora has no database server. So the rules are omitted, and every
function connects with DATABASE_URL, as the user it names and without TLS. Everything else is the template's.
"""

import json
import sys
from pathlib import Path
from urllib.parse import urlsplit

from samcli.yamlhelper import yaml_parse

UNSUPPORTED = ["AWS::EC2::SecurityGroupEgress", "AWS::EC2::SecurityGroupIngress"]


def main(template_file, output_file, database_url):
    template_file = Path(template_file).resolve()
    template = yaml_parse(template_file.read_text(encoding="utf-8"))
    resources = template["Resources"]
    unsupported = [name for name, resource in resources.items() if resource["Type"] in UNSUPPORTED]
    for name in unsupported:
        del resources[name]
    for resource in resources.values():
        if isinstance(resource.get("DependsOn"), list):
            resource["DependsOn"] = [name for name in resource["DependsOn"] if name not in unsupported]
        if resource["Type"] == "AWS::Serverless::Function":
            # Relative to the original template; the output is in another folder.
            resource["Properties"]["CodeUri"] = str(template_file.parent / resource["Properties"]["CodeUri"])

    # Still refers to the migrator's response, so that the functions are created after it.
    url = urlsplit(database_url)._replace(path="/${Migrations.Database}").geturl()
    template["Globals"]["Function"]["Environment"]["Variables"]["DATABASE_URL"] = {"Fn::Sub": url}
    migrator = resources["MigratorFunction"]["Properties"]["Environment"]["Variables"]
    migrator["DATABASE_URL"] = database_url
    # The URL's user may create roles.
    del migrator["DATABASE_ROLE"]
    Path(output_file).write_text(json.dumps(template, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
