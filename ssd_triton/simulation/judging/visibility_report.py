"""The report of an evaluation on rendered images: a table, figures, and pictures of the worst frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.detections import Detections
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.common.report import Bullets, Heading, ReportFolder, Table, markdown
from ssd_triton.media.drawing import draw_detections
from ssd_triton.simulation.judging.visibility import KINDS, RANGES_M, JudgedFrame, Recall, Visibility

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ASKED_KINDS = KINDS[:2]
_AMBER, _RED = (255, 191, 0), (235, 60, 60)


def recall_table(visibility: Visibility) -> str:
    """The figures as Markdown."""
    criteria = visibility.criteria
    rows = [
        [f"{band[0]:g} to {band[1]:g}", *(_cell(visibility.recall(kind, *band)) for kind in _ASKED_KINDS)]
        for band in pairwise(RANGES_M)
    ]
    rows.append(["**relevant**", *(_cell(visibility.relevant_recall(kind)) for kind in _ASKED_KINDS)])
    false = ", ".join(f"{visibility.false_per_frame(kind):.3f} {kind}" for kind in KINDS)
    return markdown(
        f"{len(visibility.frames)} images, score > {criteria.score_thresh:g}, IoU >= {criteria.match_iou_thresh:g}, of "
        f"road users of which {criteria.min_visibility:.0%} or more are seen.",
        Table(["range (m)", "vehicles found", "people found"], rows),
        f"Relevant: up to {criteria.relevant_range_m:g} m ahead and {criteria.relevant_offset_m:g} m aside of the "
        f"camera's way; all together {_cell(visibility.relevant_recall())}.\n"
        f"False boxes a frame, which overlap nothing of their kind by {criteria.false_iou_thresh:g}: {false}.",
    ).rstrip()


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
        folder: Folder of the report.
        visibility: The figures.
        facts: Conditions under which they were measured, by name.
        picture: The pixels of an image, UINT8 [H, W, 3] RGB.
        labels: Class names by id, the background first.
        worst: Pictures of the frames with the most misses and false boxes, at most.

    Returns:
        The files.
    """
    report = ReportFolder(folder)
    report.json("recall.json", {**facts, **_record(visibility)})
    about = Bullets([f"{name}: {value}" for name, value in facts.items()])
    report.text("recall.md", markdown(Heading("Rendered road users found", 1), about, recall_table(visibility)))
    report.picture("recall.png", lambda figure: _draw(figure, visibility))
    report.clear("worst/*.jpg")
    for frame in sorted(visibility.frames, key=lambda frame: -_badness(frame))[:worst]:
        if _badness(frame):
            name = f"worst/{Path(frame.image.file_name).stem}.jpg"
            report.photo(name, draw_judged(picture(frame), frame, labels))
    return report.written


def draw_judged(image_rgb: UInt8Array, frame: JudgedFrame, labels: Sequence[str]) -> UInt8Array:
    """Draw the detections (false ones in red) and the missed road users (in amber): UINT8 [H, W, 3] RGB."""
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
    """Conditions under which the figures were measured, by name."""
    detector = f"through the server ({server})" if weights is None else f"PyTorch FP32, {relative_to_cwd(weights)}"
    return {"detector": detector, "images": relative_to_cwd(images)}


def _badness(frame: JudgedFrame) -> int:
    """Weigh misses and false boxes; relevant misses count most, because they matter for braking."""
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


def _draw(figure: Figure, visibility: Visibility) -> None:
    """Recall over range, with the counts."""
    axes = figure.subplots()
    bands = list(pairwise(RANGES_M))
    for aside, kind in zip((-0.2, 0.2), _ASKED_KINDS, strict=True):
        recalls = [visibility.recall(kind, *band) for band in bands]
        places = [place + aside for place in range(len(bands))]
        bars = axes.bar(places, [recall.part or 0.0 for recall in recalls], 0.38, label=kind)
        axes.bar_label(bars, [f"{recall.found}/{recall.targets}" for recall in recalls], fontsize=7)
    axes.set_xticks(range(len(bands)), [f"{near_m:g} to {far_m:g}" for near_m, far_m in bands])
    false = ", ".join(f"{visibility.false_per_frame(kind):.2f} {kind}" for kind in KINDS)
    axes.set(
        title=f"Rendered road users found; false boxes a frame: {false}",
        xlabel="range, m",
        ylabel=f"part found, score > {visibility.criteria.score_thresh:g}",
        ylim=(0, 1.08),
    )
    axes.legend()
