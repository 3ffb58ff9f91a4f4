"""No pickle is loaded from anywhere, and what is installed is licensed as we allow."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ssd_triton.common.audit import AuditError, Policy, _judge, audit_licences, read_policy
from ssd_triton.common.files import ROOT

FOLDERS = ("ssd_triton", "tools", "clients", "perf", "backends", "model_repository")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
UNPICKLERS = {"cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
"""Modules that unpickle or do as much; of pickle itself, only its error may be named."""
SAFE_KEYWORDS = {("torch", "load"): ("weights_only", True), ("np", "load"): ("allow_pickle", False)}


def unsafe_loads(tree: ast.AST) -> Iterator[str]:
    """Every place that could unpickle."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (f"import {name.name}" for name in node.names if name.name.split(".")[0] in UNPICKLERS)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in {*UNPICKLERS, "pickle"}:
            yield f"from {node.module} import"
        elif isinstance(node, ast.Attribute) and getattr(node.value, "id", None) == "pickle":
            yield from {f"pickle.{node.attr}"} - {"pickle.UnpicklingError"}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in ("read_pickle", "recv"):
                yield f".{node.func.attr}()"
            if isinstance(node.func.value, ast.Name):
                yield from _unsafe_call(node, (node.func.value.id, node.func.attr))


def _unsafe_call(call: ast.Call, name: tuple[str, str]) -> Iterator[str]:
    if name in SAFE_KEYWORDS:
        wanted, value = SAFE_KEYWORDS[name]
        given = {keyword.arg: getattr(keyword.value, "value", None) for keyword in call.keywords}
        if given.get(wanted) is not value:
            yield f"{'.'.join(name)}() without {wanted}={value}"


def test_nothing_is_unpickled() -> None:
    found = {str(path.relative_to(ROOT)): list(unsafe_loads(ast.parse(path.read_text("utf-8")))) for path in SOURCES}
    assert len(found) > 150
    assert {path: places for path, places in found.items() if places} == {}


@pytest.mark.parametrize(
    "code",
    [
        "import pickle; pickle.loads(b'')",
        "from pickle import load",
        "import joblib",
        "import torch; torch.load('x.pt')",
        "import torch; torch.load('x.pt', weights_only=False)",
        "import numpy as np; np.load('x.npz')",
        "connection.recv()",
        "import pandas; pandas.read_pickle('x')",
    ],
)
def test_unpickling_would_be_seen(code: str) -> None:
    assert list(unsafe_loads(ast.parse(code))) != []


# --- Licences and vulnerabilities -------------------------------------------------------------------------------------


def test_installed_licences_are_allowed(run_script: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    result = run_script("tools/audit.py", "--offline")
    assert result.returncode == 0, result.stderr
    assert " 0 refused" in result.stdout
    assert "not looked for" in result.stdout


def test_another_licence_is_refused(tmp_path: Path) -> None:
    policy = read_policy(ROOT / "licenses.yml")
    allowed = tuple(licence for licence in policy.allowed if licence != "MIT-CMU")
    audit = audit_licences(policy.model_copy(update={"allowed": allowed}))
    assert [line.split()[0] for line in audit.refused] == ["pillow"]
    (tmp_path / "mine.yml").write_text("alowed: []\n", encoding="utf-8")
    with pytest.raises(AuditError, match="did you mean 'allowed'"):
        read_policy(tmp_path / "mine.yml")


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("MIT", True),
        ("MIT AND PSF-2.0", True),
        ("DFSG approved; MIT License", True),
        ("GPL-3.0 OR MIT", True),
        ("GPL-3.0 AND MIT", False),
        ("UNKNOWN", False),
        ("Mozilla Public License 2.0 (MPL 2.0)", True),
    ],
)
def test_expressions_of_licences(licence: str, allowed: bool) -> None:
    assert read_policy(ROOT / "licenses.yml").allows(licence) is allowed


def test_vulnerabilities_are_told_from_what_is_unknown() -> None:
    """The answers of pip-audit in its own format, two of packages of old with vulnerabilities that are known."""
    old = {"id": "PYSEC-2023-175", "fix_versions": ["10.0.1"], "aliases": ["CVE-2023-4863"], "description": ""}
    packages = [
        {"name": "pillow", "version": "9.5.0", "vulns": [old]},
        {"name": "numpy", "version": "1.26.4", "vulns": []},
        {"name": "elsewhere", "skip_reason": "Dependency not found on PyPI and could not be audited"},
    ]
    policy = Policy(allowed=(), exceptions={}, accepted_vulnerabilities={})
    audit = _judge(packages, policy)
    assert audit.found == ("pillow 9.5.0: PYSEC-2023-175, fixed in 10.0.1",)
    assert (audit.audited, audit.unknown) == (2, ("elsewhere",))
    accepting = policy.model_copy(update={"accepted_vulnerabilities": {"CVE-2023-4863": "no WebP here"}})
    assert _judge(packages, accepting).found == ()
