"""Runs a soak test."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

from ssd_triton.client import DetectorClient
from ssd_triton.client.transport import make_transport
from ssd_triton.common.errors import ServerError
from ssd_triton.common.progress import progress
from ssd_triton.measuring import request_cases as cases
from ssd_triton.measuring.process_monitor import Growth, ProcessMonitor, ProcessSample, growth
from ssd_triton.measuring.traffic import (
    CheckedTraffic,
    RequestStream,
    Tally,
    frame_stream,
    image_stream,
    preprocess_stream,
)
from ssd_triton.serving.server import EmbeddedServer

TIMEOUT_S = 300.0
PROTOCOLS: tuple[Literal["grpc", "http"], ...] = ("grpc", "http")


@dataclass(frozen=True)
class SoakSettings:
    """Duration, load and limits of a soak test.

    Attributes:
        seconds: Duration.
        preprocess_per_s: Requests a second straight to the preprocessing, at most.
        bad_fraction: Fraction of the requests that must be refused, 0 to 1.
        sample_s: Seconds between samples.
        warm_up_fraction: Fraction of the time in which memory may grow.
        max_growth: Largest relative growth of resident memory after that.
        seed: Seed of the order of the requests.
    """

    seconds: float
    preprocess_per_s: float
    bad_fraction: float = 0.1
    sample_s: float = 5.0
    warm_up_fraction: float = 0.2
    max_growth: float = 0.05
    seed: int = 0


@dataclass(frozen=True)
class SoakResult:
    """The outcome of a soak test.

    Attributes:
        settings: Duration, load and limits.
        variant: Variant of the detector.
        tallies: Counts by kind of request.
        samples: Samples in order.
        growth: Growth of resident memory, by process and of "all".
        retries: Requests that a client sent again.
        left_behind: Regions of shared memory that the clients left behind.
        death: Message about a process that died; None if none did.
        interrupted: Whether Ctrl-C ended the run.
    """

    settings: SoakSettings
    variant: str
    tallies: Mapping[str, Tally]
    samples: list[ProcessSample]
    growth: Mapping[str, Growth]
    retries: int
    left_behind: int
    death: str | None
    interrupted: bool

    @property
    def requests(self) -> int:
        """Requests of all kinds."""
        return sum(tally.requests for tally in self.tallies.values())

    def failures(self) -> list[str]:
        """Return the reasons why the run failed, one line each."""
        found = [self.death] if self.death else []
        for kind, tally in self.tallies.items():
            if tally.wrong or tally.lost:
                found.append(
                    f"{kind}: {tally.wrong} of {tally.requests} answers were wrong, {tally.lost} never came; "
                    f"{tally.problems[0]}"
                )
        found += [
            f"{name}: resident memory grew by {one.share:.1%} after warm-up, from {one.before_mib:.0f} to "
            f"{one.after_mib:.0f} MiB, expected at most {self.settings.max_growth:.0%}"
            for name, one in self.growth.items()
            if one.share > self.settings.max_growth
        ]
        if self.left_behind > 0:
            found.append(f"{self.left_behind} regions of shared memory were left behind")
        return found


def soak(server: EmbeddedServer, settings: SoakSettings) -> SoakResult:
    """Send good and bad requests of all kinds for a while, check every answer, and watch the server's processes.

    Args:
        server: A running server on this machine.
        settings: Duration, load and limits.

    Raises:
        TrafficError: The server does not answer a good request at the beginning.
    """
    monitor = ProcessMonitor(server)
    monitor.take(0, {})
    death, interrupted = None, False
    with ExitStack() as stack:
        streams, client = _streams(server, settings, stack)
        traffic = stack.enter_context(CheckedTraffic(streams, settings.bad_fraction, settings.seed))
        try:
            counts: dict[str, int] = {}
            for _ in progress(
                _ticks(settings), total=round(settings.seconds / settings.sample_s), description="soak", unit="samples"
            ):
                monitor.take(traffic.requests, traffic.latencies_since(counts))
        except KeyboardInterrupt:
            interrupted = True
        except ServerError as error:
            death = str(error)
    if death is None:
        monitor.take(traffic.requests, traffic.latencies_since(counts))
    return SoakResult(
        settings,
        server.variant,
        traffic.tallies,
        monitor.samples,
        growth(monitor.samples, settings.warm_up_fraction),
        client.retries,
        monitor.samples[-1].shared_memory_files - monitor.samples[0].shared_memory_files if death is None else 0,
        death,
        interrupted,
    )


def _ticks(settings: SoakSettings) -> Iterator[int]:
    """Tick every ``sample_s`` until the time is over; late ticks are dropped."""
    start_s = time.monotonic()
    for number in range(1, round(settings.seconds / settings.sample_s) + 1):
        time.sleep(max(start_s + number * settings.sample_s - time.monotonic(), 0.0))
        yield number


def _streams(
    server: EmbeddedServer, settings: SoakSettings, stack: ExitStack
) -> tuple[list[RequestStream], DetectorClient]:
    client = stack.enter_context(DetectorClient(server.url("grpc"), timeout_s=TIMEOUT_S))
    streams = [
        image_stream(client, cases.views(), cases.refused_images(), workers=1),
        frame_stream(client, cases.frames(), cases.refused_frames(), workers=1),
    ]
    small, refused = cases.small_images(), cases.refused_images()
    for protocol in PROTOCOLS:
        transport = make_transport(protocol, server.url(protocol), TIMEOUT_S)
        stack.callback(transport.close)
        name, rate = f"ssd_preprocess, {protocol}", settings.preprocess_per_s / len(PROTOCOLS)
        streams.append(preprocess_stream(transport, name, small, refused, rate))
    return streams, client
