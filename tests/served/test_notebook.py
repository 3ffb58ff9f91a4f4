"""The notebook, cell by cell, as a kernel runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from ssd_triton.common.files import ROOT

NOTEBOOK = ROOT / "docs/quickstart.ipynb"
KERNEL = """
import ast, json, sys

names = {"__name__": "__main__"}
for cell in json.load(open(sys.argv[1], encoding="utf-8"))["cells"]:
    if cell["cell_type"] == "code":
        *steps, last = ast.parse("".join(cell["source"])).body
        exec(compile(ast.Module(steps, []), "cell", "exec"), names)
        print("::", eval(compile(ast.Expression(last.value), "cell", "eval"), names))
"""


def test_notebook_runs(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", KERNEL, str(NOTEBOOK)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    address, found, picture, precision, points, _ = (
        line.removeprefix(":: ") for line in ran.stdout.splitlines() if line.startswith(":: ")
    )
    assert address.startswith("127.0.0.1:")
    assert found.startswith("Detections(1: person")
    assert "size=256x300" in picture
    assert 0.2 < float(precision) <= 1
    assert [one[0] for one in json.loads(points.replace("(", "[").replace(")", "]"))] == [1, 2]
