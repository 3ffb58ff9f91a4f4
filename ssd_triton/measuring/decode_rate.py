"""Measures how many images a second a machine's cores decode and resize: the limit of the preprocessing."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path
from threading import BrokenBarrierError
from typing import TYPE_CHECKING

from PIL import Image

from ssd_triton.common.cores import usable_cores
from ssd_triton.common.errors import ImageError, UserError
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.common.machine import processor
from ssd_triton.common.processes import process_pool
from ssd_triton.common.progress import progress
from ssd_triton.common.report import ReportFolder, Table, markdown
from ssd_triton.detector.export.samples import first_images, sample_photograph
from ssd_triton.detector.network.boxes import IMAGE_SIZE_PX
from ssd_triton.detector.protocol import preprocess
from ssd_triton.media.decoding import open_rgb
from ssd_triton.media.images import read_served

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_QUALITY = 90
"""JPEG quality of the files that are encoded again, typical of cameras."""
_LARGE_PX = 1280
"""Longer side of the large files: 720p."""
_START_TIMEOUT_S = 120.0

AS_THEY_ARE, BASELINE, PROGRESSIVE = "as they are", "baseline JPEG", "progressive JPEG"
LARGE, LARGE_HALF = (
    f"baseline JPEG, {_LARGE_PX} px",
    f"the same, decoded at half the size where {IMAGE_SIZE_PX} px remain",
)


@dataclass(frozen=True)
class DecodeRate:
    """Throughput for one kind of files and one number of processes.

    Attributes:
        kind: Kind of files.
        processes: Number of parallel processes, with one thread each.
        images_per_s: Throughput of all processes together, median over the turns.
    """

    kind: str
    processes: int
    images_per_s: float

    @property
    def core_ms(self) -> float:
        """Time that one process takes for an image, milliseconds."""
        return 1000 * self.processes / self.images_per_s


def kinds_of(folder: Path | None, count: int) -> dict[str, list[bytes]]:
    """Encode the same images as each of the kinds of files that are compared.

    Args:
        folder: Folder of images; None takes a photograph that matplotlib carries.
        count: Number of images, the first by name.

    Raises:
        UserError: There are fewer images, or one cannot be read.
    """
    if folder is None:
        files = {"sample": sample_photograph()}
    else:
        files = {relative_to_cwd(path): read_served(path) for path in first_images(folder, count)}
    images = [_decoded(file, name) for name, file in files.items()]
    large = [_encoded(_with_longer_side(image, _LARGE_PX)) for image in images]
    return {
        AS_THEY_ARE: list(files.values()),
        BASELINE: [_encoded(image) for image in images],
        PROGRESSIVE: [_encoded(image, progressive=True) for image in images],
        LARGE: large,
        LARGE_HALF: large,
    }


def measure_decode_rate(
    kinds: Mapping[str, Sequence[bytes]], processes: Sequence[int], *, turns: int, seconds: float
) -> list[DecodeRate]:
    """Decode and resize all kinds of files, in turns, with each number of processes.

    Args:
        kinds: Encoded images by kind; those of :data:`LARGE_HALF` are decoded at a reduced scale.
        processes: Numbers of processes.
        turns: Turns of each kind with each number of processes.
        seconds: Duration of a turn.

    Raises:
        UserError: The processes do not start, or end on their own.
    """
    order = [(kind, count) for _ in range(turns) for count in processes for kind in kinds]
    found: dict[tuple[str, int], list[float]] = {}
    context = multiprocessing.get_context("spawn")
    with contextlib.ExitStack() as stack:
        pools = {
            count: stack.enter_context(process_pool(count, partial(_set_barrier, context.Barrier(count))))
            for count in processes
        }
        for kind, count in progress(order, total=len(order), description="decoding", unit="turns"):
            rate = _turn(pools[count], count, kinds[kind], kind == LARGE_HALF, seconds)
            found.setdefault((kind, count), []).append(rate)
    return [DecodeRate(kind, count, statistics.median(rates)) for (kind, count), rates in found.items()]


def write_report(folder: Path, rates: Sequence[DecodeRate]) -> str:
    """Write ``decode_rate.md`` and ``decode_rate.png``, and return the text of the former."""
    machine = f"{processor()}, {usable_cores()} cores"
    rows = [[rate.kind, str(rate.processes), f"{rate.images_per_s:,.0f}", f"{rate.core_ms:.1f}"] for rate in rates]
    header = ["files", "processes", "images/s", "ms of a core an image"]
    text = markdown(machine, Table(header, rows, "Decoding and resizing, by PIL alone"))
    report, num_kinds = ReportFolder(folder), len({rate.kind for rate in rates})
    report.text("decode_rate.md", text)
    title = f"Decoding and resizing, {machine}"
    report.picture("decode_rate.png", lambda figure: _draw(figure, rates, title), height_inch=0.6 * num_kinds + 1.6)
    return text


def _draw(figure: Figure, rates: Sequence[DecodeRate], title: str) -> None:
    """Draw images a second of each kind."""
    kinds = list(dict.fromkeys(rate.kind for rate in rates))
    counts = sorted({rate.processes for rate in rates})
    axes = figure.subplots()
    for index, count in enumerate(counts):
        own = {rate.kind: rate.images_per_s for rate in rates if rate.processes == count}
        places = [place + 0.8 * (index + 0.5) / len(counts) - 0.4 for place in range(len(kinds))]
        bars = axes.barh(places, [own[kind] for kind in kinds], 0.8 / len(counts), label=f"{count} processes")
        axes.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8)
    axes.set_yticks(range(len(kinds)), kinds)
    axes.invert_yaxis()
    axes.set(title=title, xlabel="images/s")
    axes.margins(x=0.12)
    axes.legend()


def _turn(pool: ProcessPoolExecutor, processes: int, files: Sequence[bytes], reduced: bool, seconds: float) -> float:
    """Decode in all processes at once, and return their images a second together."""
    futures = [pool.submit(_decode_for, files, reduced, seconds) for _ in range(processes)]
    try:
        return sum(future.result(timeout=_START_TIMEOUT_S + 2 * seconds) for future in futures)
    except (BrokenBarrierError, BrokenExecutor, TimeoutError) as error:
        raise UserError(
            f"got {type(error).__name__} from one of {processes} processes that decode, expected all to start and to "
            "end; give fewer with --processes"
        ) from error


_barrier: Barrier | None = None


def _set_barrier(barrier: Barrier) -> None:
    global _barrier  # noqa: PLW0603 - the only way to pass it to a process of a pool
    _barrier = barrier


def _decode_for(files: Sequence[bytes], reduced: bool, seconds: float) -> float:
    """Decode once all processes are ready, and return the images a second of this process."""
    decode: Callable[[bytes], object] = _preprocess_reduced if reduced else preprocess
    decode(files[0])
    if _barrier is not None:
        _barrier.wait(_START_TIMEOUT_S)
    start_s = time.perf_counter()
    count, elapsed_s = 0, 0.0
    while elapsed_s < seconds:
        decode(files[count % len(files)])
        count, elapsed_s = count + 1, time.perf_counter() - start_s
    return count / elapsed_s


def _preprocess_reduced(encoded: bytes) -> object:
    """Do what ``ssd_preprocess`` does with a ``reduced_decode_ratio`` of 1."""
    image = Image.open(io.BytesIO(encoded))
    image.draft(None, (IMAGE_SIZE_PX, IMAGE_SIZE_PX))
    return image.convert("RGB").resize((IMAGE_SIZE_PX, IMAGE_SIZE_PX), Image.Resampling.BILINEAR)


def _decoded(encoded: bytes, name: str) -> Image.Image:
    try:
        return open_rgb(encoded, name)
    except ImageError as error:
        raise ImageError(f"{error}, or give other images with --images") from error


def _encoded(image: Image.Image, *, progressive: bool = False) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY, progressive=progressive)
    return buffer.getvalue()


def _with_longer_side(image: Image.Image, side_px: int) -> Image.Image:
    scale = side_px / max(image.size)
    size_px = (round(image.width * scale), round(image.height * scale))
    return image.resize(size_px, Image.Resampling.LANCZOS)
