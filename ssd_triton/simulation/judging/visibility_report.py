"""What an evaluation on rendered images leaves: a table, figures, a plot, and pictures of the worst frames."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PilImage

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.detections import Detections
from ssd_triton.common.files import atomic_output, relative_to_cwd
from ssd_triton.media.drawing import draw_detections
from ssd_triton.simulation.judging.visibility import KINDS, RANGES_M, JudgedFrame, Recall, Visibility

_ASKED_KINDS = KINDS[:2]
_COLOURS = {"vehicle": "#2563c9", "person": "#d97706"}
_AMBER, _RED = (255, 191, 0), (235, 60, 60)


def table(visibility: Visibility) -> str:
    """The figures as Markdown."""
    criteria = visibility.criteria
    lines = [
        f"{len(visibility.frames)} images, score > {criteria.score_thresh:g}, IoU >= {criteria.match_iou_thresh:g}, of "
        f"road users of which {criteria.min_visibility:.0%} or more are seen.",
        "",
        "| range (m) | vehicles found | people found |",
        "|---|---|---|",
    ]
    for near_m, far_m in pairwise(RANGES_M):
        cells = [_cell(visibility.recall(kind, near_m, far_m)) for kind in _ASKED_KINDS]
        lines.append(f"| {near_m:g} to {far_m:g} | {' | '.join(cells)} |")
    cells = [_cell(visibility.relevant_recall(kind)) for kind in _ASKED_KINDS]
    lines.append(f"| **relevant** | {' | '.join(cells)} |")
    false = ", ".join(f"{visibility.false_per_frame(kind):.3f} {kind}" for kind in KINDS)
    return "\n".join(
        [
            *lines,
            "",
            f"Relevant: up to {criteria.relevant_range_m:g} m ahead and {criteria.relevant_offset_m:g} m aside of the "
            f"camera's way; all together {_cell(visibility.relevant_recall())}.",
            f"False boxes a frame, which overlap nothing of their kind by {criteria.false_iou_thresh:g}: {false}.",
        ]
    )


def write_report(  # noqa: PLR0917
    folder: Path,
    visibility: Visibility,
    facts: Mapping[str, object],
    picture: Callable[[JudgedFrame], UInt8Array],
    labels: Sequence[str],
    worst: int,
) -> list[Path]:
    """Write ``recall.json``, ``recall.md``, ``recall.png`` and ``worst/*.jpg``.

    Args:
        folder: Where to.
        visibility: The figures.
        facts: What they belong to, by name.
        picture: The pixels of an image, UINT8 [H, W, 3] RGB.
        labels: Class names by id, the background first.
        worst: Pictures of the frames with the most misses and false boxes, at most.

    Returns:
        The files.
    """
    written = [folder / name for name in ("recall.json", "recall.md", "recall.png")]
    with atomic_output(written[0]) as path:
        path.write_text(json.dumps({**facts, **_record(visibility)}, indent=1) + "\n", encoding="utf-8")
    with atomic_output(written[1]) as path:
        about = "\n".join(f"- {name}: {value}" for name, value in facts.items())
        path.write_text(f"# Rendered road users found\n\n{about}\n\n{table(visibility)}\n", encoding="utf-8")
    _plot(written[2], visibility)
    for old in (folder / "worst").glob("*.jpg"):
        old.unlink()
    ranked = sorted(visibility.frames, key=lambda frame: -_badness(frame))
    for frame in ranked[:worst]:
        if _badness(frame):
            written.append(folder / "worst" / f"{Path(frame.image.file_name).stem}.jpg")
            with atomic_output(written[-1]) as path:
                PilImage.fromarray(draw_judged(picture(frame), frame, labels)).save(path, quality=88)
    return written


def draw_judged(image_rgb: UInt8Array, frame: JudgedFrame, labels: Sequence[str]) -> UInt8Array:
    """Detections, those on nothing in red, and what was missed in amber: UINT8 [H, W, 3] RGB."""
    found, missed = frame.detections, frame.missed
    together = Detections(
        np.concatenate([found.boxes_xyxy, missed.boxes_xyxy]),
        np.concatenate([found.scores, missed.scores]),
        np.concatenate([found.class_ids, missed.class_ids]),
    )
    places = range(len(found), len(together))
    return draw_detections(
        image_rgb,
        together,
        labels,
        notes=dict.fromkeys(places, "missed"),
        highlights={**dict.fromkeys(frame.false, _RED), **dict.fromkeys(places, _AMBER)},
    )


def describe(server: str | None, weights: Path | None, images: Path) -> dict[str, object]:
    """What the figures belong to, by name."""
    detector = f"through the server ({server})" if weights is None else f"PyTorch FP32, {relative_to_cwd(weights)}"
    return {"detector": detector, "images": relative_to_cwd(images)}


def _badness(frame: JudgedFrame) -> int:
    """What counts more is what braking is about."""
    missed = sum(item.relevant and not item.found for item in frame.seen)
    return 3 * missed + len(frame.missed) + 2 * len(frame.false)


def _cell(recall: Recall) -> str:
    return "none there" if recall.part is None else f"{recall.part:.3f} ({recall.found} of {recall.targets})"


def _record(visibility: Visibility) -> dict[str, Any]:
    def counts(recall: Recall) -> dict[str, object]:
        return {"targets": recall.targets, "found": recall.found, "recall": recall.part}

    return {
        "images_judged": len(visibility.frames),
        "criteria": vars(visibility.criteria),
        "by_range_m": {
            kind: {
                f"{near_m:g}-{far_m:g}": counts(visibility.recall(kind, near_m, far_m))
                for near_m, far_m in pairwise(RANGES_M)
            }
            for kind in _ASKED_KINDS
        },
        "relevant": {
            **{kind: counts(visibility.relevant_recall(kind)) for kind in _ASKED_KINDS},
            "all": counts(visibility.relevant_recall()),
        },
        "false_boxes_per_frame": {kind: visibility.false_per_frame(kind) for kind in KINDS},
    }


def _plot(path: Path, visibility: Visibility) -> None:
    """Recall over range, with how many there were."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
    bands = list(pairwise(RANGES_M))
    for aside, kind in zip((-0.2, 0.2), _ASKED_KINDS, strict=True):
        recalls = [visibility.recall(kind, *band) for band in bands]
        places = [place + aside for place in range(len(bands))]
        bars = axes.bar(places, [recall.part or 0.0 for recall in recalls], 0.38, color=_COLOURS[kind], label=kind)
        axes.bar_label(bars, [f"{recall.found}/{recall.targets}" for recall in recalls], fontsize=7)
    axes.set_xticks(range(len(bands)), [f"{near_m:g} to {far_m:g}" for near_m, far_m in bands])
    false = ", ".join(f"{visibility.false_per_frame(kind):.2f} {kind}" for kind in KINDS)
    axes.set(
        title=f"Rendered road users found; false boxes a frame: {false}",
        xlabel="range, m",
        ylabel=f"part found, score > {visibility.criteria.score_thresh:g}",
        ylim=(0, 1.08),
    )
    axes.title.set_fontsize(10)
    axes.grid(visible=True, axis="y", alpha=0.25)
    axes.legend(fontsize=9)
    with atomic_output(path) as temporary:
        figure.savefig(temporary, dpi=120)
    plt.close(figure)
