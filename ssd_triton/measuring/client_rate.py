"""Compares the throughput of the evaluation's client with that of ``perf_analyzer``, in turns."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from ssd_triton.client import DetectorClient
from ssd_triton.common.progress import progress
from ssd_triton.common.report import ReportFolder, Table, markdown
from ssd_triton.evaluation.answers import open_answers
from ssd_triton.evaluation.dataset import Dataset
from ssd_triton.evaluation.served import collect
from ssd_triton.measuring.sweeps.perf_analyzer import Load, bytes_element, measure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MODEL = "ssd"
TARGET = 0.9
"""Share of ``perf_analyzer``'s images a second that the client must reach."""


@dataclass
class Rates:
    """Images a second of both, by round."""

    client: list[float] = field(default_factory=list)
    perf_analyzer: list[float] = field(default_factory=list)

    @property
    def share(self) -> float:
        """The client's median rate over that of ``perf_analyzer``."""
        return median(self.client) / median(self.perf_analyzer)


def measure_client_rate(url: str, dataset: Dataset, concurrency: int, *, rounds: int, timeout_s: float) -> Rates:
    """Let the evaluation's client and ``perf_analyzer`` send the same images, one a request, in turns.

    The client works as in an evaluation: it reads files, and writes answers to a file of results.

    Args:
        url: gRPC address of a ready server.
        dataset: The images.
        concurrency: Requests in flight at once.
        rounds: Turns of each.
        timeout_s: Deadline of one measurement of ``perf_analyzer``, and of one request of the client.

    Raises:
        ClientError: The server fails.
        PerfAnalyzerError: ``perf_analyzer`` is missing or cannot measure.
    """
    elements = [{"IMAGE": bytes_element(dataset.read(image))} for image in dataset.images]
    # Three windows are measured, which together send at least as many images as the client does.
    load = Load(MODEL, url, elements, concurrency, max(len(elements) // 3 + 1, 8 * concurrency))
    rates = Rates()
    with DetectorClient(url, timeout_s=timeout_s, in_flight=concurrency) as client:
        for _ in progress(range(rounds), total=rounds, description="client and perf_analyzer", unit="rounds"):
            rates.client.append(_client_images_per_s(client, dataset))
            rates.perf_analyzer.append(measure(load, timeout_s=timeout_s).images_per_s)
    return rates


def write_report(folder: Path, variant: str, rates: Rates, num_images: int, concurrency: int) -> str:
    """Write ``client_rate.md`` and ``client_rate.png``, and return the text of the former."""
    rounds = zip(rates.client, rates.perf_analyzer, strict=True)
    rows = [
        *([str(number), *_cells(*rates_of_round)] for number, rates_of_round in enumerate(rounds, start=1)),
        ["median", *_cells(median(rates.client), median(rates.perf_analyzer))],
    ]
    header = ["round", "evaluation's client, images/s", "perf_analyzer, images/s", "share"]
    text = markdown(
        f"{variant}: {num_images} images, {concurrency} requests in flight, one image each", Table(header, rows)
    )
    report = ReportFolder(folder)
    report.text("client_rate.md", text)
    report.picture("client_rate.png", lambda figure: _draw(figure, rates))
    return text


def _cells(client: float, perf_analyzer: float) -> list[str]:
    return [f"{client:.2f}", f"{perf_analyzer:.2f}", f"{client / perf_analyzer:.0%}"]


def _draw(figure: Figure, rates: Rates) -> None:
    """Draw both rates by round."""
    axes = figure.subplots()
    numbers = range(1, len(rates.client) + 1)
    axes.plot(numbers, rates.client, marker="o", label="evaluation's client")
    axes.plot(numbers, rates.perf_analyzer, marker="o", label="perf_analyzer")
    axes.set(title=f"Client at {rates.share:.0%} of perf_analyzer (medians)", xlabel="round", ylabel="images/s")
    axes.set_xticks(list(numbers))
    axes.set_ylim(bottom=0)
    axes.legend()


def _client_images_per_s(client: DetectorClient, dataset: Dataset) -> float:
    with TemporaryDirectory(prefix="client-rate-") as folder, open_answers(Path(folder) / "results", {}) as answers:
        start_s = time.perf_counter()
        collect(client, dataset, answers, MODEL, batch=1)
        return len(dataset.images) / (time.perf_counter() - start_s)
