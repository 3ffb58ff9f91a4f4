"""Times variants at every batch size, and measures the limits of the machine."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from ssd_triton.detector.device import Launch
from ssd_triton.detector.network.boxes import NUM_DEFAULT_BOXES
from ssd_triton.detector.network.ssd import ServedDetector
from ssd_triton.measuring.benchmark.timing import Timing, time_in_turns, time_runs
from ssd_triton.serving.runnable import RunnableVariant, random_images

_INPUT_SETS = 4
_LIMIT_RUNS, _LIMIT_WARM_UP_RUNS = 13, 3
_SMALL_PRODUCT, _FAST_TERA_PER_S = 512, 0.02
"""Side of a product of INT8 matrices, and the rate below which PyTorch has no fast kernel for the processor."""
_BYTES = {"fp32": 4, "fp16": 2, "int8": 1}
"""Bytes of a weight, by precision."""


def benchmark(variants: list[RunnableVariant], batches: list[int], turns: int, device: torch.device) -> list[Timing]:
    """Time every variant at every batch size, the variants of a batch size in turns."""
    timings = []
    for batch in batches:
        images = random_images(batch, _INPUT_SETS)
        launches = {variant.name: variant.prepare(images) for variant in variants}
        timings += time_in_turns(launches, batch, turns, device)
        del launches
        gc.collect()
    return timings


@dataclass(frozen=True)
class Limit:
    """The highest throughput that a device can physically reach with this network.

    Attributes:
        gflop_per_image: Arithmetic for an image, 10⁹ operations.
        mbyte_per_image: Input and outputs of an image, 10⁶ bytes.
        parameters_million: Number of weights, which are read once a batch, millions.
        matrix_tera_per_s: Measured rate of matrix products, 10¹² operations a second, by precision.
        copy_gbyte_per_s: Measured bandwidth, 10⁹ bytes a second.
    """

    gflop_per_image: float
    mbyte_per_image: float
    parameters_million: float
    matrix_tera_per_s: Mapping[str, float]
    copy_gbyte_per_s: float

    def images_per_s(self, batch: int, precision: str) -> float:
        """Return the limit in images a second at a precision, set by arithmetic or memory traffic."""
        weights_mbyte = self.parameters_million * _BYTES[precision]
        arithmetic_s = batch * self.gflop_per_image / self.matrix_tera_per_s[precision] / 1e3
        traffic_s = (batch * self.mbyte_per_image + weights_mbyte) / self.copy_gbyte_per_s / 1e3
        return batch / max(arithmetic_s, traffic_s)

    def describe(self, batch: int) -> str:
        """Return one line with the limits at a batch size and the figures behind them."""
        rates = self.matrix_tera_per_s
        limits = ", ".join(f"{self.images_per_s(batch, name):,.1f} images/s in {name}" for name in rates)
        measured = ", ".join(f"{rate:.3g} TOP/s in {name}" for name, rate in rates.items())
        return (
            f"limit at batch {batch}: {limits} ({self.gflop_per_image:.1f} GFLOP an image, {measured}, "
            f"{self.copy_gbyte_per_s:.0f} GB/s)"
        )


def measure_limit(detector: ServedDetector, device: torch.device) -> Limit:
    """Count the network's arithmetic and bytes, and measure the device's matrix rates and copy bandwidth.

    INT8 is measured on a CPU only, where a variant uses it. Rates are those of the fastest run.
    """
    precision, size = ("fp16", 8192) if device.type == "cuda" else ("fp32", 2048)
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        detector(torch.zeros(1, 300, 300, 3, dtype=torch.uint8))
    dtype = torch.float16 if precision == "fp16" else torch.float32
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    rates = {precision: _tera_per_s(lambda _: a @ b, size, device)}
    if device.type == "cpu":
        rates["int8"] = _int8_tera_per_s(size, device)
    source = torch.randn(2**28 if device.type == "cuda" else 2**25, device=device)
    target = torch.empty_like(source)
    copy_ms = min(time_runs(lambda _: target.copy_(source), _LIMIT_RUNS, device)[_LIMIT_WARM_UP_RUNS:])
    outputs = (4 + detector.network.num_labels) * NUM_DEFAULT_BOXES * 4
    return Limit(
        gflop_per_image=counter.get_total_flops() / 1e9,
        mbyte_per_image=(300 * 300 * 3 + outputs) / 1e6,
        parameters_million=sum(value.numel() for value in detector.parameters()) / 1e6,
        matrix_tera_per_s=rates,
        # A copy reads and writes every byte.
        copy_gbyte_per_s=2 * source.numel() * 4 / copy_ms / 1e6,
    )


def _int8_tera_per_s(size: int, device: torch.device) -> float:
    """Measure a small product first: on processors without a fast kernel, a large one takes many seconds."""
    rate = 0.0
    for side in (_SMALL_PRODUCT, size):
        left, right = (torch.randint(-128, 128, (side, side), dtype=torch.int8) for _ in range(2))
        rate = _tera_per_s(lambda _, left=left, right=right: torch._int_mm(left, right), side, device)  # type: ignore[misc]
        if rate < _FAST_TERA_PER_S:
            break
    return rate


def _tera_per_s(launch: Launch, size: int, device: torch.device) -> float:
    """Measure the rate of a product of square matrices; a multiplication and an addition are two operations."""
    return 2 * size**3 / min(time_runs(launch, _LIMIT_RUNS, device)[_LIMIT_WARM_UP_RUNS:]) / 1e9
