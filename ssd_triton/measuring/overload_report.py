"""Table and picture of an overload."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from ssd_triton.common.files import atomic_output
from ssd_triton.measuring.overload import Outcome, OverloadResult
from ssd_triton.measuring.soak.watch import percentile

_COLOURS = {
    Outcome.ANSWERED: "tab:blue",
    Outcome.REFUSED: "tab:orange",
    Outcome.LATE: "tab:purple",
    Outcome.FAILED: "tab:red",
}


def table(result: OverloadResult) -> str:
    """Markdown: requests by outcome with their times, rates, memory and recovery."""
    offered = len(result.requests)
    before, most = result.samples[0].total_rss_mib, max(sample.total_rss_mib for sample in result.samples)
    lines = [
        f"`{result.variant}`, one image a request; {offered} requests offered in "
        f"{result.requests[-1].sent_s - result.requests[0].sent_s:.0f} s, "
        f"{result.settings.factor:g} times the saturated rate of {result.saturated_per_s:.2f}/s.",
        "",
        "| requests | number | share | p50 ms | p95 ms | p99 ms | longest ms |",
        "|---|---|---|---|---|---|---|",
        _row("one at a time, before", result.unloaded_s, None),
    ]
    for outcome in Outcome:
        latencies_s = result.latencies_s(outcome)
        if latencies_s:
            lines.append(_row(outcome.value, latencies_s, len(latencies_s) / offered))
    lines += [
        _row("one at a time, after", result.recovered_s, None),
        "",
        f"- Bound of the latency, by the detector's queue of {result.max_queue_size} and batches of at most "
        f"{result.largest_batch}: {result.bound_s * 1e3:,.0f} ms.",
        f"- Answers under overload: {result.goodput_per_s:.2f}/s, "
        f"{result.goodput_per_s / result.saturated_per_s:.0%} of the saturated rate.",
        f"- A request sent when the overload ends is answered after {result.first_answer_s * 1e3:,.0f} ms.",
        f"- Resident memory of all processes: {before:.0f} MiB before, {most:.0f} MiB at most.",
        *(f"- **Failed: {failure}**" for failure in result.failures()),
    ]
    return "\n".join(lines)


def plot(path: Path, result: OverloadResult) -> None:
    """Latency of each request over the time when it was sent, and memory."""
    figure, (latency, memory) = plt.subplots(
        2, 1, figsize=(9, 7), layout="constrained", sharex=True, gridspec_kw={"height_ratios": [2, 1]}
    )
    for outcome in Outcome:
        chosen = [one for one in result.requests if one.outcome is outcome]
        if chosen:
            sent_s, took_ms = [one.sent_s for one in chosen], [one.latency_s * 1e3 for one in chosen]
            latency.scatter(sent_s, took_ms, s=10, color=_COLOURS[outcome], label=f"{outcome.value} ({len(chosen)})")
    latency.axhline(result.bound_s * 1e3, color="k", linestyle="--", linewidth=1, label="bound by the queue")
    unloaded_ms = percentile(result.unloaded_s, 50) * 1e3
    latency.axhline(unloaded_ms, color="0.5", linestyle=":", linewidth=1, label="one request at a time")
    title = f"{result.settings.factor:g} times the saturated rate of {result.saturated_per_s:.1f} images/s"
    latency.set(title=title, ylabel="latency, ms", yscale="log")
    memory.plot([one.time_s for one in result.samples], [one.total_rss_mib for one in result.samples], marker=".")
    memory.set(ylabel="resident memory, MiB", xlabel="sent, s", ylim=(0, None))
    latency.legend(fontsize=8)
    for axes in (latency, memory):
        axes.grid(visible=True, alpha=0.25)
    with atomic_output(path) as temporary:
        figure.savefig(temporary, dpi=100)
    plt.close(figure)


def _row(name: str, latencies_s: Sequence[float], share: float | None) -> str:
    times = " | ".join(f"{percentile(latencies_s, percent) * 1e3:,.0f}" for percent in (50, 95, 99, 100))
    return f"| {name} | {len(latencies_s)} | {'' if share is None else f'{share:.0%}'} | {times} |"
