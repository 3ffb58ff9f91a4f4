"""Checks that an overloaded server refuses the excess at once, and answers the rest in bounded time.

Requests are sent when they are due, however many are unanswered, as independent clients would send them (open loop).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from enum import Enum

import numpy as np

from ssd_triton.client import ClientError, DeadlineExceededError, ServerOverloadedError
from ssd_triton.client.client import OUTPUTS
from ssd_triton.client.grpc_transport import GrpcTransport
from ssd_triton.common.errors import UserError
from ssd_triton.common.progress import progress
from ssd_triton.measuring.process_monitor import ProcessMonitor, ProcessSample, percentile
from ssd_triton.serving.server import EmbeddedServer

MODEL = "ssd"
TARGET_GOODPUT = 0.8
"""Least share of the saturated rate that must be answered under overload."""
TARGET_REFUSAL_S = 1.0
"""Largest median time of a refusal."""
_THREADS = 512
_PROBES = 5
_LEAST_QUEUES = 6
"""Least number of requests offered, as a multiple of the length of the detector's queue."""
_SAMPLE_S = 1.0


class OverloadError(UserError):
    """The server fails before it is overloaded."""


class RequestOutcome(str, Enum):
    """Outcome of a request."""

    ANSWERED = "answered"
    REFUSED = "refused"
    LATE = "not answered in time"
    FAILED = "failed"


@dataclass(frozen=True)
class TimedRequest:
    """One request and its outcome.

    Attributes:
        sent_s: Time when it was sent, since the measurement began.
        latency_s: Time until its answer or refusal.
        outcome: Its outcome.
        problem: The error's text.
    """

    sent_s: float
    latency_s: float
    outcome: RequestOutcome
    problem: str = ""


@dataclass(frozen=True)
class OverloadSettings:
    """Load and duration of an overload.

    Attributes:
        factor: Offered load, as a multiple of the saturated rate.
        saturate_s: Duration of measuring the saturated rate.
        offer_s: Duration of the overload; it lasts longer if that would not fill the queue.
        in_flight: Requests in flight while the saturated rate is measured.
        timeout_s: Deadline of every request.
    """

    factor: float = 4.0
    saturate_s: float = 20.0
    offer_s: float = 40.0
    in_flight: int = 4
    timeout_s: float = 120.0


@dataclass(frozen=True)
class OverloadResult:
    """Measurements of an overload.

    Attributes:
        settings: Load and duration.
        variant: Variant of the detector.
        max_queue_size: Limit of the detector's queue, requests.
        largest_batch: Largest batch that the detector forms from its queue.
        unloaded_s: Latencies of single requests before the overload.
        saturated_per_s: Images a second at the saturated rate.
        requests: Requests of the overload, in the order in which they were sent.
        first_answer_s: Time from the end of the overload to the first answer of a request sent after it.
        recovered_s: Latencies of single requests after that.
        samples: Memory over time.
    """

    settings: OverloadSettings
    variant: str
    max_queue_size: int
    largest_batch: int
    unloaded_s: Sequence[float]
    saturated_per_s: float
    requests: Sequence[TimedRequest]
    first_answer_s: float
    recovered_s: Sequence[float]
    samples: Sequence[ProcessSample]

    def latencies_s(self, outcome: RequestOutcome) -> list[float]:
        """Return the latencies of the overload's requests with an outcome."""
        return [one.latency_s for one in self.requests if one.outcome is outcome]

    @property
    def bound_s(self) -> float:
        """Longest expected wait: the largest batch has just begun, the queue behind it is full, the rate is low."""
        return (self.max_queue_size + self.largest_batch) / (TARGET_GOODPUT * self.saturated_per_s)

    @property
    def goodput_per_s(self) -> float:
        """Answers a second, from the first request of the overload to the last answer."""
        ends_s = [one.sent_s + one.latency_s for one in self.requests if one.outcome is RequestOutcome.ANSWERED]
        return len(ends_s) / (max(ends_s) - self.requests[0].sent_s) if ends_s else 0.0

    def failures(self) -> list[str]:
        """Return the reasons why the server failed the test, one line each."""
        found = []
        accepted_s, refused_s = self.latencies_s(RequestOutcome.ANSWERED), self.latencies_s(RequestOutcome.REFUSED)
        failed = [one for one in self.requests if one.outcome is RequestOutcome.FAILED]
        if failed:
            found.append(f"{len(failed)} requests failed: {failed[0].problem}")
        if not refused_s:
            found.append("nothing was refused: the load was no overload, or queues have no limit")
        elif percentile(refused_s, 50) > TARGET_REFUSAL_S:
            found.append(f"refusals took {percentile(refused_s, 50):.2f} s, expected at most {TARGET_REFUSAL_S:g} s")
        if percentile(accepted_s, 99) > self.bound_s:
            found.append(
                f"p99 of what was answered is {percentile(accepted_s, 99):.1f} s, expected {self.bound_s:.1f} s"
            )
        if self.goodput_per_s < TARGET_GOODPUT * self.saturated_per_s:
            found.append(
                f"{self.goodput_per_s:.2f} answers/s, expected {TARGET_GOODPUT:.0%} of {self.saturated_per_s:.2f}"
            )
        return found


