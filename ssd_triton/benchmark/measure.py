"""Timing candidates in turns, and the limits that the machine sets."""

from __future__ import annotations

import gc
import platform
import time
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from ssd_triton import cli
from ssd_triton.benchmark.candidates import Candidate, Launch, random_images
from ssd_triton.machine import processor
from ssd_triton.network.boxes import NUM_DEFAULT_BOXES
from ssd_triton.network.ssd import ServedDetector

_INPUT_SETS = 4
_WARM_UP_RUNS = 5
_SLICE_S = 0.25
"""How long a candidate runs before the next one gets its turn."""
_MIN_RUNS = 2


@dataclass(frozen=True)
class Row:
    """One variant at one batch size; times of single batches: median, tails and mean over all turns."""

    variant: str
    batch: int
    runs: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    mean_ms: float

    @property
    def images_per_s(self) -> float:
        """Of the median batch."""
        return self.batch / self.p50_ms * 1e3

    def to_dict(self) -> dict[str, object]:
        """For CSV and JSON."""
        return {**asdict(self), "images_per_s": round(self.images_per_s, 2)}


def benchmark(candidates: list[Candidate], batches: list[int], turns: int, device: torch.device) -> list[Row]:
    """Time every candidate at every batch size, the candidates of a batch size in turns."""
    rows = []
    for batch in batches:
        images = random_images(batch, _INPUT_SETS)
        launches = {candidate.name: candidate.prepare(images) for candidate in candidates}
        times_ms: dict[str, list[float]] = {name: [] for name in launches}
        for launch in launches.values():
            _time(launch, _WARM_UP_RUNS, device)
        order = [name for _ in range(turns) for name in launches]
        for name in cli.progress(order, total=len(order), description=f"batch {batch}", unit="turns"):
            estimate_s = _time(launches[name], _MIN_RUNS, device)[-1] / 1e3
            runs = max(_MIN_RUNS, int(_SLICE_S / estimate_s))
            times_ms[name] += _time(launches[name], runs, device)
        for name, values in times_ms.items():
            p50, p95, p99 = (float(value) for value in np.percentile(values, [50, 95, 99]))
            rows.append(Row(name, batch, len(values), p50, p95, p99, float(np.mean(values))))
        del launches
        gc.collect()
    return rows


def _time(launch: Launch, runs: int, device: torch.device) -> list[float]:
    """Milliseconds of each run: by CUDA events between back-to-back runs, or by the clock on a CPU."""
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


def machine(device: torch.device) -> dict[str, str]:
    """Names and versions that the figures belong to."""
    facts = {
        "processor": processor(),
        "cores": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
        facts["cuda"] = str(torch.version.cuda)
        facts["cudnn"] = str(torch.backends.cudnn.version())  # type: ignore[no-untyped-call]
    return facts


@dataclass(frozen=True)
class Limit:
    """What the machine could do at best with this network, one image."""

    gflop_per_image: float
    mbyte_per_image: float
    """Input and outputs; weights are read once a batch."""
    weights_mbyte: float
    matrix_tflop_per_s: float
    copy_gbyte_per_s: float

    def images_per_s(self, batch: int) -> float:
        """The slower of arithmetic and memory traffic."""
        arithmetic_s = batch * self.gflop_per_image / self.matrix_tflop_per_s / 1e3
        traffic_s = (batch * self.mbyte_per_image + self.weights_mbyte) / self.copy_gbyte_per_s / 1e3
        return batch / max(arithmetic_s, traffic_s)


def measure_limit(detector: ServedDetector, device: torch.device) -> Limit:
    """Count the network's arithmetic and bytes, and measure the device's matrix rate and copy bandwidth."""
    dtype, size = (torch.float16, 8192) if device.type == "cuda" else (torch.float32, 2048)
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        detector(torch.zeros(1, 300, 300, 3, dtype=torch.uint8))
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    matrix_ms = float(np.median(_time(lambda _: a @ b, 10, device)[3:]))
    source = torch.randn(2**28 if device.type == "cuda" else 2**25, device=device)
    target = torch.empty_like(source)
    copy_ms = float(np.median(_time(lambda _: target.copy_(source), 10, device)[3:]))
    outputs = (4 + detector.network.num_labels) * NUM_DEFAULT_BOXES * 4
    parameters = sum(value.numel() for value in detector.parameters())
    return Limit(
        gflop_per_image=counter.get_total_flops() / 1e9,
        mbyte_per_image=(300 * 300 * 3 + outputs) / 1e6,
        weights_mbyte=parameters * torch.finfo(dtype).bits / 8 / 1e6,
        matrix_tflop_per_s=2 * size**3 / matrix_ms / 1e9,
        # A copy reads and writes every byte.
        copy_gbyte_per_s=2 * source.numel() * 4 / copy_ms / 1e6,
    )
