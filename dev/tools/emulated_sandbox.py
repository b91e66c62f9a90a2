"""Makes the sandbox of the SAM template fit for the local AWS: emulated_sandbox.py TEMPLATE OUTPUT DATABASE_URL

It knows no rules of security groups that stand by themselves, and its Aurora is a record without a server. So those rules are
left out, and all who log in to the database use DATABASE_URL, with a user and without TLS. The rest is the template's.
"""

import json
import sys
from pathlib import Path
from urllib.parse import urlsplit

from samcli.yamlhelper import yaml_parse

UNKNOWN = ["AWS::EC2::SecurityGroupEgress", "AWS::EC2::SecurityGroupIngress"]


def main(template_file, output_file, database_url):
    template_file = Path(template_file).resolve()
    template = yaml_parse(template_file.read_text(encoding="utf-8"))
    resources = template["Resources"]
    unknown = [name for name, one in resources.items() if one["Type"] in UNKNOWN]
    for name in unknown:
        del resources[name]
    for one in resources.values():
        if isinstance(one.get("DependsOn"), list):
            one["DependsOn"] = [name for name in one["DependsOn"] if name not in unknown]
        if one["Type"] == "AWS::Serverless::Function":
            # Relative to the template, which is elsewhere now.
            one["Properties"]["CodeUri"] = str(template_file.parent / one["Properties"]["CodeUri"])

    # Still the migrator's answer, so that the functions wait for it.
    url = urlsplit(database_url)._replace(path="/${Migrations.Database}").geturl()
    template["Globals"]["Function"]["Environment"]["Variables"]["DATABASE_URL"] = {"Fn::Sub": url}
    migrator = resources["MigratorFunction"]["Properties"]["Environment"]["Variables"]
    migrator["DATABASE_URL"] = database_url
    # The user of the URL is one that may create roles.
    del migrator["DATABASE_ROLE"]
    Path(output_file).write_text(json.dumps(template, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
