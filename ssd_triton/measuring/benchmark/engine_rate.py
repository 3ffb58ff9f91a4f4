"""Times the stages of the one process without a server, one by one and together: what limits it.

Needs PyTorch, NumPy, Pillow and Matplotlib; on a GPU nvImageCodec, too, or PIL decodes. Only a sweep's results need
Triton's client.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.cores import usable_cores
from ssd_triton.common.errors import UserError
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.detector.device import Launch
from ssd_triton.measuring.benchmark.engine_feed import EngineRun, measure_engine
from ssd_triton.measuring.benchmark.engine_files import EngineImage, Instance, Setup
from ssd_triton.measuring.benchmark.engine_report import CHECK, DECODE, ENGINE, NETWORK, Rate
from ssd_triton.measuring.benchmark.timing import Timing, time_in_turns
from ssd_triton.measuring.model_modules import model_module

_ON_CPU = "check of the file", "decoding and resizing by PIL"
_ON_GPU = "decoding by the GPU's engine", "resizing on the GPU"
_NETWORK = "network and post-processing"
_INPUT_SETS = 2
"""Batches that take turns, so that caches see changing data."""


@dataclass(frozen=True)
class GpuDecoder:
    """What decodes on a GPU.

    Attributes:
        decoder: ``HardwareDecoder``; None where PIL decodes.
        resizer: ``Resizer``; None without a decoder.
        reason: Why PIL decodes; empty otherwise.
    """

    decoder: Any = None
    resizer: Any = None
    reason: str = ""


class Stages:
    """The stages of the one process, one by one in this process."""

    def __init__(self, setup: Setup, files: Mapping[str, bytes], device: torch.device) -> None:
        """Load everything, and decode the files once.

        Raises:
            ImageError: The model refuses a file.
            UserError: The detector does not work on this device.
        """
        if device.type == "cuda":
            torch.cuda.set_device(device)
        self._setup, self._device, self._files = setup, device, list(files.values())
        self._instance = Instance(setup)
        images = self._instance.pixels_of(files)
        self._pixels = torch.from_numpy(np.stack([pixels for _, pixels, _ in images])).to(device)
        self._sizes = torch.tensor([size_px for *_, size_px in images], dtype=torch.int32).to(device)
        self._network = _load_network(setup, device)
        self._gpu = _gpu_decoder(setup, device)
        self._for_gpu = [] if self._gpu.decoder is None else self._decoded_on_gpu()
        if self._gpu.decoder is not None and not self._for_gpu:
            self._gpu = GpuDecoder(reason="the GPU decodes none of the files")

    def _decoded_on_gpu(self) -> list[UInt8Array]:
        """Return the files that the GPU decodes, as its decoder gets them."""
        checked: list[EngineImage] = list(filter(None, map(self._instance.check, self._files)))
        files = [np.frombuffer(data, np.uint8) for _, data, _ in checked]
        images = self._gpu.decoder.decode(files, []) if files else []
        torch.cuda.synchronize(self._device)
        return [file for file, image in zip(files, images, strict=True) if image is not None]

    def notes(self) -> list[str]:
        """Say what runs, on which files, and who decodes them."""
        kilobytes = np.median([len(data) for data in self._files]) / 1e3
        width, height = self._sizes.float().median(0).values.int().tolist()
        lines = [
            f"`{self._setup.detector.name}` on {self._device}; {len(self._files)} files, median {kilobytes:,.0f} kB, "
            f"{width} × {height} px."
        ]
        if self._gpu.decoder is None:
            lines.append(
                f"PIL decodes and resizes in the instances ({self._gpu.reason}), so that resizing is no stage of its "
                "own. The instances then leave out the check."
            )
        elif len(self._for_gpu) < len(self._files):
            lines.append(
                f"PIL decodes {len(self._files) - len(self._for_gpu)} of the files in the instances: the stages on the "
                "GPU get the others, the whole engine all."
            )
        if self._device.type == "cpu":
            lines.append("All lanes share the cores.")
        return lines

    def measure(self, batch: int, *, turns: int, processes: int) -> list[Rate]:
        """Time all stages at a batch size, in turns.

        Args:
            batch: Images in a batch.
            turns: Turns of each stage.
            processes: Processes that check files, and decode them where PIL does, at once; each needs a core.
        """
        cores = min(processes, usable_cores())
        by_cpu = {_ON_CPU[0]: (CHECK, self._checking(batch))}
        on_device: dict[str, tuple[str, Launch]] = {}
        if self._gpu.decoder is None:
            by_cpu[_ON_CPU[1]] = (DECODE, self._decoding_by_pil(batch))
        else:
            decoding, resizing = self._decoding_on_gpu(batch)
            on_device = {_ON_GPU[0]: (DECODE, decoding), _ON_GPU[1]: (DECODE, resizing)}
        on_device[_NETWORK] = (NETWORK, self._detecting(batch))
        stages = {**by_cpu, **on_device}
        launches = {name: launch for name, (_, launch) in stages.items()}
        timings = time_in_turns(launches, batch, turns, self._device, by_cpu_time=by_cpu)
        return [
            _stage_rate(timing, stages[timing.variant][0], cores if timing.variant in by_cpu else None)
            for timing in timings
        ]

    def _batches(self, files: Sequence[Any], batch: int) -> list[list[Any]]:
        """Return batches of files, each beginning after the end of the one before."""
        return [[files[(start * batch + index) % len(files)] for index in range(batch)] for start in range(_INPUT_SETS)]

    def _checking(self, batch: int) -> Launch:
        batches = self._batches(self._files, batch)
        return lambda run: [self._instance.check(data) for data in batches[run % _INPUT_SETS]]

    def _decoding_by_pil(self, batch: int) -> Launch:
        batches = self._batches(self._files, batch)
        return lambda run: [self._instance.decode(data) for data in batches[run % _INPUT_SETS]]

    def _decoding_on_gpu(self, batch: int) -> tuple[Launch, Launch]:
        """Decode into the memory of the run before, as the engine does; resize what was decoded once."""
        batches, spare = self._batches(self._for_gpu, batch), list[Any]()
        decoder, resizer = self._gpu.decoder, self._gpu.resizer
        decoded = [decoder.decode(files, []) for files in batches]
        sources = [[resizer.source_of(image) for image in images] for images in decoded]
        resized = torch.empty([batch, *self._pixels.shape[1:]], dtype=torch.uint8, device=self._device)

        def resize(run: int, _keep_alive: object = decoded) -> object:
            return resizer(sources[run % _INPUT_SETS], list(range(batch)), resized)

        return lambda run: decoder.decode(batches[run % _INPUT_SETS], spare), resize

    def _detecting(self, batch: int) -> Launch:
        """Network, post-processing, and on a GPU the copy of the detections to the host."""
        chosen = [torch.tensor(rows, device=self._device) for rows in self._batches(range(len(self._pixels)), batch)]
        inputs: list[tuple[Tensor, Tensor]] = [(self._pixels[rows], self._sizes[rows]) for rows in chosen]
        on_gpu = self._device.type == "cuda"
        outputs = self._network.host_outputs(pinned=on_gpu)

        def detect(run: int) -> object:
            with torch.inference_mode():
                found = self._network(*inputs[run % _INPUT_SETS])
                return outputs[len(found.views[0])].flat.copy_(found.flat, non_blocking=True) if on_gpu else found

        return detect


def _load_network(setup: Setup, device: torch.device) -> Any:
    try:
        return model_module(setup.model_folder, "network").Network(
            setup.detector, setup.postprocess, device, setup.batch_sizes
        )
    except RuntimeError as error:
        raise UserError(f"{relative_to_cwd(setup.detector)} does not run on {device}: {_first_line(error)}") from error


def _gpu_decoder(setup: Setup, device: torch.device) -> GpuDecoder:
    if device.type == "cpu":
        return GpuDecoder(reason="no GPU")
    try:
        images = model_module(setup.model_folder, "images")
        with torch.cuda.device(device):
            return GpuDecoder(images.HardwareDecoder(device), images.Resizer(device))
    except (ImportError, RuntimeError) as error:
        return GpuDecoder(reason=_first_line(error))


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _stage_rate(timing: Timing, lane: str, cores: int | None) -> Rate:
    """Return the rate of a stage; ``cores`` are those that do it at once, None on the engine's device."""
    return Rate(
        timing.variant,
        lane,
        timing.batch,
        cores or 1,
        timing.runs,
        timing.p50_ms,
        timing.p95_ms,
        timing.p99_ms,
        timing.images_per_s * (cores or 1),
        None if cores is None else timing.p50_ms / timing.batch,
    )


