"""The server's log: bounded whatever is written, by size and by rate."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ssd_triton.common.errors import ServerError
from ssd_triton.config import Config
from ssd_triton.serving.server import EmbeddedServer, log
from ssd_triton.serving.server.log import ServerLog


def test_a_log_is_appended_to_rotated_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "MAX_BYTES", 10_000)
    path = tmp_path / "logs/server.log"
    for run in range(12):
        kept = ServerLog(path)
        with os.fdopen(kept.open_pipe(), "w") as pipe:
            pipe.write("".join(f"run {run}, line {number}\n" for number in range(300)))
        kept.close()
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == ["server.log", *(f"server.log.{age}" for age in (1, 2, 3))]
    assert all(file.stat().st_size <= 10_000 for file in files)
    assert path.read_text().splitlines()[-1] == "run 11, line 299"
    # Nothing is lost between one file and the next.
    first, before = path.read_text().splitlines()[0], path.with_name("server.log.1").read_text().splitlines()[-1]
    run = int(first.removeprefix("run ").split(",")[0])
    assert (first, before) == (f"run {run}, line 0", f"run {run - 1}, line 299")


def test_a_flood_costs_lines_and_neither_the_disk_nor_the_server(tmp_path: Path) -> None:
    kept = ServerLog(tmp_path / "server.log")
    flood = b"accept: too many open files\n" * 40_000
    start_s = time.monotonic()
    with os.fdopen(kept.open_pipe(), "wb") as pipe:
        for _ in range(100):
            pipe.write(flood)
        pipe.write(b"the end\n")
    written_s = time.monotonic() - start_s
    kept.close()
    size = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert size < log.BURST_BYTES + log.BYTES_PER_S * (written_s + 1) + 1000
    assert kept.last_lines()[-1] == "the end"
    assert "bytes of the server's lines" in (tmp_path / "server.log").read_text()
    assert written_s < 10


def test_a_server_whose_crash_handler_hangs_is_not_waited_for(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Triton's handler prints its line, then a stack trace, for which it may wait for a lock for ever."""
    binary = tmp_path / "tritonserver"
    binary.write_text("#!/bin/sh\necho 'Signal (11) received.'\nexec sleep 100\n")
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    server = EmbeddedServer(config.model_repository, "onnx_fp32", config.server.for_one_run())
    start_s = time.monotonic()
    with pytest.raises(ServerError, match="tritonserver crashed and did not end within 2 s"), server:
        pass
    assert time.monotonic() - start_s < 20