def measure_overload(server: EmbeddedServer, image: bytes, settings: OverloadSettings) -> OverloadResult:
    """Find the rate at which a server is saturated, offer several times that rate, and measure how it recovers.

    Args:
        server: A running server on this machine, without other clients.
        image: An encoded image, which every request sends.
        settings: Load and duration.

    Raises:
        OverloadError: A single request is not answered.
        ServerError: A process of the server died.
    """
    batching = server.repository.detector(server.variant).dynamic_batching
    max_queue_size = batching.default_queue_policy.max_queue_size
    monitor = ProcessMonitor(server)
    load = _Load(server, image, settings.timeout_s)
    try:
        unloaded_s = [load.must_answer().latency_s for _ in range(_PROBES)]
        monitor.take(0, {})
        saturated_per_s = load.saturate(settings)
        requests_per_s = settings.factor * saturated_per_s
        count = max(round(settings.offer_s * requests_per_s), _LEAST_QUEUES * max_queue_size)
        requests = load.offer(count, requests_per_s, monitor)
        end_s = load.now_s()
        while load.ask().outcome is not RequestOutcome.ANSWERED:
            time.sleep(0.05)
        first_answer_s = load.now_s() - end_s
        done = [future.result() for future in requests]
        recovered_s = [load.must_answer().latency_s for _ in range(_PROBES)]
        monitor.take(len(done), {})
    finally:
        load.close()
    return OverloadResult(
        settings,
        server.variant,
        max_queue_size,
        max(batching.preferred_batch_size, default=max_queue_size),
        unloaded_s,
        saturated_per_s,
        done,
        first_answer_s,
        recovered_s,
        monitor.samples,
    )


class _Load:
    """Sends one image many times and records the outcomes; no request is retried."""

    def __init__(self, server: EmbeddedServer, image: bytes, timeout_s: float) -> None:
        self._transport = GrpcTransport(server.url("grpc"), timeout_s)
        self._tensor = np.array([[image]], np.object_)
        self._timeout_s = timeout_s
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="overload")
        self._start_s = time.monotonic()

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._transport.close()

    def now_s(self) -> float:
        return time.monotonic() - self._start_s

    def ask(self) -> TimedRequest:
        sent_s = self.now_s()
        outcome, problem = RequestOutcome.ANSWERED, ""
        try:
            self._transport.infer(MODEL, "IMAGE", self._tensor, OUTPUTS, self._timeout_s)
        except ServerOverloadedError as error:
            outcome, problem = RequestOutcome.REFUSED, str(error)
        except DeadlineExceededError as error:
            outcome, problem = RequestOutcome.LATE, str(error)
        except ClientError as error:
            outcome, problem = RequestOutcome.FAILED, str(error)
        return TimedRequest(sent_s, self.now_s() - sent_s, outcome, problem)

    def must_answer(self) -> TimedRequest:
        request = self.ask()
        if request.outcome is not RequestOutcome.ANSWERED:
            raise OverloadError(f"a single request was {request.outcome.value}: {request.problem}")
        return request

    def saturate(self, settings: OverloadSettings) -> float:
        """Measure the images a second while ``in_flight`` requests are always in flight."""
        over = threading.Event()
        start_s = self.now_s()

        def work() -> int:
            answered = 0
            while not over.is_set():
                self.must_answer()
                answered += 1
            return answered

        workers = [self._pool.submit(work) for _ in range(settings.in_flight)]
        wait(workers, settings.saturate_s, return_when="FIRST_EXCEPTION")
        over.set()
        return sum(worker.result() for worker in workers) / (self.now_s() - start_s)

    def offer(self, count: int, requests_per_s: float, monitor: ProcessMonitor) -> list[Future[TimedRequest]]:
        """Send requests at even intervals, and sample the processes meanwhile."""
        start_s, futures = self.now_s(), []
        sampled_s = -_SAMPLE_S
        for number in progress(range(count), total=count, description="overload", unit="requests"):
            time.sleep(max(start_s + number / requests_per_s - self.now_s(), 0.0))
            futures.append(self._pool.submit(self.ask))
            if self.now_s() - sampled_s >= _SAMPLE_S:
                sampled_s = self.now_s()
                monitor.take(number, {})
        return futures
