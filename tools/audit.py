"""Audit what is installed: licences against licenses.yml, and known vulnerabilities.

Vulnerabilities are asked for over the network, at the package index or at osv.dev. A package that nothing could be
found out about is no success: the exit code is 1 then, too. --offline leaves vulnerabilities out, and says so.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ssd_triton.commands import runner
from ssd_triton.common.audit import audit_licences, audit_vulnerabilities, read_policy
from ssd_triton.common.errors import listing
from ssd_triton.common.files import ROOT
from ssd_triton.config import Config


def add_arguments(parser: argparse.ArgumentParser, config: Config) -> None:
    """Options of this command."""
    parser.add_argument("--policy", type=Path, default=ROOT / "licenses.yml", help="what is let pass")
    parser.add_argument("--service", choices=("pypi", "osv"), default="pypi", help="database of vulnerabilities")
    parser.add_argument("--offline", action="store_true", help="licences only")


def main() -> int:
    """Audit; exit code 1 when something is refused, found, or could not be found out."""
    args, _ = runner.parse(str(__doc__), "python tools/audit.py --service osv", add_arguments)
    policy = read_policy(args.policy)
    licences = audit_licences(policy)
    for line in licences.excepted:
        print(f"excepted: {line}")
    for line in licences.refused:
        print(f"refused: {line}", file=sys.stderr)
    print(
        f"licences: {len(licences.allowed)} allowed, {len(licences.excepted)} excepted, {len(licences.refused)} refused"
    )
    if args.offline:
        print("vulnerabilities: not looked for (--offline)")
        return 1 if licences.refused else 0
    found = audit_vulnerabilities(policy, args.service)
    for line in (*found.found, *(f"accepted: {line}" for line in found.accepted)):
        print(line)
    print(f"vulnerabilities: {len(found.found)} in {found.audited} packages; {len(found.accepted)} accepted")
    if found.unknown:
        print(f"nothing could be found out about {listing(found.unknown)}", file=sys.stderr)
    return 1 if licences.refused or found.found or found.unknown else 0


if __name__ == "__main__":
    runner.run(main)
