"""The result of an attack, and its verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ssd_triton.measuring.attack.kinds import Kind
from ssd_triton.measuring.attack.sending import AttackAnswer
from ssd_triton.measuring.attack.server_watch import Restart, ServerSample, steady_growth
from ssd_triton.measuring.process_monitor import percentile
from ssd_triton.measuring.traffic import Tally

_DYING_S = 3.0
"""Longest time from the moment when a crashing server stops answering until its death is noticed. It prints its stack
first, and has two seconds for that before ``serve`` ends it."""


@dataclass(frozen=True)
class AttackLimits:
    """Upper limits that a server must stay within.

    Attributes:
        max_p99_ratio: p99 of good requests under attack, as a multiple of the p99 in the calm phase.
        max_cpu_s: CPU time of one hostile request.
        max_resident_mib: Resident memory of server and stubs at the end, shared pages counted once.
        max_resident_ratio: The same as a multiple of that in the calm phase, for servers that hold more than
            ``max_resident_mib`` from the start, as those do that have loaded PyTorch and CUDA.
        max_growth: Relative growth of resident memory over the second half.
        max_away_s: Time until a server that died is ready again.
    """

    max_p99_ratio: float = 5.0
    max_cpu_s: float = 2.0
    max_resident_mib: float = 1536.0
    max_resident_ratio: float = 1.5
    max_growth: float = 0.05
    max_away_s: float = 8.0


@dataclass(frozen=True)
class AttackSettings:
    """Duration, load, kinds and limits of an attack.

    Attributes:
        seconds: Duration of the attack.
        calm_s: Duration of the calm phase before it.
        attackers: Hostile requests in flight.
        good_per_s: Good requests a second, at most.
        min_requests: Least number of hostile requests.
        kinds: Shell patterns for the names of the kinds to send.
        without: Shell patterns for the names of kinds to leave out.
        seed: Seed of all random numbers.
        limits: Limits that the server must stay within.
    """

    seconds: float
    calm_s: float
    attackers: int = 2
    good_per_s: float = 4.0
    min_requests: int = 0
    kinds: tuple[str, ...] = ("*",)
    without: tuple[str, ...] = ()
    seed: int = 0
    limits: AttackLimits = field(default_factory=AttackLimits)


@dataclass(frozen=True)
class HostileRequest:
    """One hostile request and its outcome.

    Attributes:
        kind: Its kind.
        number: Its number; the same kind, number and seed make the same request.
        begin_s: Time when it was sent, on the monotonic clock.
        took_s: Time until its outcome.
        answer: Its outcome.
        cpu_s: Upper bound of the CPU time that the server spent on it.
    """

    kind: Kind
    number: int
    begin_s: float
    took_s: float
    answer: AttackAnswer
    cpu_s: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class Check:
    """One line of the verdict.

    Attributes:
        name: What is checked, with the limit.
        found: The measured value.
        passed: Whether the value is within the limit.
    """

    name: str
    found: str
    passed: bool


@dataclass(frozen=True)
class AttackResult:
    """The outcome of an attack.

    Attributes:
        settings: Duration, load, kinds and limits.
        kinds: Kinds that were to be sent.
        begin_s: Beginning of the attack, on the monotonic clock.
        end_s: End of the attack.
        settled_s: End of a short phase after the attack, with good requests only.
        requests: Hostile requests.
        good: Counts of the good requests, by protocol.
        calm_ms: Latencies of good requests before the attack.
        attacked_ms: Latencies of good requests under attack.
        curve: Points of time and p99 of good requests since the previous point.
        samples: Memory and CPU over time.
        restarts: Deaths of the server.
        measured_alone: Hostile requests that were sent again, alone, to measure their CPU time.
        ending: Reason why the attack ended early; None if it did not.
    """

    settings: AttackSettings
    kinds: Sequence[Kind]
    begin_s: float
    end_s: float
    settled_s: float
    requests: Sequence[HostileRequest]
    good: Mapping[str, Tally]
    calm_ms: Sequence[float]
    attacked_ms: Sequence[float]
    curve: Sequence[tuple[float, float]]
    samples: Sequence[ServerSample]
    restarts: Sequence[Restart]
    measured_alone: int
    ending: str | None

    def of(self, kind: Kind) -> list[HostileRequest]:
        """Return the hostile requests of a kind."""
        return [one for one in self.requests if one.kind is kind]

    def is_right(self, request: HostileRequest) -> bool:
        """Whether the outcome is right for the kind, or the server was away."""
        end_s = request.begin_s + request.took_s
        return request.kind.is_right(request.answer) or any(
            request.begin_s <= one.died_s + (one.away_s or float("inf")) and end_s >= one.died_s - _DYING_S
            for one in self.restarts
        )

    def attack_samples(self) -> list[ServerSample]:
        """Samples of the attack, without those before and after it."""
        return [one for one in self.samples if self.begin_s <= one.time_s <= self.end_s] or list(self.samples[-1:])

    @property
    def end_resident_mib(self) -> float:
        """Resident memory at the end, after the outcome of the last hostile request."""
        return next((one.resident_mib for one in reversed(self.samples) if one.time_s <= self.settled_s), 0.0)

    @property
    def max_resident_mib(self) -> float:
        """Resident memory that the server may hold at the end."""
        limits = self.settings.limits
        calm_mib = max((one.resident_mib for one in self.samples if one.time_s < self.begin_s), default=0.0)
        is_larger = calm_mib > limits.max_resident_mib
        return limits.max_resident_ratio * calm_mib if is_larger else limits.max_resident_mib

    @property
    def max_p99_ms(self) -> float:
        """Latency within which 99 % of the good requests under attack must be answered."""
        return self.settings.limits.max_p99_ratio * percentile(self.calm_ms, 99)

    @property
    def passed(self) -> bool:
        """Whether every check passed and the attack did not end early."""
        return self.ending is None and all(check.passed for check in self.checks())

    def checks(self) -> list[Check]:
        """Return the verdict, one line for each check."""
        limits = self.settings.limits
        p99_ms, calm_ms = percentile(self.attacked_ms, 99), percentile(self.calm_ms, 99)
        cpu_s = max((one.cpu_s for one in self.requests if not one.kind.may_restart), default=0.0)
        growth = steady_growth(self.attack_samples())
        return [
            *self._checks_of_requests(),
            Check(
                f"p99 of good requests under attack, at most {limits.max_p99_ratio:g} times the calm p99",
                f"{p99_ms:.0f} ms, {p99_ms / calm_ms:.1f} times {calm_ms:.0f} ms",
                p99_ms <= self.max_p99_ms,
            ),
            Check(
                f"CPU time of a hostile request, at most {limits.max_cpu_s:g} s",
                f"{cpu_s:.2f} s",
                cpu_s <= limits.max_cpu_s,
            ),
            Check(
                f"resident memory at the end, at most {self.max_resident_mib:,.0f} MiB",
                f"{self.end_resident_mib:,.0f} MiB",
                0 < self.end_resident_mib <= self.max_resident_mib,
            ),
            Check(
                f"growth of resident memory over the second half, at most {limits.max_growth:.0%}",
                f"{growth:+.1%}",
                growth <= limits.max_growth,
            ),
            *self._checks_of_restarts(),
        ]

    def _checks_of_requests(self) -> list[Check]:
        wrong, lost = (sum(getattr(one, name) for one in self.good.values()) for name in ("wrong", "lost"))
        unexpected = [one for one in self.requests if not self.is_right(one)]
        missing = [kind.name for kind in self.kinds if not self.of(kind)]
        good = sum(tally.requests for tally in self.good.values())
        return [
            Check("wrong answers to good requests, none", f"{wrong} of {good:,}", wrong == 0),
            Check("good requests lost, none", f"{lost} of {good:,}", lost == 0),
            Check("hostile requests with another outcome than expected, none", f"{len(unexpected):,}", not unexpected),
            Check(
                f"hostile requests, at least {self.settings.min_requests:,}",
                f"{len(self.requests):,}",
                len(self.requests) >= self.settings.min_requests,
            ),
            Check("kinds that were not sent, none", ", ".join(missing) or "0", not missing),
        ]

    def _checks_of_restarts(self) -> list[Check]:
        allowed = {kind.name for kind in self.kinds if kind.may_restart}
        uncalled = [restart for restart in self.restarts if not restart.kinds & allowed]
        away_s = [float("inf") if one.away_s is None else one.away_s for one in self.restarts]
        limit_s = self.settings.limits.max_away_s
        return [
            Check(
                "restarts by kinds that can be refused, none", f"{len(uncalled)} of {len(self.restarts)}", not uncalled
            ),
            Check(
                f"time until the server is ready again, at most {limit_s:g} s",
                f"{max(away_s):.1f} s" if away_s else "no restart",
                max(away_s, default=0.0) <= limit_s,
            ),
        ]
