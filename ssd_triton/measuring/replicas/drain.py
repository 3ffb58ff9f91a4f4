"""Takes one of two replicas away under constant traffic, and counts what fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Literal

import tritonclient.grpc as grpc_client

from ssd_triton.client import DetectorClient
from ssd_triton.common.errors import ServerError
from ssd_triton.common.machine import environment
from ssd_triton.common.report import BLUE, ORANGE, ReportFolder
from ssd_triton.measuring.replicas.haproxy import REPLICAS, Proxy
from ssd_triton.measuring.replicas.traffic import ConstantTraffic
from ssd_triton.serving.server import EmbeddedServer
from ssd_triton.serving.server.ports import free_port

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Way = Literal["proxy", "client"]
WAYS: tuple[Way, ...] = ("proxy", "client")
_MODEL = "ssd"
_PATIENCE_S = 60.0
"""Time limit for the first answers of both replicas, and for the last answers of the drained one, on a busy machine."""
_POLL_S = 0.1


@dataclass(frozen=True)
class DrainReport:
    """The outcome of taking one replica away under load.

    Attributes:
        way: ``proxy``: HAProxy balances, and drains the replica before it is stopped; ``client``: the gRPC client
            balances over both addresses, and the replica is stopped with SIGTERM at once.
        answered: Requests answered.
        failed: Requests failed, by error.
        retries: Requests that the client sent again.
        before: Requests answered by each replica before one was taken away.
        drain_s: Seconds until the replica had no request left; None without a proxy.
        stop_s: Seconds until its process was gone.
        taken_away_at_s: Time when draining began, seconds since the traffic began.
        gone_at_s: Time when the process was gone, seconds since the traffic began.
        answered_at_s: Time of each answer.
        latencies_s: Latency of each answer.
    """

    way: Way
    answered: int
    failed: dict[str, int]
    retries: int
    before: dict[str, int]
    drain_s: float | None
    stop_s: float
    taken_away_at_s: float
    gone_at_s: float
    answered_at_s: list[float]
    latencies_s: list[float]

    def line(self) -> str:
        """Return a summary in one line."""
        failed = "; ".join(f"{count} x {error}" for error, count in self.failed.items()) or "none"
        drained = "" if self.drain_s is None else f"drained in {self.drain_s:.2f} s, "
        return (
            f"{self.way}: {self.answered} requests answered, {sum(self.failed.values())} failed ({failed}), "
            f"{self.retries} retried; replica {drained}stopped in {self.stop_s:.2f} s; median latency "
            f"{median(self.latencies_s) * 1000:.0f} ms, longest {max(self.latencies_s) * 1000:.0f} ms"
        )


def drain_under_load(
    way: Way, replicas: tuple[EmbeddedServer, EmbeddedServer], image: bytes, *, in_flight: int, part_s: float
) -> DrainReport:
    """Send requests to two replicas, take the first one away, and continue with the other.

    Args:
        way: See :class:`DrainReport`.
        replicas: Two ready servers; the first is stopped.
        image: An encoded image.
        in_flight: Requests in flight at once.
        part_s: Seconds of traffic before the replica is taken away, and again after it.

    Raises:
        ServerError: HAProxy is not installed, or a replica answers no requests.
    """
    urls = [server.url("grpc") for server in replicas]
    with ExitStack() as stack:
        proxy = None
        url = f"ipv4:{','.join(urls)}"
        if way == "proxy":
            url = f"{replicas[0].config.host}:{free_port(replicas[0].config.host)}"
            proxy = stack.enter_context(Proxy(url, urls))
        client = stack.enter_context(DetectorClient(url, in_flight=in_flight, use_shared_memory=False))
        traffic = stack.enter_context(ConstantTraffic(client, image, limit_s=2 * (part_s + _PATIENCE_S)))
        before = _wait_for_both(urls, traffic, part_s)
        taken_away_at_s = traffic.elapsed_s()
        drain_s = _timed(lambda: proxy.drain(REPLICAS[0], timeout_s=_PATIENCE_S)) if proxy is not None else None
        stop_s = _timed(replicas[0].stop)
        gone_at_s = traffic.elapsed_s()
        time.sleep(part_s)
        traffic.finish()
        outcomes = traffic.outcomes
        return DrainReport(
            way=way,
            answered=len(outcomes.answered_at_s),
            failed=dict(outcomes.failed),
            retries=client.retries,
            before=before,
            drain_s=drain_s,
            stop_s=stop_s,
            taken_away_at_s=taken_away_at_s,
            gone_at_s=gone_at_s,
            answered_at_s=outcomes.answered_at_s,
            latencies_s=outcomes.latencies_s,
        )


def write_report(folder: Path, variant: str, reports: Sequence[DrainReport]) -> None:
    """Write ``drain.json`` and ``drain.png``."""
    report = ReportFolder(folder)
    record = {"variant": variant, "environment": environment(), "ways": [asdict(one) for one in reports]}
    report.json("drain.json", record)
    report.picture("drain.png", lambda figure: _draw(figure, reports), rows=len(reports))


def _draw(figure: Figure, reports: Sequence[DrainReport]) -> None:
    """Draw answers a second over time, one panel for each way, with the time when the replica was taken away."""
    for axes, one in zip(figure.subplots(len(reports), squeeze=False)[:, 0], reports, strict=True):
        axes.hist(one.answered_at_s, bins=range(int(max(one.answered_at_s)) + 2), color=BLUE, alpha=0.7)
        axes.axvspan(one.taken_away_at_s, one.gone_at_s, color=ORANGE, alpha=0.3, label="draining, stopping")
        title = f"{one.way}: {one.answered} answered, {sum(one.failed.values())} failed"
        axes.set(title=title, xlabel="seconds", ylabel="answers in a second")
        axes.legend(loc="upper right")


def _wait_for_both(urls: list[str], traffic: ConstantTraffic, part_s: float) -> dict[str, int]:
    """Let traffic run for ``part_s`` and until both replicas have answered; return the requests of each."""
    start = [_answered(url) for url in urls]
    while True:
        before = [_answered(url) - count for url, count in zip(urls, start, strict=True)]
        if traffic.elapsed_s() >= part_s and all(before):
            return dict(zip(REPLICAS, before, strict=True))
        if traffic.elapsed_s() > part_s + _PATIENCE_S:
            raise ServerError(f"requests do not reach both replicas: {before} answers; see their logs")
        time.sleep(_POLL_S)


def _answered(url: str) -> int:
    """Return the number of requests that a server has answered successfully."""
    with closing(grpc_client.InferenceServerClient(url)) as client:
        statistics = client.get_inference_statistics(_MODEL, as_json=True)
    success = statistics["model_stats"][0]["inference_stats"]["success"]
    return int(success.get("count", 0))


def _timed(action: Callable[[], None]) -> float:
    start_s = time.monotonic()
    action()
    return time.monotonic() - start_s
