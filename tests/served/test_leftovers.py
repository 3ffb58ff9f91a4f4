"""What a server leaves behind when it ends in any way: no process, folder, region or log out of bounds."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import signal
import socket
import time
from pathlib import Path

import psutil
import pytest

from ssd_triton.client import DetectorClient
from ssd_triton.common.errors import ServerError
from ssd_triton.config import Config
from ssd_triton.serving.server import EmbeddedServer
from ssd_triton.serving.server.leftovers import RuntimeDir, sweep
from ssd_triton.serving.server.log import ServerLog
from tests.conftest import group_members
from tests.served.serving import server_names, server_regions, serving, start


def test_serve_killed_at_any_moment_leaves_nothing(light_repository: Path, tmp_path: Path, own_tmp: Path) -> None:
    random_s = random.Random(0)
    for moment_s in (0.4, *(random_s.uniform(0.5, 3.0) for _ in range(2))):
        running = start(tmp_path, light_repository)
        time.sleep(moment_s)
        processes = psutil.Process(running.process.pid).children(recursive=True)
        running.process.kill()
        running.process.communicate()
        _, alive = psutil.wait_procs(processes, timeout=3)
        assert alive == []
    names = server_names(own_tmp)
    sweep()
    assert list(own_tmp.iterdir()) == []
    assert server_regions(names) == []


def test_a_sweep_touches_nothing_of_live_servers_and_follows_no_links(own_tmp: Path, tmp_path: Path) -> None:
    live = RuntimeDir()
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "owner").touch()
    (own_tmp / "ssd-triton-aaaaaaaa").symlink_to(foreign)
    (own_tmp / "ssd-triton-other name").mkdir()
    dead = own_tmp / "ssd-triton-bbbbbbbb"
    dead.mkdir()
    (dead / "owner").write_text(json.dumps({"server_pid": 1, "python_envs": ["../../etc"]}))
    sweep()
    assert live.path.is_dir()
    assert (foreign / "owner").is_file()
    assert not dead.exists()
    assert sorted(path.name for path in own_tmp.iterdir()) == sorted(
        [live.path.name, "ssd-triton-aaaaaaaa", "ssd-triton-other name"]
    )
    live.remove()
    assert not live.path.exists()


def test_a_second_signal_does_not_interrupt_the_stopping(light_repository: Path, tmp_path: Path, own_tmp: Path) -> None:
    with serving(tmp_path, light_repository) as running:
        group = running.server_pid
        running.process.terminate()
        for again in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            time.sleep(0.1)
            running.process.send_signal(again)
        _, errors = running.process.communicate(timeout=30)
    assert running.process.returncode == 0, errors
    assert "Traceback" not in errors
    assert group_members(group) == []
    assert list(own_tmp.iterdir()) == []
    # In order: the server has said that it ended.
    assert "All models are stopped" in running.log.read_text(errors="replace")


def test_a_low_soft_limit_of_descriptors_is_raised(light_repository: Path, config: Config, photograph: bytes) -> None:
    """400 idle connections with 300 descriptors once stopped every answer, and filled the disk with the log."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2000:
        pytest.skip(f"the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        with EmbeddedServer(light_repository, "onnx_fp32", config.server.for_one_run()) as server:
            resource.prlimit(os.getpid(), resource.RLIMIT_NOFILE, (soft, hard))
            assert psutil.Process(server.pid).rlimit(psutil.RLIMIT_NOFILE)[0] > 1024
            with contextlib.ExitStack() as idle:
                for port in (server.config.grpc_port, server.config.http_port):
                    for _ in range(600):
                        idle.enter_context(socket.create_connection(("127.0.0.1", port)))
                with DetectorClient(server.url("http"), protocol="http", timeout_s=30) as client:
                    assert len(client.detect(photograph)) > 0
            assert server.log_path.stat().st_size < 1_000_000
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_one_log_has_one_server(tmp_path: Path, light_repository: Path, config: Config) -> None:
    path = tmp_path / "server.log"
    with contextlib.closing(ServerLog(path)) as kept:
        kept.note("the first")
        settings = config.server.for_one_run()
        with pytest.raises(ServerError, match=r"another server writes to the log .*server\.log: set another --log"):
            with EmbeddedServer(light_repository, "onnx_fp32", settings, log_path=path):
                pass
        assert path.read_text().endswith("the first\n")
    ServerLog(path).close()
