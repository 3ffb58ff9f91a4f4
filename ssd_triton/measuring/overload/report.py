"""Writes table and plot of an overload."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ssd_triton.common.report import BLUE, ORANGE, PURPLE, RED, Bullets, ReportFolder, Table, markdown
from ssd_triton.measuring.overload.run import OverloadResult, RequestOutcome
from ssd_triton.measuring.process_monitor import percentile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = {
    RequestOutcome.ANSWERED: BLUE,
    RequestOutcome.REFUSED: ORANGE,
    RequestOutcome.LATE: PURPLE,
    RequestOutcome.FAILED: RED,
}
_HEADER = ("requests", "number", "share", "p50 ms", "p95 ms", "p99 ms", "longest ms")


def write_report(folder: Path, result: OverloadResult) -> str:
    """Write ``overload.md`` and ``overload.png``, and return the text of the former."""
    report, text = ReportFolder(folder), overload_markdown(result)
    report.text("overload.md", text)
    report.picture("overload.png", lambda figure: _draw(figure, result), rows=2)
    return text


def overload_markdown(result: OverloadResult) -> str:
    """Return the report as Markdown: requests by outcome with their times, rates, memory and recovery."""
    offered = len(result.requests)
    seconds = result.requests[-1].sent_s - result.requests[0].sent_s
    before, most = result.samples[0].total_rss_mib, max(sample.total_rss_mib for sample in result.samples)
    latencies = {outcome: result.latencies_s(outcome) for outcome in RequestOutcome}
    rows = [
        _row("one at a time, before", result.unloaded_s, None),
        *(_row(one.value, found, len(found) / offered) for one, found in latencies.items() if found),
        _row("one at a time, after", result.recovered_s, None),
    ]
    return markdown(
        f"`{result.variant}`, one image a request; {offered} requests offered in {seconds:.0f} s, "
        f"{result.settings.factor:g} times the saturated rate of {result.saturated_per_s:.2f}/s.",
        Table(_HEADER, rows),
        Bullets(
            [
                f"Bound of the latency, by the detector's queue of {result.max_queue_size} and batches of at most "
                f"{result.largest_batch}: {result.bound_s * 1e3:,.0f} ms.",
                f"Answers under overload: {result.goodput_per_s:.2f}/s, "
                f"{result.goodput_per_s / result.saturated_per_s:.0%} of the saturated rate.",
                f"A request sent when the overload ends is answered after {result.first_answer_s * 1e3:,.0f} ms.",
                f"Resident memory of all processes: {before:.0f} MiB before, {most:.0f} MiB at most.",
                *(f"**Failed: {failure}**" for failure in result.failures()),
            ]
        ),
    )


def _draw(figure: Figure, result: OverloadResult) -> None:
    """Draw the latency of each request over the time when it was sent, and memory."""
    latency, memory = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [2, 1]})
    for outcome, colour in _COLOURS.items():
        chosen = [one for one in result.requests if one.outcome is outcome]
        if chosen:
            sent_s, took_ms = [one.sent_s for one in chosen], [one.latency_s * 1e3 for one in chosen]
            latency.scatter(sent_s, took_ms, s=10, color=colour, label=f"{outcome.value} ({len(chosen)})")
    latency.axhline(result.bound_s * 1e3, color="k", linestyle="--", linewidth=1, label="bound by the queue")
    unloaded_ms = percentile(result.unloaded_s, 50) * 1e3
    latency.axhline(unloaded_ms, color="0.5", linestyle=":", linewidth=1, label="one request at a time")
    title = f"{result.settings.factor:g} times the saturated rate of {result.saturated_per_s:.1f} images/s"
    latency.set(title=title, ylabel="latency, ms", yscale="log")
    latency.legend()
    memory.plot([one.time_s for one in result.samples], [one.total_rss_mib for one in result.samples], marker=".")
    memory.set(ylabel="resident memory, MiB", xlabel="sent, s", ylim=(0, None))


def _row(name: str, latencies_s: Sequence[float], share: float | None) -> list[str]:
    times = (f"{percentile(latencies_s, percent) * 1e3:,.0f}" for percent in (50, 95, 99, 100))
    return [name, str(len(latencies_s)), "" if share is None else f"{share:.0%}", *times]
