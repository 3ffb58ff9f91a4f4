"""Whether the evaluation's client keeps a server as busy as ``perf_analyzer`` does: both measured in turns."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from ssd_triton.client import DetectorClient
from ssd_triton.common.files import atomic_output
from ssd_triton.common.progress import progress
from ssd_triton.evaluation.dataset import Dataset
from ssd_triton.evaluation.journal import open_journal
from ssd_triton.evaluation.served import collect
from ssd_triton.measuring.sweeps.perf_analyzer import Load, bytes_element, measure

MODEL = "ssd"
TARGET = 0.9
"""Share of ``perf_analyzer``'s images a second that the client shall reach."""


@dataclass
class Rates:
    """Images a second of every round."""

    client: list[float] = field(default_factory=list)
    perf_analyzer: list[float] = field(default_factory=list)

    @property
    def share(self) -> float:
        """The client's median rate over that of ``perf_analyzer``."""
        return median(self.client) / median(self.perf_analyzer)


def measure_client_rate(url: str, dataset: Dataset, concurrency: int, *, rounds: int, timeout_s: float) -> Rates:
    """Let the evaluation's client and ``perf_analyzer`` send the same images, one a request, in turns.

    The client works as in an evaluation: files are read, answers are written to a file of results.

    Args:
        url: gRPC address of a ready server.
        dataset: The images.
        concurrency: Requests under way at once.
        rounds: Turns that each gets.
        timeout_s: For one measurement of ``perf_analyzer``, and for one request of the client.

    Raises:
        ClientError: The server fails.
        PerfAnalyzerError: ``perf_analyzer`` is missing or cannot measure.
    """
    elements = [{"IMAGE": bytes_element(dataset.read(image))} for image in dataset.images]
    # Three windows are measured: together they send as many images as the client does, or more.
    load = Load(MODEL, url, elements, concurrency, max(len(elements) // 3 + 1, 8 * concurrency))
    rates = Rates()
    with DetectorClient(url, timeout_s=timeout_s, in_flight=concurrency) as client:
        for _ in progress(range(rounds), total=rounds, description="client and perf_analyzer", unit="rounds"):
            rates.client.append(_client_images_per_s(client, dataset))
            rates.perf_analyzer.append(measure(load, timeout_s=timeout_s).images_per_s)
    return rates


def table(rates: Rates, num_images: int, concurrency: int) -> str:
    """Markdown: every round, and the medians."""
    lines = [
        f"{num_images} images, {concurrency} requests under way, one image each",
        "",
        "| round | evaluation's client, images/s | perf_analyzer, images/s | share |",
        "|---|---|---|---|",
    ]
    for number, (client, perf_analyzer) in enumerate(zip(rates.client, rates.perf_analyzer, strict=True), start=1):
        lines.append(f"| {number} | {client:.2f} | {perf_analyzer:.2f} | {client / perf_analyzer:.0%} |")
    middle = f"{median(rates.client):.2f} | {median(rates.perf_analyzer):.2f}"
    lines.append(f"| median | {middle} | {rates.share:.0%} |")
    return "\n".join(lines)


def plot(path: Path, rates: Rates) -> None:
    """Both rates by round."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    numbers = range(1, len(rates.client) + 1)
    curves: Sequence[tuple[str, list[float]]] = (
        ("evaluation's client", rates.client),
        ("perf_analyzer", rates.perf_analyzer),
    )
    for label, values in curves:
        axes.plot(numbers, values, marker="o", label=label)
    axes.set(title=f"Client at {rates.share:.0%} of perf_analyzer (medians)", xlabel="round", ylabel="images/s")
    axes.set_xticks(list(numbers))
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.25)
    axes.legend()
    with atomic_output(path) as temporary:
        figure.savefig(temporary, dpi=120)
    plt.close(figure)


def _client_images_per_s(client: DetectorClient, dataset: Dataset) -> float:
    with TemporaryDirectory(prefix="client-rate-") as folder, open_journal(Path(folder) / "results", {}) as journal:
        start_s = time.perf_counter()
        collect(client, dataset, journal, MODEL, batch=1)
        return len(dataset.images) / (time.perf_counter() - start_s)
