"""Sends requests from several threads at once, and checks every answer."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ssd_triton.client import ClientError, DetectorClient, RequestRefusedError
from ssd_triton.client.transport import Outputs, Transport
from ssd_triton.common.detections import Detections
from ssd_triton.common.errors import UserError
from ssd_triton.measuring.request_cases import Case

PREPROCESS_OUTPUTS = ("image", "original_size")
_KEPT_PROBLEMS = 20
_SCORE_THRESH = 0.5
_SCORE_TOLERANCE = 0.05
"""Largest difference in score: answers from other batches differ by rounding."""
_BOX_TOLERANCE_PX = 4.0
"""Largest difference in each side of a box; other pictures differ by more."""
_PAUSE_AFTER_PROBLEM_S = 0.5
_PREPROCESS_WORKERS = 4
_WARM_UP_ROUNDS = 1

Ask = Callable[[Case], Any]
Agree = Callable[[Any, Any], bool]


class TrafficError(UserError):
    """The run could not begin, since the server did not answer a good request."""


@dataclass(frozen=True)
class RequestStream:
    """Requests of one kind.

    Attributes:
        name: Name of the kind.
        good: Cases that must get the same answer as at the beginning.
        bad: Cases that must be refused for their reason.
        ask: Sends a case and returns the answer, or raises ClientError.
        agree: Whether an answer equals the expected one.
        workers: Number of threads, each with one request in flight.
        requests_per_s: Rate limit for all its threads together; None sends the next request after each answer.
    """

    name: str
    good: Sequence[Case]
    bad: Sequence[Case]
    ask: Ask
    agree: Agree
    workers: int
    requests_per_s: float | None = None


@dataclass(frozen=True)
class Problem:
    """The problem with an answer or, if ``lost``, the reason why there is none."""

    text: str
    lost: bool = False


@dataclass
class Tally:
    """Counts of the requests of a stream."""

    answered: int = 0
    refused: int = 0
    wrong: int = 0
    lost: int = 0
    """Requests without an answer after all retries of the client."""
    latencies_ms: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Problems of the first wrong answers and lost requests."""

    @property
    def requests(self) -> int:
        """Requests so far, whatever their outcome."""
        return self.answered + self.refused + self.wrong + self.lost


def image_stream(client: DetectorClient, good: Sequence[Case], bad: Sequence[Case], workers: int) -> RequestStream:
    """Return a stream of encoded images through the ensemble ``ssd``."""
    return RequestStream("ssd", good, bad, lambda case: client.detect(case.encoded), same_detections, workers)


def frame_stream(client: DetectorClient, good: Sequence[Case], bad: Sequence[Case], workers: int) -> RequestStream:
    """Return a stream of raw frames through ``ssd_frames``, in shared memory if the server is on this machine."""
    return RequestStream(
        "ssd_frames", good, bad, lambda case: client.detect_frame(case.frame), same_detections, workers
    )


def preprocess_stream(
    transport: Transport, name: str, good: Sequence[Case], bad: Sequence[Case], requests_per_s: float
) -> RequestStream:
    """Return a stream of encoded images straight to ``ssd_preprocess``, whose answers must agree to the bit."""

    def ask(case: Case) -> Outputs:
        image = np.array([[case.encoded]], np.object_)
        return transport.infer("ssd_preprocess", "IMAGE", image, PREPROCESS_OUTPUTS, timeout_s=300.0)

    return RequestStream(name, good, bad, ask, same_tensors, _PREPROCESS_WORKERS, requests_per_s)


def same_tensors(got: Outputs, expected: Outputs) -> bool:
    """Whether all tensors are equal."""
    return all(np.array_equal(got[name], expected[name]) for name in PREPROCESS_OUTPUTS)


def same_detections(got: Detections, expected: Detections) -> bool:
    """Whether every clear detection in each of the two has a match in the other, up to rounding."""
    return _covers(got, expected) and _covers(expected, got)


def _covers(one: Detections, other: Detections) -> bool:
    for box, score, class_id in other.filter(score_thresh=_SCORE_THRESH + _SCORE_TOLERANCE):
        alike = (
            (one.class_ids == class_id)
            & (np.abs(one.scores - score) <= _SCORE_TOLERANCE)
            & (np.abs(one.boxes_xyxy - box).max(axis=1, initial=0) <= _BOX_TOLERANCE_PX)
        )
        if not alike.any():
            return False
    return True


