# Written from ssd_triton/common/cores.py by the build, do not edit. Digest: c1ad8360e41d2ca8
"""The number of cores that a process may use.

The build copies this file into the models and backends that start threads, so that server and package count the same
way. It needs only Python.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path


def usable_cores(cgroups: Path = Path("/proc/self/cgroup"), mounts: Path = Path("/sys/fs/cgroup")) -> int:
    """Count the cores of this process's affinity, at most the CPU quota of its control groups, rounded up.

    A container with a limit of 2 CPUs may see all 64 cores of its machine, where 64 threads would mostly wait.

    Args:
        cgroups: The kernel's list of this process's groups.
        mounts: Where the groups are mounted, of version 1 in a folder for each controller.
    """
    return max(1, min([len(os.sched_getaffinity(0)), *map(math.ceil, _quotas(cgroups, mounts))]))


def _quotas(cgroups: Path, mounts: Path) -> Iterator[float]:
    """CPU quotas, in cores, of this process's groups and of the groups around them."""
    try:
        lines = cgroups.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # A container that does not see the groups around it has its own at the mount; the path is then the machine's.
        folder = mounts / controllers
        for part in ("", *path.split("/")):
            folder /= part if part != ".." else ""
            yield from _quota(folder, is_v2=not controllers)


def _quota(folder: Path, *, is_v2: bool) -> Iterator[float]:
    """The quota of one group; nothing where it has none."""
    names = ("cpu.max",) if is_v2 else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    try:
        quota, period = " ".join((folder / name).read_text(encoding="ascii") for name in names).split()
    except OSError:
        return
    if quota not in ("max", "-1"):
        yield int(quota) / int(period)
