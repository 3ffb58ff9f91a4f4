"""Facts about the machine (processor, memory, GPUs) and about a measurement (versions, time, command line)."""

from __future__ import annotations

import ctypes
import platform
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ssd_triton.common.cores import usable_cores

_PACKAGES = ("numpy", "pillow", "pycocotools", "tritonclient", "onnxruntime-openvino", "torch")
_CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY = (75, 76)
"""Major and minor, as numbered by ``CUdevice_attribute`` in ``cuda.h``."""
_MAX_NAME_BYTES = 256


@dataclass(frozen=True)
class Gpu:
    """A GPU that CUDA offers.

    Attributes:
        name: Product name.
        compute_capability: Compute capability, such as ``8.6``.
        cuda_version: Newest CUDA version that its driver supports, such as ``13.0``.
        memory_mib: Total memory, MiB.
    """

    name: str
    compute_capability: str
    cuda_version: str = ""
    memory_mib: int = 0


@lru_cache(maxsize=1)
def find_gpus() -> tuple[Gpu, ...]:
    """List the GPUs in the order of the CUDA driver, without PyTorch; ``CUDA_VISIBLE_DEVICES`` applies.

    The driver reads that variable only once in a process, so the result is cached.
    """
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ()
    count, driver = ctypes.c_int(), ctypes.c_int()
    # A driver call returns 0 when it succeeds.
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)) or cuda.cuDriverGetVersion(ctypes.byref(driver)):
        return ()
    # CUDA 12.8 is 12080.
    cuda_version = f"{driver.value // 1000}.{driver.value % 1000 // 10}"
    return tuple(gpu for index in range(count.value) for gpu in _describe(cuda, index, cuda_version))


def find_gpu() -> Gpu | None:
    """Return the first GPU of :func:`find_gpus`; None without a GPU."""
    return next(iter(find_gpus()), None)


def environment() -> dict[str, str]:
    """Return processor, cores, GPUs if any, versions, the time in UTC and the command line, by name."""
    gpus = find_gpus()
    return {
        "processor": processor(),
        "cores": str(usable_cores()),
        **({"gpu": ", ".join(gpu.name for gpu in gpus), "cuda": gpus[0].cuda_version} if gpus else {}),
        "system": platform.platform(),
        "python": platform.python_version(),
        **dict(_versions()),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def describe_machine(facts: dict[str, str]) -> str:
    """Format processor, cores, GPU, Python and day of an :func:`environment` as one line."""
    parts = [facts.get("processor", "unknown processor"), f"{facts.get('cores', '?')} cores"]
    parts += [facts["gpu"]] if "gpu" in facts else []
    parts += [f"Python {facts['python']}"] if "python" in facts else []
    parts += [facts["date"][:10]] if "date" in facts else []
    return ", ".join(parts)


def processor() -> str:
    """Return the processor's name."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def available_memory_bytes() -> int:
    """Return the kernel's estimate of the memory that programs can still take without swapping (``MemAvailable``)."""
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    [kib] = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return kib * 1024


def _describe(cuda: ctypes.CDLL, index: int, cuda_version: str) -> Iterator[Gpu]:
    """Yield one GPU, or nothing if the driver does not answer."""
    device, name, memory_bytes = ctypes.c_int(), ctypes.create_string_buffer(_MAX_NAME_BYTES), ctypes.c_size_t()
    if cuda.cuDeviceGet(ctypes.byref(device), index) or cuda.cuDeviceGetName(name, len(name), device):
        return
    numbers = [ctypes.c_int() for _ in _CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY]
    for number, attribute in zip(numbers, _CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY, strict=True):
        if cuda.cuDeviceGetAttribute(ctypes.byref(number), attribute, device):
            return
    if cuda.cuDeviceTotalMem_v2(ctypes.byref(memory_bytes), device):
        return
    capability = ".".join(str(number.value) for number in numbers)
    yield Gpu(name.value.decode(), capability, cuda_version, memory_bytes.value >> 20)


def _versions() -> Iterator[tuple[str, str]]:
    for name in _PACKAGES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue
