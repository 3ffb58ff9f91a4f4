"""Formats a server's state as text and as JSON."""

from __future__ import annotations

import dataclasses
from typing import Any

from ssd_triton.serving.status.collect import STAGES, ModelStatus, ServerStatus

_COUNT_HEADERS = ("pending", "requests/s", "requests", "failed", "refused", "batch")
_TIME_HEADERS = ("queue ms", "input ms", "infer ms", "output ms", "request ms")
_HEADERS: tuple[str, ...] = ("model", "version", "state", "instances", *_COUNT_HEADERS, *_TIME_HEADERS)
_GIB = 2**30


def text(status: ServerStatus, earlier: ServerStatus | None = None) -> str:
    """Format a status as lines for a terminal.

    Args:
        status: The server's state.
        earlier: An earlier status: counts, rates and mean times then cover the time since.
    """
    before = {model.name: model for model in earlier.models} if earlier else {}
    elapsed_s = status.monotonic_s - earlier.monotonic_s if earlier else None
    rows = [_HEADERS]
    for model in status.models:
        recent = model.since(before[model.name]) if model.name in before else model
        rows.append(_row(recent, elapsed_s))
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADERS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    span = f"over the last {elapsed_s:.1f} s" if elapsed_s is not None else "since the models were loaded"
    variants = ", ".join(model.variant for model in status.models if model.variant) or "unknown"
    head = f"{status.url}: Triton {status.version}, {_ready(status.ready)}, variant {variants}; counts and means {span}"
    reasons = [f"{model.name}: {model.reason}" for model in status.models if model.reason]
    return "\n".join([head, *_machine(status), "", *lines, *reasons])


def to_json(status: ServerStatus) -> dict[str, Any]:
    """Return a status as JSON values: counts since the models were loaded, and mean times in milliseconds."""
    models = {}
    for model in status.models:
        values = dataclasses.asdict(model)
        del values["name"], values["time_ns"]
        means = {stage: model.mean_ms(stage) for stage in (*STAGES, "request")}
        models[model.name] = {**values, "mean_ms": means}
    return {
        "url": status.url,
        "triton_version": status.version,
        "ready": status.ready,
        "models": models,
        "machine": status.metrics.machine if status.metrics else None,
        "problems": list(status.problems),
    }


def _row(model: ModelStatus, elapsed_s: float | None) -> tuple[str, ...]:
    rate = "-" if elapsed_s is None else f"{model.succeeded / elapsed_s:.1f}"
    batch = f"{model.images / model.executions:.1f}" if model.executions else "-"
    counts = (_or_dash(model.pending), rate, str(model.succeeded), str(model.failed), _or_dash(model.refused), batch)
    means = (model.mean_ms(stage) for stage in (*STAGES, "request"))
    times = ("-" if mean is None else f"{mean:.2f}" for mean in means)
    return (model.name, model.version, _ready(model.ready), model.instances or "-", *counts, *times)


def _machine(status: ServerStatus) -> list[str]:
    if status.metrics is None:
        return []
    values = status.metrics.machine
    lines = []
    if "cpu_memory_total_bytes" in values:
        used, total = values.get("cpu_memory_used_bytes", 0.0), values["cpu_memory_total_bytes"]
        load = values.get("cpu_utilization", 0.0)
        lines.append(f"CPU {load:.0%}, memory {used / _GIB:.1f} of {total / _GIB:.1f} GiB")
    for gpu in sorted({name.split()[1] for name in values if name.startswith("gpu_")}):
        load, power = values.get(f"gpu_utilization {gpu}", 0.0), values.get(f"gpu_power_w {gpu}", 0.0)
        used, total = (values.get(f"gpu_memory_{kind}_bytes {gpu}", 0.0) / _GIB for kind in ("used", "total"))
        lines.append(f"{gpu} {load:.0%}, memory {used:.1f} of {total:.1f} GiB, {power:.0f} W")
    return lines


def _ready(ready: bool) -> str:
    return "ready" if ready else "NOT READY"


def _or_dash(count: int | None) -> str:
    return "-" if count is None else str(count)
