"""What figures belong to: the machine that made them."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def processor() -> str:
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def available_memory_bytes() -> int:
    """What the kernel estimates that programs can still take without swapping (``MemAvailable``)."""
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    [kib] = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return kib * 1024


def gpus() -> list[str]:
    """Names of the GPUs that NVIDIA's driver has here; empty without one."""
    files = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return [line.split(":", 1)[1].strip() for line in lines if line.startswith("Model:")]


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))
