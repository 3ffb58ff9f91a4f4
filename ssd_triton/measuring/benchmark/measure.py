"""Measuring variants at every batch size, and the limits that the machine sets."""

from __future__ import annotations

import gc
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from ssd_triton.detector.network.boxes import NUM_DEFAULT_BOXES
from ssd_triton.detector.network.ssd import ServedDetector
from ssd_triton.measuring.benchmark.timing import Row, time_in_turns, time_runs
from ssd_triton.serving.runnable import RunnableVariant, random_images

_INPUT_SETS = 4


def benchmark(variants: list[RunnableVariant], batches: list[int], turns: int, device: torch.device) -> list[Row]:
    """Time every variant at every batch size, the variants of a batch size in turns."""
    rows = []
    for batch in batches:
        images = random_images(batch, _INPUT_SETS)
        launches = {variant.name: variant.prepare(images) for variant in variants}
        rows += time_in_turns(launches, batch, turns, device)
        del launches
        gc.collect()
    return rows


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
    matrix_ms = float(np.median(time_runs(lambda _: a @ b, 10, device)[3:]))
    source = torch.randn(2**28 if device.type == "cuda" else 2**25, device=device)
    target = torch.empty_like(source)
    copy_ms = float(np.median(time_runs(lambda _: target.copy_(source), 10, device)[3:]))
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
