"""What it costs to import the client: a program that detects only now and then should not wait for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"PIL", "av", "cv2", "gevent", "grpc", "matplotlib", "pydantic", "scipy", "torch", "tritonclient", "yaml"}
"""A client of one protocol needs at most that protocol's library, and only once it is made."""
IMPORT_LIMIT_S = 0.5

PROGRAM = """
import sys, time
from ssd_triton.client import DetectorClient
print(time.process_time(), *{name.split(".")[0] for name in sys.modules})
"""
WITH_CLIENT = """
import sys
from ssd_triton.client import DetectorClient
DetectorClient("127.0.0.1:1", protocol=sys.argv[1]).close()
print(*{name.split(".")[0] for name in sys.modules})
"""


def run(program: str, *arguments: str) -> list[str]:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split()


def test_the_import_is_light() -> None:
    used_s, *modules = run(PROGRAM)
    assert not HEAVY & set(modules)
    # Processor time, which a busy machine does not stretch as it does the clock; the first run may have to compile.
    assert min(float(used_s), float(run(PROGRAM)[0])) < IMPORT_LIMIT_S


@pytest.mark.parametrize(("protocol", "library", "other"), [("grpc", "grpc", "gevent"), ("http", "gevent", "grpc")])
def test_a_client_loads_the_library_of_its_protocol_only(protocol: str, library: str, other: str) -> None:
    modules = set(run(WITH_CLIENT, protocol))
    assert library in modules
    assert other not in modules
    assert not (HEAVY - {library, "tritonclient"}) & modules
