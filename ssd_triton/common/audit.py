"""Licences and known vulnerabilities of what is installed, by pip-licenses and pip-audit."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from ssd_triton.common.errors import UserError
from ssd_triton.common.yaml_file import read_yaml

_TIMEOUT_S = 600.0


class AuditError(UserError):
    """The audit could not be made."""


class Policy(BaseModel):
    """``licenses.yml``; its comments say what each key means."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    allowed: tuple[str, ...]
    exceptions: dict[str, str]
    accepted_vulnerabilities: dict[str, str]

    def allows(self, licence: str) -> bool:
        """Whether one of the alternatives of a licence (``OR``) has nothing but allowed parts (``AND`` or ``;``)."""
        alternatives = re.split(r"\s+OR\s+", licence.replace("(OR)", "OR"))
        return any(all(part in self.allowed for part in _parts(alternative)) for alternative in alternatives)


@dataclass(frozen=True)
class LicenceAudit:
    """Packages by what became of them, as ``name version: licence``."""

    allowed: tuple[str, ...]
    excepted: tuple[str, ...]
    refused: tuple[str, ...]


@dataclass(frozen=True)
class VulnerabilityAudit:
    """Known vulnerabilities as ``name version: identifier, fixed in ...``, and packages that nothing is known about."""

    audited: int
    found: tuple[str, ...]
    accepted: tuple[str, ...]
    unknown: tuple[str, ...]


def read_policy(path: Path) -> Policy:
    """Read ``licenses.yml``.

    Raises:
        AuditError: The file is missing or has unknown keys.
    """
    return read_yaml(path, Policy, error_type=AuditError, next_step="give another one with --policy")


def audit_licences(policy: Policy) -> LicenceAudit:
    """Compare the licence of every installed package with the policy. Needs no network.

    Raises:
        AuditError: pip-licenses is not installed or has failed.
    """
    packages = _run_json(["-m", "piplicenses", "--format=json", "--from=mixed", "--with-system"])
    allowed: list[str] = []
    excepted: list[str] = []
    refused: list[str] = []
    for package in packages:
        line = f"{package['Name']} {package['Version']}: {package['License']}"
        if package["Name"] in policy.exceptions:
            excepted.append(f"{line} ({policy.exceptions[package['Name']]})")
        else:
            (allowed if policy.allows(package["License"]) else refused).append(line)
    return LicenceAudit(tuple(allowed), tuple(excepted), tuple(refused))


def audit_vulnerabilities(policy: Policy, service: str) -> VulnerabilityAudit:
    """Ask a database about every installed package.

    Args:
        policy: Which vulnerabilities are accepted.
        service: ``pypi`` or ``osv``, as pip-audit calls them.

    Raises:
        AuditError: pip-audit is not installed, or the database does not answer.
    """
    arguments = [
        "-m",
        "pip_audit",
        "--format=json",
        "--progress-spinner=off",
        "--skip-editable",
        f"--vulnerability-service={service}",
    ]
    return _judge(_run_json(arguments)["dependencies"], policy)


def _judge(packages: Sequence[dict[str, Any]], policy: Policy) -> VulnerabilityAudit:
    found: list[str] = []
    accepted: list[str] = []
    unknown: list[str] = []
    audited = 0
    for package in packages:
        if "skip_reason" in package:
            unknown.append(package["name"])
            continue
        audited += 1
        for vulnerability in package["vulns"]:
            fixed = ", ".join(vulnerability["fix_versions"]) or "no version yet"
            line = f"{package['name']} {package['version']}: {vulnerability['id']}, fixed in {fixed}"
            names = {vulnerability["id"], *vulnerability.get("aliases", ())}
            (accepted if names & policy.accepted_vulnerabilities.keys() else found).append(line)
    return VulnerabilityAudit(audited, tuple(found), tuple(accepted), tuple(unknown))


def _parts(licence: str) -> list[str]:
    return [part.strip().strip("()") if part.count("(") != part.count(")") else part.strip()
            for part in re.split(r"\s+AND\s+|;", licence)]  # fmt: skip


def _run_json(arguments: list[str]) -> Any:
    """What a tool of this environment prints. pip-audit exits with 1 when it has found something."""
    run = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    try:
        return json.loads(run.stdout)
    except ValueError:
        reason = (run.stderr.strip() or "it printed nothing").splitlines()[-1][:300]
        raise AuditError(
            f"{arguments[1]} gave no result ({reason}): install it with \"pip install -e '.[dev]'\"; vulnerabilities "
            "also need network, --offline does without"
        ) from None
