"""No pickle is loaded from anywhere."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

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
            # A pipe's recv() takes no argument; a socket's takes a number of bytes, and unpickles nothing.
            if node.func.attr == "read_pickle" or (node.func.attr == "recv" and not node.args):
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
