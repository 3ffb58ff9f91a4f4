"""Runs an attack: a calm phase, then hostile requests beside good ones, then expensive requests again, one by one."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from fnmatch import fnmatchcase

from ssd_triton.client import DetectorClient
from ssd_triton.common.progress import progress
from ssd_triton.measuring.attack.kinds import PROTOCOLS, Kind, all_kinds
from ssd_triton.measuring.attack.result import AttackResult, AttackSettings, HostileRequest
from ssd_triton.measuring.attack.sending import AttackedServer, AttackError
from ssd_triton.measuring.attack.server_watch import SAMPLE_S, ServerWatch
from ssd_triton.measuring.process_monitor import percentile
from ssd_triton.measuring.request_cases import Case, views
from ssd_triton.measuring.traffic import CheckedTraffic, RequestStream, same_detections

_TRY_S, _RETRY_S = 10.0, 60.0
"""Seconds for one try of a good request, and for all its tries."""
_TICK_S = 0.5
_POINTS = 100
"""Points of the curve of latencies."""
_MOST_RESIDENT_MIB, _MOST_RESIDENT_RATIO = 6144.0, 2.0
"""Resident memory at which an attack ends, to protect the machine, and as a multiple of that at the beginning, for
servers that hold so much from the start."""
_RETURN_S = 60.0
"""Longest wait for a server that died to come back."""
_SETTLE_S = 3.0
_RECENT, _JUST_NOW_S, _LINGERING_S = 2000, 1.0, 10.0
"""Requests that may have caused a server's death: how many of the latest, and how long before it. The longer time is
for bursts of cancelled calls, which a busy server works off with a delay."""
_ALONE_S = 300.0
"""Time for sending suspects again, one by one: requests that may have kept the server busy for too long."""


def attack(target: AttackedServer, settings: AttackSettings, pid: int | None = None) -> AttackResult:
    """Send hostile requests of all kinds beside good ones, check every answer, and watch the server.

    Ctrl-C ends it early, with the result so far.

    Args:
        target: A running server on this machine.
        settings: Duration, load, kinds and limits.
        pid: The server's process, or a parent that restarts it; None finds the process that listens at the target.

    Raises:
        AttackError: The server is not on this machine or not ready, or no kind matches the patterns.
        TrafficError: A good request is not answered at the beginning.
    """
    kinds = _chosen(target, settings)
    for kind in progress(kinds, total=len(kinds), description="making requests", unit="kinds"):
        kind.prepare()
    attackers = _Attackers(target, kinds, settings.seed)
    with ExitStack() as stack:
        stack.callback(target.close)
        watch = stack.enter_context(ServerWatch(target, pid, attackers.in_flight))
        run = _Run(settings, watch, attackers)
        try:
            run.phases(_good_streams(target, settings, stack))
            run.measure_suspects()
        except KeyboardInterrupt:
            run.ending = "ended early by Ctrl-C"
    return run.result(kinds)


def _chosen(target: AttackedServer, settings: AttackSettings) -> list[Kind]:
    """Return the kinds whose names match and whose models are served."""

    def matches(kind: Kind, patterns: Sequence[str]) -> bool:
        return any(fnmatchcase(kind.name, pattern) for pattern in patterns)

    patterns = settings.kinds
    kinds = [kind for kind in all_kinds() if matches(kind, patterns) and not matches(kind, settings.without)]
    if not kinds:
        raise AttackError(
            f"got --kinds {' '.join(patterns)}, expected patterns such as '*JPEG*': --list shows all kinds"
        )
    served = [kind for kind in kinds if kind.model is None or target.is_model_ready(kind.model)]
    if not served:
        raise AttackError(
            f"got --kinds {' '.join(patterns)}, which need the model {kinds[0].model}, and this server has none; start "
            "it without --expose"
        )
    return served


def _good_streams(target: AttackedServer, settings: AttackSettings, stack: ExitStack) -> list[RequestStream]:
    """Return streams of good requests, photographs over either protocol, from clients that retry."""
    streams = []
    for protocol in PROTOCOLS:
        client = stack.enter_context(
            DetectorClient(target.url(protocol), protocol=protocol, timeout_s=_TRY_S, retry_s=_RETRY_S)
        )

        def ask(case: Case, client: DetectorClient = client) -> object:
            return client.detect(case.encoded)

        rate = settings.good_per_s / len(PROTOCOLS)
        streams.append(RequestStream(f"ssd, {protocol}", views(), (), ask, same_detections, 1, rate))
    return streams


class _Run:
    """Runs the phases of an attack, and collects their measurements."""

    def __init__(self, settings: AttackSettings, watch: ServerWatch, attackers: _Attackers) -> None:
        self.ending: str | None = None
        self._settings = settings
        self._watch = watch
        self._attackers = attackers
        self._traffic: CheckedTraffic | None = None
        self._seen: dict[str, int] = {}
        self._calm_ms: list[float] = []
        self._attacked_ms: list[float] = []
        self._curve: list[tuple[float, float]] = []
        self._begin_s = time.monotonic()
        self._end_s = self._settled_s = float("inf")
        self._alone_s: dict[HostileRequest, float] = {}

    def phases(self, streams: Sequence[RequestStream]) -> None:
        """Send good requests alone, then beside hostile ones."""
        self._traffic = CheckedTraffic(streams, bad_fraction=0.0, seed=self._settings.seed)
        with self._traffic:
            self._begin_s = time.monotonic()
            self._wait(self._settings.calm_s, "calm", self._calm_ms)
            self._begin_s = time.monotonic()
            with self._attackers.running(self._settings.attackers, self._watch):
                self._wait(self._settings.seconds, "attack", self._attacked_ms)
                while self._attackers.unsent and not self._must_end():
                    self._wait(_TICK_S, "attack", self._attacked_ms)
            self._end_s = time.monotonic()
            # The server frees the memory of the last requests meanwhile; what remains is memory that it keeps.
            self._wait(_SETTLE_S, "settling", [])
            self._settled_s = time.monotonic()

    def _wait(self, seconds: float, phase: str, latencies_ms: list[float]) -> None:
        """Let the threads work, and collect the latencies of good requests."""
        begin_s = drawn_s = time.monotonic()
        window_ms: list[float] = []
        ticks = max(round(seconds / _TICK_S), 1)
        try:
            for tick in progress(range(1, ticks + 1), total=ticks, description=phase, unit="ticks"):
                time.sleep(max(begin_s + tick * _TICK_S - time.monotonic(), 0.0))
                new_ms = self._new_latencies()
                latencies_ms += new_ms
                window_ms += new_ms
                if window_ms and time.monotonic() - drawn_s >= self._settings.seconds / _POINTS:
                    drawn_s = time.monotonic()
                    self._curve.append((drawn_s, percentile(window_ms, 99)))
                    window_ms = []
                if self._must_end():
                    return
        finally:
            latencies_ms += self._new_latencies()

    def _new_latencies(self) -> list[float]:
        if self._traffic is None:
            return []
        return [value for values in self._traffic.latencies_since(self._seen).values() for value in values]

    def _must_end(self) -> bool:
        self._attackers.check()
        restarts, sample = self._watch.restarts, self._watch.samples[-1]
        most_mib = max(_MOST_RESIDENT_MIB, _MOST_RESIDENT_RATIO * self._watch.samples[0].resident_mib)
        if sample.resident_mib > most_mib:
            self.ending = f"ended early: the server holds {sample.resident_mib:.0f} MiB, more than {most_mib:.0f}"
        elif restarts and restarts[-1].away_s is None and time.monotonic() - restarts[-1].died_s > _RETURN_S:
            self.ending = f"ended early: the server died and did not come back within {_RETURN_S:.0f} s"
        return self.ending is not None

    def measure_suspects(self) -> None:
        """Send again, one by one, requests that may have kept the server busy for too long.

        During the attack several requests were in flight, and each bound includes the CPU time of the others.
        """
        limit_s = self._settings.limits.max_cpu_s
        # Kinds that may end the server are left out: they are bursts, and would only end it again.
        suspects = [one for one in self._bounded() if one.cpu_s > limit_s and not one.kind.may_restart]
        suspects.sort(key=lambda one: one.cpu_s, reverse=True)
        deadline_s = time.monotonic() + _ALONE_S
        for one in progress(suspects, total=len(suspects), description="alone", unit="requests"):
            if self.ending or time.monotonic() > deadline_s or not self._watch.is_up.wait(_RETURN_S):
                return
            time.sleep(2 * SAMPLE_S)
            begin_s = time.monotonic()
            self._attackers.send(one.kind, one.number)
            end_s = time.monotonic()
            time.sleep(2 * SAMPLE_S)
            self._alone_s[one] = self._watch.largest_cpu_s([(begin_s, end_s)])[0]

    def _bounded(self) -> list[HostileRequest]:
        """Return all hostile requests, each with an upper bound of its CPU time."""
        requests = list(self._attackers.requests)
        bounds = self._watch.largest_cpu_s([(one.begin_s, one.begin_s + one.took_s) for one in requests])
        return [replace(one, cpu_s=bound) for one, bound in zip(requests, bounds, strict=True)]

    def result(self, kinds: Sequence[Kind]) -> AttackResult:
        """Return the result so far."""
        requests = [replace(one, cpu_s=self._alone_s.get(one, one.cpu_s)) for one in self._bounded()]
        return AttackResult(
            settings=self._settings,
            kinds=kinds,
            begin_s=self._begin_s,
            end_s=min(self._end_s, time.monotonic()),
            settled_s=self._settled_s,
            requests=requests,
            good=self._traffic.tallies if self._traffic else {},
            calm_ms=self._calm_ms,
            attacked_ms=self._attacked_ms,
            curve=self._curve,
            samples=self._watch.samples,
            restarts=self._watch.restarts,
            measured_alone=len(self._alone_s),
            ending=self.ending,
        )


class _Attackers:
    """Threads that each send one hostile request after another.

    Attributes:
        requests: Requests so far, with their outcomes.
    """

    def __init__(self, target: AttackedServer, kinds: Sequence[Kind], seed: int) -> None:
        self.requests: list[HostileRequest] = []
        self._target = target
        self._seed = seed
        self._order = random.Random(seed)  # noqa: S311 - to be repeated, not to be unguessable
        # First every kind once, with those that may end the server last; then at random.
        self._first = sorted(kinds, key=lambda kind: (not kind.may_restart, self._order.random()))
        self._kinds = kinds
        self._last_s: dict[str, float] = {}
        self._numbers = 0
        self._current: dict[int, str] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._workers: list[Future[None]] = []

    def in_flight(self) -> frozenset[str]:
        """Return the kinds of requests that are in flight, ended just now, or may have left work behind."""
        now_s = time.monotonic()
        recent = [
            one.kind.name
            for one in self.requests[-_RECENT:]
            if now_s - (one.begin_s + one.took_s) < (_LINGERING_S if one.kind.may_restart else _JUST_NOW_S)
        ]
        with self._lock:
            return frozenset([*self._current.values(), *recent])

    @contextmanager
    def running(self, threads: int, watch: ServerWatch) -> Iterator[None]:
        """Run ``threads`` attackers during the block; after it, every request that they sent has its outcome."""
        with ThreadPoolExecutor(threads, thread_name_prefix="attack") as pool:
            try:
                self._workers = [pool.submit(self._work, watch) for _ in range(threads)]
                yield
            finally:
                self._stopping.set()
        self.check()

    @property
    def unsent(self) -> int:
        """Return the number of kinds that were not sent yet."""
        return len(self._first)

    def check(self) -> None:
        """Raise the exception of a thread, which is a fault of the attack itself."""
        for worker in self._workers:
            if worker.done():
                worker.result()

    def send(self, kind: Kind, number: int) -> HostileRequest:
        """Send the request of a kind and number, which is always the same for the same seed."""
        rng = random.Random(f"{self._seed} {kind.name} {number}")  # noqa: S311 - as above
        begin_s = time.monotonic()
        answer = kind.send(self._target, rng)
        return HostileRequest(kind, number, begin_s, time.monotonic() - begin_s, answer)

    def _work(self, watch: ServerWatch) -> None:
        thread = threading.get_ident()
        while not self._stopping.is_set():
            if not watch.is_up.wait(_TICK_S):
                continue
            with self._lock:
                due = self._next()
                if due is not None:
                    self._current[thread] = due[0].name
            if due is None:
                self._stopping.wait(_TICK_S)
                continue
            kind, number = due
            try:
                request = self.send(kind, number)
            finally:
                with self._lock:
                    del self._current[thread]
            self.requests.append(request)

    def _next(self) -> tuple[Kind, int] | None:
        """Choose the next kind, with a new number; None if every kind was sent too recently."""
        now_s = time.monotonic()
        due = [kind for kind in self._kinds if now_s - self._last_s.get(kind.name, -1e9) >= kind.apart_s]
        if not (self._first or due):
            return None
        self._numbers += 1
        kind = self._first.pop() if self._first else self._order.choices(due, [one.weight for one in due])[0]
        self._last_s[kind.name] = now_s
        return kind, self._numbers
