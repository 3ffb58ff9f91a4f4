"""Times functions in turns, on a GPU with CUDA events. Needs only PyTorch, no Triton client and no config.yml."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import torch

from ssd_triton.common.machine import environment
from ssd_triton.common.progress import progress
from ssd_triton.detector.device import Launch

_WARM_UP_RUNS = 5
_SLICE_S = 0.25
"""Duration of a function's turn."""
_MIN_RUNS = 2


@dataclass(frozen=True)
class Timing:
    """One variant at one batch size: median, percentiles and mean of its batch times, over all turns."""

    variant: str
    batch: int
    runs: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    mean_ms: float

    @property
    def images_per_s(self) -> float:
        """Images a second, from the median batch time."""
        return self.batch / self.p50_ms * 1e3

    def to_dict(self) -> dict[str, object]:
        """Return a dictionary for CSV and JSON."""
        return {**asdict(self), "images_per_s": round(self.images_per_s, 2)}


def time_in_turns(
    launches: Mapping[str, Launch],
    batch: int,
    turns: int,
    device: torch.device,
    *,
    by_cpu_time: Collection[str] = (),
) -> list[Timing]:
    """Time functions that run a batch each, in turns, so that slow changes of the machine affect all alike.

    Args:
        launches: Functions by name.
        batch: Images in a run.
        turns: Turns of each function.
        device: Device on which the functions run.
        by_cpu_time: Names of functions that run on this thread alone, and are timed by its CPU time.
    """
    times_ms: dict[str, list[float]] = {name: [] for name in launches}
    timers: dict[str, Callable[[Launch, int], list[float]]] = {
        name: cpu_times_ms if name in by_cpu_time else partial(time_runs, device=device) for name in launches
    }
    for name, launch in launches.items():
        timers[name](launch, _WARM_UP_RUNS)
    order = [name for _ in range(turns) for name in launches]
    for name in progress(order, total=len(order), description=f"batch {batch}", unit="turns"):
        estimate_s = timers[name](launches[name], _MIN_RUNS)[-1] / 1e3
        runs = max(_MIN_RUNS, int(_SLICE_S / estimate_s))
        times_ms[name] += timers[name](launches[name], runs)
    timings = []
    for name, values in times_ms.items():
        p50, p95, p99 = (float(value) for value in np.percentile(values, [50, 95, 99]))
        timings.append(Timing(name, batch, len(values), p50, p95, p99, float(np.mean(values))))
    return timings


def time_runs(launch: Launch, runs: int, device: torch.device) -> list[float]:
    """Time each run, milliseconds: with CUDA events between back-to-back runs, or with the clock on a CPU."""
    if device.type == "cpu":
        times_ms = []
        for index in range(runs):
            start_s = time.perf_counter()
            launch(index)
            times_ms.append((time.perf_counter() - start_s) * 1e3)
        return times_ms
    events = [torch.cuda.Event(enable_timing=True) for _ in range(runs + 1)]  # type: ignore[no-untyped-call]
    torch.cuda.synchronize(device)
    events[0].record()
    for index in range(runs):
        launch(index)
        events[index + 1].record()
    torch.cuda.synchronize(device)
    return [before.elapsed_time(after) for before, after in pairwise(events)]


def cpu_times_ms(launch: Launch, runs: int) -> list[float]:
    """Time each run by the CPU time of this thread, milliseconds: other processes do not count."""
    times_ms = []
    for index in range(runs):
        start_s = time.thread_time()
        launch(index)
        times_ms.append((time.thread_time() - start_s) * 1e3)
    return times_ms


def device_environment(device: torch.device) -> dict[str, str]:
    """Return the facts of :func:`ssd_triton.common.machine.environment`, and those of PyTorch's device."""
    facts = {**environment(), "threads": str(torch.get_num_threads())}
    if device.type == "cpu":
        return {**facts, "device": facts["processor"]}
    cudnn = str(torch.backends.cudnn.version())  # type: ignore[no-untyped-call]
    name = torch.cuda.get_device_name(device)
    return {**facts, "device": name, "cuda": str(torch.version.cuda), "cudnn": cudnn}
