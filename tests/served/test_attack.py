"""A short attack of all kinds against a real server, and what is no target."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from ssd_triton.commands import runner
from ssd_triton.common.files import ROOT
from ssd_triton.config import Config
from ssd_triton.measuring.attack import run as attack_run
from ssd_triton.measuring.attack.kinds import all_kinds
from ssd_triton.measuring.attack.report import attack_markdown, write_report
from ssd_triton.measuring.attack.result import AttackResult, AttackSettings
from ssd_triton.measuring.attack.run import attack
from ssd_triton.measuring.attack.sending import AttackedServer, AttackError
from ssd_triton.measuring.attack.server_watch import Restart, ServerSample
from ssd_triton.measuring.traffic import Tally
from ssd_triton.serving.server import EmbeddedServer
from tests.conftest import free_port
from tests.interruptible import Interruptible
from tests.served.helpers import executed

# They may end a server, and this one does not come back.
REFUSABLE = tuple(kind.name for kind in all_kinds() if not kind.may_restart)


def test_a_short_attack(
    config: Config, light_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attack_run, "_ALONE_S", 1.0)
    with EmbeddedServer(light_repository, "onnx_fp32", config.server.for_one_run()) as server:
        target = AttackedServer("127.0.0.1", server.config.grpc_port, server.config.http_port)
        settings = AttackSettings(3.0, calm_s=1.0, attackers=4, kinds=REFUSABLE, min_requests=len(REFUSABLE))
        result = attack(target, settings, server.pid)
    found = {check.name: check for check in result.checks()}
    # Latency and growth of memory need more time, and a machine without other tests.
    needs_time = [name for name in found if name.startswith(("p99", "growth", "resident", "CPU"))]
    assert len(needs_time) == 4
    assert [check for name, check in found.items() if not (check.passed or name in needs_time)] == [], attack_markdown(
        result
    )
    assert result.ending is None
    assert {kind.name for kind in result.kinds} == set(REFUSABLE)
    assert all(tally.answered > 5 for tally in result.good.values())
    assert max(one.cpu_s for one in result.requests) > 0.1
    assert result.end_resident_mib > 100
    assert_verdict_notices(result)
    markdown, samples, picture = write_report(tmp_path, result)
    assert "| mutated image | gRPC, HTTP |" in markdown.read_text()
    with samples.open() as file:
        assert len(list(csv.DictReader(file))) > 20
    with Image.open(picture) as image:
        assert min(image.size) > 600


def assert_verdict_notices(result: AttackResult) -> None:
    """Every fault that an attack can bring to light fails the check of its own."""
    first, death = result.requests[0], Restart(result.end_s, 9.0, frozenset({"one pixel"}))
    tally = Tally(answered=1, wrong=1, lost=1)
    faults = {
        "wrong answers": replace(result, good={"ssd": tally}),
        "good requests lost": replace(result, good={"ssd": tally}),
        "hostile requests with another outcome": replace(
            result, requests=[replace(first, kind=replace(first.kind, right=frozenset()))]
        ),
        "hostile requests, at least": replace(result, requests=[first]),
        "kinds that were not sent": replace(result, requests=[first]),
        "p99 of good requests": replace(result, attacked_ms=[6 * max(result.calm_ms)]),
        "CPU time": replace(result, requests=[replace(first, cpu_s=2.1)]),
        "resident memory at the end": replace(result, samples=[ServerSample(result.end_s, 1537.0, 0.0)]),
        "growth of resident memory": replace(
            result, samples=[ServerSample(result.end_s - 1 + n / 9, 100.0 + 10 * n, 0.0) for n in range(9)]
        ),
        "restarts by kinds": replace(result, restarts=[death]),
        "time until the server is ready": replace(result, restarts=[death]),
    }
    for name, faulty in faults.items():
        [check] = [check for check in faulty.checks() if check.name.startswith(name)]
        assert not check.passed, name
    assert len(faults) == len(result.checks())
    for calm_mib, limit_mib in ((1400.0, 1536.0), (4000.0, 6000.0)):
        assert replace(result, samples=[ServerSample(result.begin_s - 1, calm_mib, 0.0)]).max_resident_mib == limit_mib
    assert not replace(result, ending="ended early").passed


def test_ctrl_c_leaves_a_report(light_server: EmbeddedServer, tmp_path: Path) -> None:
    before = executed(light_server, "ssd_preprocess")
    command = [
        sys.executable,
        ROOT / "tools/attack.py",
        "--minutes",
        "5",
        "--kinds",
        "one pixel",
        "--calm-fraction",
        "0.001",
    ]
    ports = ["--grpc-port", str(light_server.config.grpc_port), "--http-port", str(light_server.config.http_port)]
    with Interruptible([*command, *ports, "--output", tmp_path], stdout=subprocess.PIPE) as process:
        while executed(light_server, "ssd_preprocess") < before + 60:
            assert process.poll() is None
            time.sleep(0.1)
        for number in (signal.SIGINT, signal.SIGTERM):
            process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "ended early by Ctrl-C" in output
    assert (tmp_path / "attack.md").read_text() == output


@pytest.mark.parametrize("host", ["192.0.2.1", "example.com", "10.0.0.1"])
def test_only_this_machine_is_attacked(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.run_command(["attack", "--host", host]) == 1
    assert f"got the host {host}, expected loopback such as 127.0.0.1" in capsys.readouterr().err


def test_nothing_to_attack() -> None:
    settings = AttackSettings(seconds=1.0, calm_s=1.0, kinds=("one pixel",))
    with pytest.raises(AttackError, match="no tritonserver of this machine listens on"):
        attack(AttackedServer("127.0.0.1", free_port(), free_port()), settings)


def test_kinds_are_chosen_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.run_command(["attack", "--list"]) == 0
    assert "JPEG of many scans\n" in capsys.readouterr().out
    with pytest.raises(AttackError, match="got --kinds nothing, expected patterns"):
        attack(AttackedServer("127.0.0.1", 1, 2), AttackSettings(seconds=1.0, calm_s=1.0, kinds=("nothing",)))


def test_few_kinds_wait_for_their_time_and_for_their_model(
    light_server: EmbeddedServer, exposed_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attack_run, "_SETTLE_S", 0.0)
    light, exposed = (
        AttackedServer("127.0.0.1", server.config.grpc_port, server.config.http_port)
        for server in (light_server, exposed_server)
    )
    settings = AttackSettings(seconds=0.5, calm_s=0.5, kinds=("large legal frame",))
    assert [one.kind.name for one in attack(light, settings, light_server.pid).requests] == ["large legal frame"]
    with pytest.raises(AttackError, match="need the model ssd_frames, and this server has none"):
        attack(exposed, settings, exposed_server.pid)
