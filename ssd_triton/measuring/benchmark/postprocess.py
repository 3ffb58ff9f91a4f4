"""How long the served post-processing takes by itself, on predictions of the detector and on the worst there can be.

Needs PyTorch, NumPy, Pillow, Matplotlib and safetensors alone, so that it runs where Triton's client does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from torch import Tensor

from ssd_triton.common.arrays import AnyArray, UInt8Array
from ssd_triton.common.detections import Detections
from ssd_triton.common.errors import UserError
from ssd_triton.common.files import atomic_output, relative_to_cwd
from ssd_triton.detector.device import Launch
from ssd_triton.detector.network.boxes import NUM_DEFAULT_BOXES
from ssd_triton.detector.network.ssd import ServedDetector
from ssd_triton.detector.postprocessing.check import count_matches
from ssd_triton.detector.postprocessing.torchscript import OUTPUTS, run_script
from ssd_triton.measuring.benchmark.timing import Row, time_in_turns

mpl.use("Agg")
import matplotlib.pyplot as plt

TORCHSCRIPT, ONNX = "TorchScript", "ONNX Runtime on the CPU"
PHOTOGRAPHS, CROWDED = "photographs", "crowded"
_DETECTOR_BATCH = 8
_CLASSES_A_BOX = 10
"""Of :func:`crowded`: each has a score of a tenth, twice the usual threshold."""
_COMPARED_IMAGES = 8
"""The reference for what a GPU gives is the same module on a CPU, which takes its time."""

Predictions = dict[str, Tensor]
"""``loc``, ``conf`` and ``original_size`` of a batch."""
Make = Callable[[int], Predictions]
"""Predictions of a batch of that size."""


@dataclass(frozen=True)
class Measurement:
    """One form of the post-processing on one kind of predictions at one batch size.

    Attributes:
        row: Its times.
        predictions: Their kind.
        form: TorchScript or ONNX.
        candidates: Scores above the threshold, an image.
        peak_mib: Most memory of the GPU that the run held beyond its inputs, MiB; None on a CPU.
        equal: Detections of the first images that are those of a CPU, and how many there are; None for ONNX.
    """

    row: Row
    predictions: str
    form: str
    candidates: float
    peak_mib: float | None = None
    equal: tuple[int, int] | None = None


def load_script(path: Path, device: torch.device) -> Any:
    """The artefact of the model repository, on a device.

    Raises:
        UserError: It is missing.
    """
    if not path.is_file():
        raise UserError(f"{relative_to_cwd(path)} is missing: build it with 'python tools/build_repository.py'")
    return torch.jit.load(path, map_location=device)  # type: ignore[no-untyped-call]


def photographs(detector: ServedDetector, images_rgb: UInt8Array, device: torch.device) -> Make:
    """What the detector, in FP32 on the device, says of images UINT8 [n, 300, 300, 3]; larger batches repeat them."""
    with torch.inference_mode():
        outputs = [
            detector(torch.from_numpy(images_rgb[start : start + _DETECTOR_BATCH]).to(device))
            for start in range(0, len(images_rgb), _DETECTOR_BATCH)
        ]
    loc, conf = (torch.cat(parts) for parts in zip(*outputs, strict=True))

    def make(batch: int) -> Predictions:
        chosen = torch.arange(batch, device=device) % len(loc)
        return {"loc": loc[chosen], "conf": conf[chosen], "original_size": _sizes(batch, device)}

    return make


def crowded(num_labels: int, device: torch.device) -> Make:
    """Every class of every image has more candidates than enter suppression: what an untrained network may say."""

    def make(batch: int) -> Predictions:
        random = torch.Generator(device).manual_seed(batch)
        conf = torch.randn([batch, num_labels, NUM_DEFAULT_BOXES], generator=random, device=device) * 0.3
        order = torch.rand([batch, num_labels - 1, NUM_DEFAULT_BOXES], generator=random, device=device).argsort(1)
        conf.scatter_add_(1, order[:, :_CLASSES_A_BOX] + 1, torch.full_like(conf[:, :_CLASSES_A_BOX], 7.0))
        loc = torch.randn([batch, 4, NUM_DEFAULT_BOXES], generator=random, device=device)
        return {"loc": loc, "conf": conf, "original_size": _sizes(batch, device)}

    return make


def _sizes(batch: int, device: torch.device) -> Tensor:
    return torch.tensor([[640, 480]], dtype=torch.int32, device=device).repeat(batch, 1)


def measure_postprocess(
    script: Any,
    kinds: Mapping[str, Make],
    *,
    batches: Sequence[int],
    turns: int,
    device: torch.device,
    onnx: Path | None = None,
) -> list[Measurement]:
    """Time the module on its device, and in turns with it the ONNX graph on the CPU.

    Args:
        script: See :func:`load_script`.
        kinds: Predictions by kind.
        batches: Sizes.
        turns: Of each form.
        device: Of ``script``.
        onnx: The ONNX graph; None leaves it out. It takes no part in :data:`CROWDED`.
    """
    found = []
    for batch in batches:
        for kind, make in kinds.items():
            predictions = make(batch)
            launches: dict[str, Launch] = {TORCHSCRIPT: _script_launch(script, predictions)}
            if onnx is not None and kind != CROWDED:
                launches[ONNX] = _onnx_launch(onnx, predictions)
            peak_mib = _peak_mib(launches[TORCHSCRIPT], device)
            equal = _equal_to_cpu(script, predictions)
            candidates = _candidates_an_image(script, predictions["conf"])
            for row in time_in_turns(launches, batch, turns, device):
                one = Measurement(row, kind, row.variant, candidates)
                found.append(replace(one, peak_mib=peak_mib, equal=equal) if row.variant == TORCHSCRIPT else one)
    return found


def _script_launch(script: Any, predictions: Predictions) -> Launch:
    arguments = list(predictions.values())

    def launch(_: int) -> object:
        with torch.inference_mode(), torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            return script(*arguments)

    return launch


def _onnx_launch(path: Path, predictions: Predictions) -> Launch:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    arrays = {name: value.cpu().numpy() for name, value in predictions.items()}
    return lambda _: session.run(list(OUTPUTS), arrays)


def _peak_mib(launch: Launch, device: torch.device) -> float | None:
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    launch(0)
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


def _equal_to_cpu(script: Any, predictions: Predictions) -> tuple[int, int]:
    """How many detections of the first images are also those of a CPU, and how many there are."""
    some = {name: value[:_COMPARED_IMAGES] for name, value in predictions.items()}
    with torch.inference_mode(), torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
        got = dict(zip(OUTPUTS, (value.cpu().numpy() for value in script(*some.values())), strict=True))
    device = some["conf"].device
    try:
        expected = run_script(script.to("cpu"), {name: value.cpu().numpy() for name, value in some.items()})
    finally:
        script.to(device)
    pairs = list(zip(_detections(got), _detections(expected), strict=True))
    return sum(count_matches(*pair) for pair in pairs), sum(len(reference) for _, reference in pairs)


def _detections(outputs: Mapping[str, AnyArray]) -> list[Detections]:
    counts = outputs["num_detections"][:, 0]
    return [Detections(*(outputs[name][index, :n] for name in OUTPUTS[1:])) for index, n in enumerate(counts)]


def _candidates_an_image(script: Any, conf: Tensor) -> float:
    above = torch.softmax(conf, 1)[:, 1:] > script.score_thresh
    return float(above.sum().item() / len(conf))


def table(measurements: Sequence[Measurement]) -> str:
    """Markdown, one measurement a line."""
    lines = [
        "| predictions | candidates an image | form | batch | p50 ms | p95 ms | p99 ms | images/s | GPU memory MiB | "
        "equal to a CPU |",
        "|---" * 10 + "|",
    ]
    for one in measurements:
        row = one.row
        memory = "–" if one.peak_mib is None else f"{one.peak_mib:,.0f}"
        equal = "–" if one.equal is None else "{:,} of {:,}".format(*one.equal)
        lines.append(
            f"| {one.predictions} | {one.candidates:,.0f} | {one.form} | {row.batch} | {row.p50_ms:.3f} | "
            f"{row.p95_ms:.3f} | {row.p99_ms:.3f} | {row.images_per_s:,.0f} | {memory} | {equal} |"
        )
    return "\n".join(lines)


def plot(path: Path, measurements: Sequence[Measurement], title: str) -> None:
    """Milliseconds of a batch over its size, one line for each form and kind of predictions."""
    figure, axes = plt.subplots(figsize=(8, 4.8), layout="constrained")
    lines: dict[str, list[Row]] = {}
    for one in measurements:
        lines.setdefault(f"{one.form}, {one.predictions}", []).append(one.row)
    for label, rows in lines.items():
        batches = np.array([row.batch for row in rows])
        axes.plot(batches, [row.p50_ms for row in rows], marker="o", label=label)
    ticks = sorted({one.row.batch for one in measurements})
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set(title=title, xlabel="batch size", ylabel="median ms of a batch")
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend(fontsize=8)
    with atomic_output(path) as temporary:
        figure.savefig(temporary, dpi=120)
    plt.close(figure)
