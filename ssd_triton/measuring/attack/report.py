"""Writes the report of an attack: its verdict, a table of the kinds, and curves of memory and latency."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from ssd_triton.common.machine import environment
from ssd_triton.common.report import BLUE, ORANGE, RED, Bullets, Heading, ReportFolder, Table, markdown
from ssd_triton.measuring.attack.kinds import Kind
from ssd_triton.measuring.attack.result import AttackResult
from ssd_triton.measuring.process_monitor import percentile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_PROBLEMS = 20


def write_report(folder: Path, result: AttackResult) -> list[Path]:
    """Write ``attack.md``, ``attack.csv`` and ``attack.png``, and return their paths."""
    report = ReportFolder(folder)
    report.text("attack.md", attack_markdown(result))
    rows = [
        {"time_s": one.time_s - result.begin_s, "resident_mib": one.resident_mib, "cpu_s": one.cpu_s}
        for one in result.samples[:: max(len(result.samples) // 400, 1)]
    ]
    report.csv("attack.csv", rows)
    report.picture("attack.png", lambda figure: _draw(figure, result), rows=2)
    return report.written


def attack_markdown(result: AttackResult) -> str:
    """Return the report as Markdown: the verdict, the kinds with their outcomes, restarts, and problems."""
    facts = environment()
    machine = ", ".join(f"{name} {facts[name]}" for name in ("processor", "cores", "system", "python", "date"))
    minutes = (result.end_s - result.begin_s) / 60
    ending = f" **{result.ending}.**" if result.ending else ""
    verdict = [[check.name, check.found, "yes" if check.passed else "**no**"] for check in result.checks()]
    return markdown(
        Heading(f"Attack: {'passed' if result.passed else 'failed'}", 1),
        f"{len(result.requests):,} hostile requests of {len(result.kinds)} kinds in {minutes:.1f} minutes, "
        f"{result.settings.attackers} in flight, beside good ones whose answers are checked.{ending}",
        Table(["check", "found", "passed"], verdict),
        Heading("Hostile requests"),
        _kinds_table(result),
        f"CPU time is that of the server without detector and post-processing, while a request was in flight: an upper "
        f"bound, with what was in flight beside it. {result.measured_alone} requests above the limit were sent again, "
        f"alone, and have what they took then.",
        Heading("Good requests"),
        _good_table(result),
        _restarts(result),
        Bullets(_problems(result)),
        f"{machine}.",
    )


def _kinds_table(result: AttackResult) -> Table:
    return Table(
        ["kind", "protocol", "sent", "as expected", "other", "outcomes", "p99 ms", "largest CPU s"],
        [_kind_row(result, kind) for kind in result.kinds],
    )


def _kind_row(result: AttackResult, kind: Kind) -> list[str]:
    requests = result.of(kind)
    right = sum(map(result.is_right, requests))
    outcomes = Counter(one.answer.outcome.value for one in requests)
    p99_ms = percentile([one.took_s * 1e3 for one in requests], 99)
    return [
        kind.name,
        "gRPC, HTTP" if kind.protocol == "both" else kind.protocol,
        f"{len(requests):,}",
        f"{right:,}",
        f"{len(requests) - right:,}",
        ", ".join(f"{count:,} {name}" for name, count in outcomes.most_common()),
        f"{p99_ms:.0f}" if requests else "",
        f"{max((one.cpu_s for one in requests), default=0):.2f}",
    ]


def _good_table(result: AttackResult) -> Table:
    rows = [
        [phase, f"{len(values):,}", *(f"{percentile(values, percent):.0f}" for percent in (50, 99, 100))]
        for phase, values in (("calm", result.calm_ms), ("under attack", result.attacked_ms))
    ]
    return Table(["phase", "answers", "p50 ms", "p99 ms", "longest ms"], rows)


def _restarts(result: AttackResult) -> str | Table:
    if not result.restarts:
        return ""
    rows = [
        [
            f"{one.died_s - result.begin_s:.1f}",
            "not back" if one.away_s is None else f"{one.away_s:.1f}",
            ", ".join(sorted(one.kinds)),
        ]
        for one in result.restarts
    ]
    return Table(["s", "away, s", "hostile requests in flight"], rows, "Restarts")


def _problems(result: AttackResult) -> list[str]:
    """List the first unexpected outcomes, one for each kind and outcome, and the first problems of good requests."""
    found: dict[tuple[str, str], str] = {}
    for one in result.requests:
        if not result.is_right(one):
            expected = " or ".join(sorted(outcome.value for outcome in one.kind.right))
            words = f" with '{one.kind.reason}'" if one.kind.reason else ""
            found.setdefault(
                (one.kind.name, one.answer.outcome.value),
                f"{one.kind.name}, number {one.number}: got {one.answer.outcome.value} "
                f"({_printable(one.answer.reason)}), expected {expected}{words}",
            )
    good = [f"{name}: {_printable(problem)}" for name, tally in result.good.items() for problem in tally.problems]
    return [*found.values(), *good][:_MOST_PROBLEMS]


def _printable(text: str) -> str:
    """Return a text from the server without control characters and markup."""
    return "".join(letter if letter.isprintable() else "?" for letter in text).replace("<", "‹").replace("`", "'")


def _draw(figure: Figure, result: AttackResult) -> None:
    memory, latency = figure.subplots(2, 1, sharex=True)
    memory.plot(
        [(one.time_s - result.begin_s) / 60 for one in result.samples],
        [one.resident_mib for one in result.samples],
        color=BLUE,
        linewidth=0.8,
    )
    memory.axhline(result.max_resident_mib, color=RED, linestyle="--", linewidth=1, label="limit at the end")
    memory.set(title="Resident memory of server and stubs", ylabel="MiB", ylim=(0, None))
    latency.plot(
        [(time_s - result.begin_s) / 60 for time_s, _ in result.curve],
        [p99_ms for _, p99_ms in result.curve],
        color=BLUE,
        marker=".",
        linewidth=0.8,
    )
    latency.axhline(result.max_p99_ms, color=RED, linestyle="--", linewidth=1, label="limit of the whole attack")
    latency.set(title="p99 of good requests", ylabel="ms", yscale="log", xlabel="minutes since the attack began")
    for axes in (memory, latency):
        for restart in result.restarts:
            axes.axvline((restart.died_s - result.begin_s) / 60, color=ORANGE, linestyle=":", linewidth=1)
        axes.axvspan(-result.settings.calm_s / 60, 0, color="0.9", zorder=0, label="calm")
        axes.legend()
