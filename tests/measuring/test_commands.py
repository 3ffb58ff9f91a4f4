"""The commands that measure: their help."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest


@pytest.mark.parametrize("script", ["perf/overload.py", "perf/soak.py"])
def test_help_shows_an_example_and_defaults(
    run_main: Callable[..., subprocess.CompletedProcess[str]], script: str
) -> None:
    result = run_main(script, "--help")
    assert result.returncode == 0, result.stderr
    assert f"python {script}" in result.stdout
    assert "(default: " in result.stdout
