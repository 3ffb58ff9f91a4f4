"""Cores that a process may use: a container's quota counts, in both versions of control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ssd_triton.common.cores import usable_cores

MAX = "max 100000\n"


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))


@pytest.mark.parametrize(
    ("cgroups", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "10000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "1600000 100000\n"}, 8),
        ("0::/\n", {"cpu.max": MAX}, 8),
        ("0::/\n", {}, 8),
        ("0::/pod/main\n", {"pod/cpu.max": "300000 100000\n", "pod/main/cpu.max": MAX}, 3),
        ("0::/../other\n", {"cpu.max": "300000 100000\n"}, 3),
        (
            "4:memory:/x\n3:cpu,cpuacct:/x\n0::/\n",
            {"cpu,cpuacct/x/cpu.cfs_quota_us": "250000\n", "cpu,cpuacct/x/cpu.cfs_period_us": "50000\n"},
            5,
        ),
        # The path is that of the machine, which the container does not see.
        ("3:cpu:/docker/f00\n", {"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        (None, {}, 8),
    ],
)
def test_the_least_of_affinity_and_quotas_counts(
    tmp_path: Path, cgroups: str | None, files: dict[str, str], cores: int
) -> None:
    for name, text in files.items():
        (tmp_path / "mounts" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mounts" / name).write_text(text)
    if cgroups is not None:
        (tmp_path / "cgroup").write_text(cgroups)
    assert usable_cores(tmp_path / "cgroup", tmp_path / "mounts") == cores


def test_this_machine_has_a_count() -> None:
    assert 1 <= usable_cores() <= 8
