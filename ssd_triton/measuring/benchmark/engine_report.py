"""The report of the one process: its stages, the whole engine, and what a server reached, in one table and picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ssd_triton.common.errors import UserError
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.common.model_names import ENSEMBLE
from ssd_triton.common.report import BLUE, GREEN, ORANGE, PURPLE, Bullets, ReportFolder, Table, markdown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHECK, DECODE, NETWORK = "check", "decoding and resizing", "network"
"""Lanes: groups of stages. Lanes work at the same time, stages of a lane one after the other."""
ENGINE, SERVER = "whole engine", "through Triton"
_AXIS = 2.0
"""Where the picture ends, relative to the longest bar of the slowest lane, the engine and the server."""
_WHOLE_FROM = 100
"""Images/s from which on they are shown without decimals."""


@dataclass(frozen=True)
class Rate:
    """A stage, the whole engine or a server at one batch size.

    Attributes:
        name: What was measured.
        lane: One of :data:`CHECK`, :data:`DECODE` and :data:`NETWORK`; or :data:`ENGINE`, :data:`SERVER`.
        batch: Images in a batch, a job or a request.
        at_once: Processes, or requests in flight, that work at once.
        runs: Number of times; 0 where unknown.
        p50_ms: Median time of a batch: of one process for a stage, latency of a job or request otherwise.
        p95_ms: 95th percentile.
        p99_ms: 99th percentile.
        images_per_s: Images a second, of all that work at once.
        cpu_ms: CPU time for an image, milliseconds; None where it was not measured.
    """

    name: str
    lane: str
    batch: int
    at_once: int
    runs: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    images_per_s: float
    cpu_ms: float | None = None


@dataclass(frozen=True)
class Bar:
    """A bar of the picture."""

    label: str
    images_per_s: float
    colour: str


def lanes(rates: Sequence[Rate], batch: int) -> dict[str, float]:
    """Return the images a second of each lane at a batch size."""
    s_per_image: dict[str, float] = {}
    for rate in rates:
        if rate.batch == batch and rate.lane not in (ENGINE, SERVER):
            s_per_image[rate.lane] = s_per_image.get(rate.lane, 0.0) + 1 / rate.images_per_s
    return {lane: 1 / seconds for lane, seconds in s_per_image.items()}


def limit(rates: Sequence[Rate], batch: int) -> tuple[str, float]:
    """Return the slowest lane and its images a second."""
    found = lanes(rates, batch)
    slowest = min(found, key=found.__getitem__)
    return slowest, found[slowest]


def server_rates(sweep: Path, variant: str) -> list[Rate]:
    """Return what ``ssd`` reached through Triton: in the largest requests, and in single ones.

    Args:
        sweep: Folder that ``ssd-triton sweep`` has written.
        variant: Variant of the detector.

    Raises:
        UserError: The folder has no such measurement.
    """
    from ssd_triton.measuring.sweeps.measurements import read_measurements
    from ssd_triton.measuring.sweeps.point_summary import summarize, with_figures

    found = [
        one
        for one in with_figures(summarize(read_measurements(sweep)))
        if (one.point.model, one.point.variant, one.point.rate_share) == (ENSEMBLE, variant, None)
    ]
    if not found:
        raise UserError(f"{relative_to_cwd(sweep)} has no figure of ssd with {variant}: give another sweep")
    rates = []
    for batch in sorted({1, max(one.point.batch for one in found)}, reverse=True):
        of_batch = [one for one in found if one.point.batch == batch]
        if of_batch:
            best = max(of_batch, key=lambda one: one.images_per_s)
            p50_ms, p95_ms, p99_ms = (best.figures[name].value for name in ("p50_ms", "p95_ms", "p99_ms"))
            name = f"{SERVER}, {'single requests' if batch == 1 else f'requests of {batch}'}"
            in_flight = best.point.concurrency
            rates.append(
                Rate(name, SERVER, batch, in_flight, 0, p50_ms, p95_ms, p99_ms, best.images_per_s, best.cpu_ms)
            )
    return rates


def write_report(folder: Path, rates: Sequence[Rate], environment: Mapping[str, str], notes: Sequence[str] = ()) -> str:
    """Write ``engine_rate.md``, ``engine_rate.csv`` and ``engine_rate.png``, and return the text of the first.

    Args:
        folder: Folder of the report.
        rates: What was measured: stages and engine at each batch size, and what a server reached.
        environment: See :func:`ssd_triton.measuring.benchmark.timing.device_environment`.
        notes: What else a reader must know.
    """
    about = ", ".join(f"{name} {value}" for name, value in environment.items())
    header = ["what", "batch", "at once", "p50 ms", "p95 ms", "p99 ms", "images/s", "CPU ms an image"]
    table = Table(header, [_cells(rate) for rate in rates])
    report = ReportFolder(folder)
    text = markdown(about, table, *_limits(rates), Bullets([_HOW_TO_READ, *notes]))
    report.text("engine_rate.md", text)
    report.csv("engine_rate.csv", [vars(rate) for rate in rates])
    bars = _bars(rates)
    title = f"The one process, batches of {_largest(rates)}, {environment['device']}"
    report.picture("engine_rate.png", lambda figure: _draw(figure, bars, title), height_inch=0.5 * len(bars) + 1.4)
    return text


_HOW_TO_READ = (
    "Times of a stage are those of a batch in one process; its images/s are those of all processes that do it at once. "
    "Lanes work at the same time, the stages of a lane one after the other: check; decoding and resizing; network with "
    "post-processing. The engine makes batches of the jobs of all processes, so that with small jobs it may exceed its "
    "lanes."
)


def _largest(rates: Sequence[Rate]) -> int:
    return max(rate.batch for rate in rates if rate.lane not in (ENGINE, SERVER))


def _limits(rates: Sequence[Rate]) -> list[str]:
    """Name the slowest lane at each batch size, and the share of it that the engine reaches."""
    sentences = []
    for whole in (rate for rate in rates if rate.lane == ENGINE):
        lane, images_per_s = limit(rates, whole.batch)
        sentences.append(
            f"Batches of {whole.batch}, limit: {lane}, {_shown(images_per_s)} images/s; the whole engine reaches "
            f"{_shown(whole.images_per_s)}, {whole.images_per_s / images_per_s:.0%} of it."
        )
    return sentences


def _cells(rate: Rate) -> list[str]:
    times = (f"{value:.3f}" for value in (rate.p50_ms, rate.p95_ms, rate.p99_ms))
    cpu = "–" if rate.cpu_ms is None else f"{rate.cpu_ms:.3f}"
    return [rate.name, str(rate.batch), str(rate.at_once), *times, _shown(rate.images_per_s), cpu]


def _shown(images_per_s: float) -> str:
    return f"{images_per_s:,.0f}" if images_per_s >= _WHOLE_FROM else f"{images_per_s:.3g}"


def _bars(rates: Sequence[Rate]) -> list[Bar]:
    """Lanes at the largest batch, the slowest in a colour of its own; below them the engine and the server."""
    largest = _largest(rates)
    slowest, _ = limit(rates, largest)
    of_lanes = [
        Bar(lane, images_per_s, ORANGE if lane == slowest else BLUE)
        for lane, images_per_s in lanes(rates, largest).items()
    ]
    whole = [Bar(rate.name, rate.images_per_s, GREEN) for rate in rates if (rate.lane, rate.batch) == (ENGINE, largest)]
    return of_lanes + whole + [Bar(rate.name, rate.images_per_s, PURPLE) for rate in rates if rate.lane == SERVER]


def _draw(figure: Figure, bars: Sequence[Bar], title: str) -> None:
    """Draw one horizontal bar each, the first on top; those far beyond what limits end at the edge, with an arrow."""
    axes = figure.subplots()
    edge = _AXIS * max(bar.images_per_s for bar in bars if bar.colour != BLUE)
    drawn = axes.barh(
        range(len(bars)),
        [min(bar.images_per_s, edge) for bar in bars],
        0.7,
        color=[bar.colour for bar in bars],
    )
    labels = [_shown(bar.images_per_s) + (" →" if bar.images_per_s > edge else "") for bar in bars]
    axes.bar_label(drawn, labels, padding=3, fontsize=8)
    axes.set_yticks(range(len(bars)), [bar.label for bar in bars])
    axes.invert_yaxis()
    axes.set(title=title, xlabel="images/s")
    axes.margins(x=0.15)
