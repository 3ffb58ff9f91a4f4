"""Times the served post-processing alone, on predictions of the detector and on crowded ones, the worst case.

Needs only PyTorch, NumPy, Pillow, Matplotlib and safetensors, so that it runs without Triton's client.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ssd_triton.common.arrays import AnyArray, UInt8Array
from ssd_triton.common.detections import Detections
from ssd_triton.common.errors import UserError
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.common.report import ReportFolder, Table, log2_axis, markdown
from ssd_triton.detector.device import Launch
from ssd_triton.detector.network.boxes import NUM_DEFAULT_BOXES
from ssd_triton.detector.network.ssd import ServedDetector
from ssd_triton.detector.postprocessing.reference import OUTPUTS, count_matches
from ssd_triton.detector.postprocessing.torchscript import run_script
from ssd_triton.measuring.benchmark.timing import Timing, time_in_turns

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TORCHSCRIPT, ONNX = "TorchScript", "ONNX Runtime on the CPU"
PHOTOGRAPHS, CROWDED = "photographs", "crowded"
_DETECTOR_BATCH = 8
_CLASSES_A_BOX = 10
"""Classes of each box in :func:`crowded`, each with a score of about 0.1, twice the usual threshold."""
_COMPARED_IMAGES = 8
"""Images for the comparison with the same module on a CPU, which is slow."""

Predictions = dict[str, Tensor]
"""``loc``, ``conf`` and ``original_size`` of a batch."""
Make = Callable[[int], Predictions]
"""Makes predictions of a batch of that size."""


@dataclass(frozen=True)
class PostprocessTiming:
    """One form of the post-processing on one kind of predictions at one batch size.

    Attributes:
        timing: Its times.
        predictions: Kind of the predictions.
        form: TorchScript or ONNX.
        candidates: Mean number of scores above the threshold in an image.
        peak_mib: Peak of the GPU's memory beyond the inputs, MiB; None on a CPU.
        equal: Number of detections in the first images that equal those of a CPU, and number of all; None for ONNX.
    """

    timing: Timing
    predictions: str
    form: str
    candidates: float
    peak_mib: float | None = None
    equal: tuple[int, int] | None = None


def load_script(path: Path, device: torch.device) -> Any:
    """Load the artefact of the model repository onto a device.

    Raises:
        UserError: The file is missing.
    """
    if not path.is_file():
        raise UserError(f"{relative_to_cwd(path)} is missing: build it with 'ssd-triton build'")
    return torch.jit.load(path, map_location=device)  # type: ignore[no-untyped-call]


def photographs(detector: ServedDetector, images_rgb: UInt8Array, device: torch.device) -> Make:
    """Predict on UINT8 images [n, 300, 300, 3] with the detector in FP32; larger batches repeat the predictions."""
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
    """Make predictions with more candidates in every class than enter suppression, as an untrained network may."""

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
) -> list[PostprocessTiming]:
    """Time the module on its device and the ONNX graph on the CPU, in turns.

    Args:
        script: See :func:`load_script`.
        kinds: Functions that make predictions, by kind.
        batches: Batch sizes.
        turns: Turns of each form.
        device: Device of ``script``.
        onnx: The ONNX graph; None leaves it out. It is never timed on :data:`CROWDED`.
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
            for timing in time_in_turns(launches, batch, turns, device):
                one = PostprocessTiming(timing, kind, timing.variant, candidates)
                found.append(replace(one, peak_mib=peak_mib, equal=equal) if one.form == TORCHSCRIPT else one)
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
    """Count the detections of the first images that equal those of a CPU, and all of them."""
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


def write_report(folder: Path, timings: Sequence[PostprocessTiming], environment: Mapping[str, str]) -> str:
    """Write ``postprocess_rate.md`` and ``postprocess_rate.png``, and return the text of the former.

    Args:
        folder: Folder of the report.
        timings: What was measured.
        environment: See :func:`ssd_triton.measuring.benchmark.timing.device_environment`.
    """
    about = ", ".join(f"{name} {value}" for name, value in environment.items())
    header = ["predictions", "candidates an image", "form", "batch", "p50 ms", "p95 ms", "p99 ms", "images/s"]
    text = markdown(about, Table([*header, "GPU memory MiB", "equal to a CPU"], [_cells(one) for one in timings]))
    report, title = ReportFolder(folder), f"Post-processing, {environment['device']}"
    report.text("postprocess_rate.md", text)
    report.picture("postprocess_rate.png", lambda figure: _draw(figure, timings, title))
    return text


def _cells(one: PostprocessTiming) -> list[str]:
    timing = one.timing
    times = (f"{value:.3f}" for value in (timing.p50_ms, timing.p95_ms, timing.p99_ms))
    memory = "–" if one.peak_mib is None else f"{one.peak_mib:,.0f}"
    equal = "–" if one.equal is None else "{:,} of {:,}".format(*one.equal)
    load = [one.predictions, f"{one.candidates:,.0f}", one.form, str(timing.batch)]
    return [*load, *times, f"{timing.images_per_s:,.0f}", memory, equal]


def _draw(figure: Figure, timings: Sequence[PostprocessTiming], title: str) -> None:
    """Draw milliseconds a batch over batch size, one line for each form and kind of predictions."""
    axes = figure.subplots()
    lines: dict[str, list[Timing]] = {}
    for one in timings:
        lines.setdefault(f"{one.form}, {one.predictions}", []).append(one.timing)
    for label, found in lines.items():
        axes.plot([one.batch for one in found], [one.p50_ms for one in found], marker="o", label=label)
    log2_axis(axes, sorted({one.timing.batch for one in timings}))
    axes.set(title=title, xlabel="batch size", ylabel="median ms of a batch", yscale="log")
    axes.legend()