class CheckedTraffic:
    """Runs the threads of all streams during its block; use it as a context manager.

    Args:
        streams: Kinds of requests.
        bad_fraction: Fraction of the requests that must be refused, 0 to 1.
        seed: Seed of the order of the cases.

    Raises:
        TrafficError: On entry: a good case is not answered.
    """

    def __init__(self, streams: Sequence[RequestStream], bad_fraction: float, seed: int) -> None:
        self.tallies = {stream.name: Tally() for stream in streams}
        self._streams = streams
        self._bad_fraction = bad_fraction
        self._seed = seed
        self._stopping = threading.Event()
        self._counting = threading.Lock()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> CheckedTraffic:
        answers = {
            stream.name: {case.name: _first_answer(stream, case) for case in stream.good} for stream in self._streams
        }
        self._warm_up()
        for stream in self._streams:
            expected = answers[stream.name]
            for number in range(stream.workers):
                args = (stream, expected, random.Random(f"{self._seed} {stream.name} {number}"))  # noqa: S311 - no secret
                self._threads.append(threading.Thread(target=self._work, args=args, name=f"{stream.name}-{number}"))
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    @property
    def requests(self) -> int:
        """Requests answered or refused so far."""
        with self._counting:
            return sum(tally.requests for tally in self.tallies.values())

    def latencies_since(self, counts: dict[str, int]) -> dict[str, list[float]]:
        """Return the latencies after the first ``counts`` of each stream, milliseconds, and update ``counts``."""
        with self._counting:
            new = {name: tally.latencies_ms[counts.get(name, 0) :] for name, tally in self.tallies.items()}
            counts.update({name: len(tally.latencies_ms) for name, tally in self.tallies.items()})
        return new

    def _warm_up(self) -> None:
        """Send all good cases at once, so that large batches allocate their memory before it is monitored."""
        asked = [(stream, case) for stream in self._streams for case in stream.good] * _WARM_UP_ROUNDS
        with ThreadPoolExecutor(len(asked)) as pool:
            list(pool.map(lambda one: _first_answer(*one), asked))

    def _work(self, stream: RequestStream, expected: dict[str, Any], order: random.Random) -> None:
        every_s = stream.workers / stream.requests_per_s if stream.requests_per_s else 0.0
        due_s = time.monotonic() + order.uniform(0, every_s)
        while not self._stopping.wait(max(due_s - time.monotonic(), 0.0)):
            due_s += every_s
            case = order.choice(stream.bad if order.random() < self._bad_fraction else stream.good)
            start_s = time.perf_counter()
            problem = _problem_with(stream, case, expected)
            took_ms = (time.perf_counter() - start_s) * 1e3
            self._count(self.tallies[stream.name], case, took_ms, problem)
            if problem is not None:
                self._stopping.wait(_PAUSE_AFTER_PROBLEM_S)

    def _count(self, tally: Tally, case: Case, took_ms: float, problem: Problem | None) -> None:
        with self._counting:
            tally.latencies_ms.append(took_ms)
            if problem is not None:
                tally.lost += problem.lost
                tally.wrong += not problem.lost
                if len(tally.problems) < _KEPT_PROBLEMS:
                    tally.problems.append(f"{case.name}: {problem.text}")
            elif case.reason is None:
                tally.answered += 1
            else:
                tally.refused += 1


def _problem_with(stream: RequestStream, case: Case, expected: dict[str, Any]) -> Problem | None:
    """Return the problem with the answer to a case; None if the answer is right."""
    try:
        answer = stream.ask(case)
    except RequestRefusedError as error:
        if case.reason is not None and case.reason in str(error):
            return None
        return Problem(f"got the refusal '{error}', expected {case.reason or 'an answer'}")
    except ClientError as error:
        return Problem(f"got {type(error).__name__}: {error}", lost=True)
    if case.reason is not None:
        return Problem(f"got an answer, expected the refusal '{case.reason}'")
    return None if stream.agree(answer, expected[case.name]) else Problem("got another answer than at the beginning")


def _first_answer(stream: RequestStream, case: Case) -> Any:
    try:
        return stream.ask(case)
    except ClientError as error:
        raise TrafficError(f"{stream.name}: {case.name} is not answered: {error}") from error
