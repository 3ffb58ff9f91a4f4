"""Measures the cost of the demo: the demo and the detector alone process the same clip, in turns."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

from ssd_triton.client import DetectorClient
from ssd_triton.common.in_flight import submit_ahead
from ssd_triton.common.progress import progress
from ssd_triton.common.report import Table
from ssd_triton.driving.demo.summary import DemoSummary
from ssd_triton.media.video import VideoSource

TARGET = 0.15
"""Largest time a frame that the demo may add, relative to the detector's own."""


@dataclass
class DemoRates:
    """Frames a second of both, by round."""

    detector: list[float] = field(default_factory=list)
    demo: list[float] = field(default_factory=list)

    @property
    def added(self) -> float:
        """Time a frame that the demo adds, relative to the detector's own; median of the rounds."""
        return median(alone / demo for alone, demo in zip(self.detector, self.demo, strict=True)) - 1

    def table(self) -> Table:
        """Return a table with every round and the median."""
        rounds = enumerate(zip(self.detector, self.demo, strict=True), start=1)
        rows = [
            [str(number), f"{alone:.2f}", f"{demo:.2f}", f"{alone / demo - 1:.0%}"] for number, (alone, demo) in rounds
        ]
        rows.append(["median", f"{median(self.detector):.2f}", f"{median(self.demo):.2f}", f"{self.added:.0%}"])
        return Table(["round", "detector alone, frames/s", "demo, frames/s", "added"], rows)


def measure_demo_rate(
    client: DetectorClient,
    open_clip: Callable[[], VideoSource],
    run: Callable[[VideoSource], DemoSummary],
    rounds: int,
) -> DemoRates:
    """Run the detector alone and the whole demo on the same clip, in turns.

    The run without the demo reads frames, sends several ahead and waits for the answers in order, as the demo does.

    Args:
        client: A client of a ready server.
        open_clip: Opens the clip at its beginning.
        run: Runs the whole demo on the clip.
        rounds: Turns of each, after one turn of the detector that does not count.
    """
    rates = DemoRates()
    _detector_alone(client, open_clip)
    for _ in progress(range(rounds), total=rounds, description="detector and demo", unit="rounds"):
        rates.detector.append(_detector_alone(client, open_clip))
        with open_clip() as source:
            summary = run(source)
        rates.demo.append(summary.frames / summary.wall_s)
    return rates


def _detector_alone(client: DetectorClient, open_clip: Callable[[], VideoSource]) -> float:
    with open_clip() as source:
        frames, start_s = 0, time.perf_counter()
        answers = submit_ahead(source, lambda frame: client.submit_frame(frame.image_rgb), client.in_flight)
        for _, future in answers:
            future.result()
            frames += 1
        return frames / (time.perf_counter() - start_s)