def rate_of_engine(run: EngineRun) -> Rate:
    """Return the rate of the whole engine."""
    p50_ms, p95_ms, p99_ms = (run.latency_ms(percentile) for percentile in (50, 95, 99))
    name = f"{ENGINE}, {run.feeders} processes"
    return Rate(
        name,
        ENGINE,
        run.batch,
        run.feeders,
        len(run.latencies_ms),
        p50_ms,
        p95_ms,
        p99_ms,
        run.images_per_s,
        run.cpu_ms,
    )


def measure_engine_rate(
    setup: Setup,
    files: Mapping[str, bytes],
    device: torch.device,
    *,
    batches: Sequence[int],
    turns: int,
    feeders: int,
    seconds: float,
) -> tuple[list[Rate], list[str]]:
    """Time the stages, then the whole engine.

    Args:
        setup: What runs.
        files: Encoded images by name.
        device: Where, as in ``setup``.
        batches: Images in a batch, and in a job.
        turns: Turns of each stage.
        feeders: Processes that feed the whole engine.
        seconds: Time to feed it, for each of ``batches``.

    Returns:
        What was measured, and what a reader must know about it.

    Raises:
        ImageError: The model refuses a file.
        ServerError: The engine does not start, or is lost.
        UserError: A batch is too large, or the detector does not work on this device.
    """
    largest = setup.batch_sizes[-1]
    if max(batches) > largest:
        raise UserError(f"got batches of {max(batches)}, expected at most {largest}, the engine's limit")
    rates, notes = _measure_stages(setup, files, device, batches=batches, turns=turns, processes=feeders)
    runs = measure_engine(setup, list(files.values()), batches, feeders=feeders, seconds=seconds)
    return [*rates, *map(rate_of_engine, runs)], notes


def _measure_stages(
    setup: Setup,
    files: Mapping[str, bytes],
    device: torch.device,
    *,
    batches: Sequence[int],
    turns: int,
    processes: int,
) -> tuple[list[Rate], list[str]]:
    """Time the stages; their memory is free again afterwards."""
    stages = Stages(setup, files, device)
    rates = [rate for batch in batches for rate in stages.measure(batch, turns=turns, processes=processes)]
    return rates, stages.notes()
