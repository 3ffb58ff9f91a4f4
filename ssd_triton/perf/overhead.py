"""What the ensemble costs over the bare detector: both measured on one server, in turns."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median

from ssd_triton import cli
from ssd_triton.export.samples import sample_photograph
from ssd_triton.perf.perf_analyzer import Load, Measurement, bytes_element, measure
from ssd_triton.reference import preprocess

MODELS = ("ssd_detector", "ssd")


@dataclass
class Series:
    """All measurements of one model at one concurrency."""

    model: str
    concurrency: int
    rounds: list[Measurement] = field(default_factory=list)

    def images_per_s(self) -> float:
        """Median over the rounds."""
        return median(round_.images_per_s for round_ in self.rounds)

    def latencies_ms(self) -> tuple[float, float, float]:
        """p50, p95 and p99, each the median over the rounds."""
        return (
            median(round_.p50_ms for round_ in self.rounds),
            median(round_.p95_ms for round_ in self.rounds),
            median(round_.p99_ms for round_ in self.rounds),
        )


def measure_overhead(
    url: str, concurrencies: list[int], *, rounds: int, requests: int, timeout_s: float
) -> list[Series]:
    """Measure the bare detector and the ensemble in turns, so that both see the same machine.

    Args:
        url: gRPC address of a ready server.
        concurrencies: Requests under way at once.
        rounds: Turns that each model gets at each concurrency.
        requests: Requests in a measurement window; at least eight for each that is under way at once.
        timeout_s: For one measurement.
    """
    encoded = sample_photograph()
    inputs = {"ssd": {"IMAGE": bytes_element(encoded)}, "ssd_detector": {"image": preprocess(encoded)[0].tobytes()}}
    series = [Series(model, concurrency) for concurrency in concurrencies for model in MODELS]
    turns = [one for _ in range(rounds) for one in series]
    for one in cli.progress(turns, total=len(turns), description="perf_analyzer", unit="runs"):
        load = Load(one.model, url, [inputs[one.model]], one.concurrency, max(requests, 8 * one.concurrency))
        one.rounds.append(measure(load, timeout_s=timeout_s))
    return series


def table(series: list[Series]) -> str:
    """Markdown, with the ensemble's throughput relative to the bare detector's."""
    lines = [
        "| model | concurrency | images/s | p50 ms | p95 ms | p99 ms | of the bare detector |",
        "|---|---|---|---|---|---|---|",
    ]
    bare = {one.concurrency: one.images_per_s() for one in series if one.model == "ssd_detector"}
    for one in series:
        latencies = " | ".join(f"{value:.0f}" for value in one.latencies_ms())
        share = one.images_per_s() / bare[one.concurrency]
        lines.append(f"| `{one.model}` | {one.concurrency} | {one.images_per_s():.2f} | {latencies} | {share:.0%} |")
    return "\n".join(lines)
